"""`tierway route`: why a running gateway would send a prompt to the model it would. Nothing is called."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, Final

import click
import httpx2
import orjson
from pydantic import BaseModel, Field, ValidationError

from app.cli.options import JSON_OPTION, URL_OPTION, fail, no_gateway
from app.routing.registry import AUTO, STRATEGIES

COLUMNS: Final = 100


class LeftOut(BaseModel):
    model: str
    reason: str


class Candidate(LeftOut):
    cost_usd: float | None
    latency_ms: int | None
    predicted: float | None


class Decision(BaseModel):
    """What `/v1/route` says, as far as it is shown."""

    model: str
    explanation: str
    candidates: list[Candidate] = Field(min_length=1)
    excluded: list[LeftOut]


@click.command(short_help="Say which model would answer a prompt, and why.")
@click.argument("prompt")
@URL_OPTION
@click.option("--key", envvar="TIERWAY_ADMIN_KEY", help="An API key or the admin key; else TIERWAY_ADMIN_KEY.")
@click.option("--model", default=AUTO, show_default=True, help="What a client would ask for.")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="How auto chooses; else as configured.")
@JSON_OPTION
def route(prompt: str, url: str, key: str | None, model: str, strategy: str | None, as_data: bool) -> None:
    """Say which model of a running gateway would answer a prompt: why, what it will cost, what would have been cheaper
    and why not. Nothing is called and nothing is remembered.

    \b
    Example:
      tierway route "Write a haiku about rain"
      tierway route --strategy quality "Prove that there are infinitely many primes"
    """
    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    reply = _asked(url, body, key, strategy)
    try:
        said = orjson.loads(reply.content)
        if reply.status_code == 401:
            fail(f"The gateway at {url} wants a valid key: give an API key or the admin key by --key.")
        if reply.status_code != 200:
            fail(f"The gateway said {reply.status_code}: {said['error']['message']}")
        decision = Decision.model_validate(said)
    except (orjson.JSONDecodeError, LookupError, TypeError, ValidationError):
        fail(f"What answers at {url} is no gateway.")
    click.echo(orjson.dumps(said, option=orjson.OPT_INDENT_2) if as_data else "\n".join(lines(decision)))


def lines(decision: Decision) -> Iterator[str]:
    """A decision for a terminal: the model, the reasons in words, then everyone who was looked at."""
    yield decision.model
    yield ""
    yield from textwrap.wrap(decision.explanation, COLUMNS, break_on_hyphens=False)
    yield ""
    width = max(len(each.model) for each in (*decision.candidates, *decision.excluded))
    yield _line(width, "model", "USD", "first token", "success", "why")
    for each in decision.candidates:
        numbers = ("{:.6f}", each.cost_usd), ("{} ms", each.latency_ms), ("{:.0%}", each.predicted)
        shown = ("unknown" if value is None else how.format(value) for how, value in numbers)
        yield _line(width, each.model, *shown, each.reason)
    for left in decision.excluded:
        yield _line(width, left.model, "-", "-", "-", f"left out: {left.reason}")


def _line(width: int, *cells: str) -> str:
    model, cost, wait, success, why = cells
    return f"{model:<{width}}  {cost:>10}  {wait:>11}  {success:>7}  {why}"


def _asked(url: str, body: dict[str, Any], key: str | None, strategy: str | None) -> httpx2.Response:
    headers = {"content-type": "application/json"}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    if strategy is not None:
        headers["x-tierway-strategy"] = strategy
    try:
        content = orjson.dumps(body)
        return httpx2.post(f"{url.rstrip('/')}/v1/route", content=content, headers=headers, timeout=10)
    except orjson.JSONEncodeError:
        fail("The prompt is not text: it has bytes that are no UTF-8.", status=2)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        no_gateway(url, error)
