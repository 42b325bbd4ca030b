"""`tierway models`: what a running gateway offers."""

from __future__ import annotations

from typing import Any

import click
import httpx2
import orjson

from app.cli.options import JSON_OPTION, URL_OPTION, fail, no_gateway


@click.command(short_help="List the models of a running gateway.")
@URL_OPTION
@click.option("--key", envvar="TIERWAY_ADMIN_KEY", help="An API key or the admin key; else TIERWAY_ADMIN_KEY.")
@JSON_OPTION
def models(url: str, key: str | None, as_data: bool) -> None:
    """List the models of a running gateway.

    \b
    Example:
      tierway models --url http://127.0.0.1:8080
    """
    listed = _get(f"{url.rstrip('/')}/v1/models", key)
    if as_data:
        click.echo(orjson.dumps(listed, option=orjson.OPT_INDENT_2))
        return
    click.echo(f"{'model':<44} {'window':>9} {'USD in/out per M':>18}  {'complexity':<10} state")
    for model in listed["data"]:
        if model["tierway"]["upstream"] is not None:  # `auto` and its like are no models
            click.echo(_model_line(model["id"], model["tierway"]))


def _model_line(model_id: str, facts: dict[str, Any]) -> str:
    price, span = facts["price"], facts["complexity"]
    cost = "unknown" if price is None else f"{price['input']:g}/{price['output']:g}"
    window = facts["context_window"] or "unknown"
    return f"{model_id:<44} {window:>9} {cost:>18}  {span[0]:.1f}-{span[1]:.1f}    {facts['state']}"


def _get(url: str, key: str | None) -> dict[str, Any]:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    try:
        reply = httpx2.get(url, headers=headers, timeout=10)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        no_gateway(url, error)
    if reply.status_code == 401:
        fail(f"The gateway at {url} wants a valid key: give an API key or the admin key by --key.")
    if reply.status_code != 200:
        fail(f"The gateway said {reply.status_code}: {reply.text[:500]}")
    try:
        listed = orjson.loads(reply.content)
        known = all(isinstance(model["tierway"], dict) for model in listed["data"])
    except (orjson.JSONDecodeError, LookupError, TypeError):
        known = False
    if not known:
        fail(f"What answers at {url} is no gateway.")
    models: dict[str, Any] = listed
    return models
