"""`tierway report`: what a running gateway spent and saved, how it did, and whether goals are met; for a terminal, or
as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click
import httpx2
import orjson
from pydantic import ValidationError

from app.cli.options import JSON_OPTION, URL_OPTION, fail, no_gateway
from app.spend.report import Report
from app.spend.report_text import terminal

SECONDS: Final = 60
TYPES: Final = {"json": "application/json", "csv": "text/csv", "markdown": "text/markdown"}


@click.command("report", short_help="Say what was spent and saved, and whether goals are met.")
@click.option("--since", help="So many days up to today: 7d, at most 30d; 7d where nothing is said.")
@click.option("--from", "first", help="Instead: the first day, like 2026-11-14, in UTC.")
@click.option("--to", "last", help="And the last day, included.")
@URL_OPTION
@click.option("--key", envvar="TIERWAY_ADMIN_KEY", help="The admin key; else TIERWAY_ADMIN_KEY.")
@click.option("--goal", "goals", multiple=True, help="A goal to judge, like local_share=0.8; as often as needed.")
@click.option("--investment", type=click.FloatRange(0), help="USD that were put in, to say when they come back.")
@click.option("--per-month", type=click.FloatRange(0), help="USD a month it takes beyond what is imputed.")
@JSON_OPTION
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
def report(
    url: str, key: str | None, as_data: bool, as_csv: bool, as_markdown: bool, output: Path | None, **asked: Any
) -> None:
    """Say what a running gateway spent and saved, how local and paid models did, and whether goals are met.

    \b
    Example:
      tierway report --since 7d
      tierway report --goal local_share=0.8 --goal latency_p95=4 --investment 9000 --per-month 120
      tierway report --since 30d --markdown -o report.md
    """
    formats = [name for name, wanted in (("json", as_data), ("csv", as_csv), ("markdown", as_markdown)) if wanted]
    if len(formats) > 1:
        fail("Choose one of --json, --csv and --markdown.", status=2)
    format = formats[0] if formats else "json"
    reply = _asked(url, key, {"format": format, **_parameters(**asked)})
    if not reply.headers.get("content-type", "").startswith(TYPES[format]):
        fail(f"What answers at {url} is no gateway.")
    text = reply.text if format != "json" else _shown(reply.content, url, as_data)
    if output is None:
        click.echo(text.rstrip("\r\n"))
        return
    try:
        output.write_bytes((text if text.endswith("\n") else f"{text}\n").encode())
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}")
    click.echo(f"Written to {output}.", err=True)


def _shown(content: bytes, url: str, as_data: bool) -> str:
    """A report for people, or as JSON."""
    try:
        said = Report.model_validate_json(content)
    except ValidationError:
        fail(f"What answers at {url} is no gateway of this version.")
    return orjson.dumps(orjson.loads(content), option=orjson.OPT_INDENT_2).decode() if as_data else terminal(said)


def _parameters(
    since: str | None,
    first: str | None,
    last: str | None,
    goals: tuple[str, ...],
    investment: float | None,
    per_month: float | None,
) -> dict[str, Any]:
    said = {"since": since, "from": first, "to": last, "investment": investment, "per_month": per_month}
    return {**{name: value for name, value in said.items() if value is not None}, "goal": list(goals)}


def _asked(url: str, key: str | None, parameters: dict[str, Any]) -> httpx2.Response:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    try:
        reply = httpx2.get(f"{url.rstrip('/')}/admin/report", params=parameters, headers=headers, timeout=SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
        no_gateway(url, error)
    if reply.status_code == 401:
        fail(f"The gateway at {url} wants its admin key: give it by --key or TIERWAY_ADMIN_KEY.")
    if reply.status_code != 200:
        fail(f"The gateway said {reply.status_code}: {_message(reply)}", status=2 if reply.status_code == 422 else 1)
    return reply


def _message(reply: httpx2.Response) -> str:
    """What its error says."""
    try:
        return str(orjson.loads(reply.content)["error"]["message"])
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return reply.text[:200]
