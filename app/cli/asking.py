"""How a command asks a running gateway: where it is, the admin key, and an end with a word when it says no."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import click
import httpx2
import orjson

from app.cli.options import URL_OPTION, fail, no_gateway

SECONDS: Final = 60
KEY_OPTION: Final = click.option("--key", envvar="TIERWAY_ADMIN_KEY", help="The admin key; else TIERWAY_ADMIN_KEY.")


def of_a_gateway(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that asks one."""
    return URL_OPTION(KEY_OPTION(command))


def asked(
    method: str,
    url: str,
    path: str,
    key: str | None,
    body: Any = None,
    query: Mapping[str, str | int | None] = MappingProxyType({}),
) -> dict[str, Any]:
    """What `/admin/PATH` answers."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    params = {name: value for name, value in query.items() if value is not None}
    try:
        reply = httpx2.request(
            method, f"{url.rstrip('/')}/admin/{path}", json=body, params=params, headers=headers, timeout=SECONDS
        )
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
        no_gateway(url, error)
    if reply.status_code == 401:
        fail(f"The gateway at {url} wants its admin key: give it by --key or TIERWAY_ADMIN_KEY.")
    try:
        said = orjson.loads(reply.content)
        if reply.status_code == 200 and isinstance(said, dict):
            return said
        message = str(said["error"]["message"])
    except (orjson.JSONDecodeError, LookupError, TypeError):
        fail(f"What answers at {url} is no gateway.")
    fail(f"The gateway said {reply.status_code}: {message}", status=2 if reply.status_code in (404, 422) else 1)
