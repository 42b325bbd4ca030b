"""`tierway flags`: the feature flags of running gateways, and switching one on all of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click
import orjson

from app.cli.asking import asked, of_a_gateway
from app.cli.options import JSON_OPTION, fail
from app.config.features import flag_value, parse_flag


def _for_some(command: Any) -> Any:
    for scope, whom in (
        ("tenant", "this tenant only"),
        ("api-key", "this key only, by its name or id"),
        ("agent", "this agent type only"),
    ):
        command = click.option(f"--{scope}", help=f"For {whom}.")(command)
    return command


@click.group(short_help="List feature flags, switch them while gateways run.")
def flags() -> None:
    """The feature flags of running gateways. A change counts on every gateway of the same store within 2 s.

    \b
    Example:
      tierway flags list
      tierway flags set MULTI_MODEL_ROUTER false
    """


@flags.command("list", short_help="What each flag is, and what was changed.")
@of_a_gateway
@JSON_OPTION
def list_flags(url: str, key: str | None, as_data: bool) -> None:
    """What each flag is, and what was changed at run time.

    \b
    Example:
      tierway flags list --url http://127.0.0.1:8080
    """
    _show(asked("GET", url, "flags", key)["data"], as_data)


@flags.command("set", short_help="Switch a flag, for all or for some.")
@click.argument("name")
@click.argument("value")
@_for_some
@of_a_gateway
@JSON_OPTION
def set_flag(
    name: str,
    value: str,
    agent: str | None,
    api_key: str | None,
    tenant: str | None,
    url: str,
    key: str | None,
    as_data: bool,
) -> None:
    """Switch a flag: true, false, or the percentage of sessions (else keys) that it is on for.

    \b
    Example:
      tierway flags set STREAMING false
      tierway flags set SHADOW 10%
      tierway flags set MULTI_MODEL_ROUTER false --agent problem-agent
    """
    share = parse_flag(value)
    if share is None:
        fail(f"A flag is true, false or a percentage like 10%, and not {value!r}.", status=2)
    said = {"agent": agent, "key": api_key, "tenant": tenant}
    body = {"value": flag_value(share), **{scope: who for scope, who in said.items() if who is not None}}
    _show([asked("PUT", url, f"flags/{quote(name, safe='')}", key, body)], as_data)


@flags.command("unset", short_help="Take a change back.")
@click.argument("name")
@_for_some
@of_a_gateway
@JSON_OPTION
def unset_flag(
    name: str, agent: str | None, api_key: str | None, tenant: str | None, url: str, key: str | None, as_data: bool
) -> None:
    """Take a change back: what environment and file say counts again.

    \b
    Example:
      tierway flags unset STREAMING
    """
    path = f"flags/{quote(name, safe='')}"
    query = {"agent": agent, "key": api_key, "tenant": tenant}
    _show([asked("DELETE", url, path, key, query=query)], as_data)


def _show(found: list[dict[str, Any]], as_data: bool) -> None:
    if as_data:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    click.echo(f"{'flag':<20} {'value':>9} {'start':>9}  changed")
    for flag in found:
        changes = [_change(change) for change in flag["changes"]]
        locked = ["locked by FEATURE_LOCK"] if flag["locked"] else []
        if flag.get("service") is not None:
            locked.append(f"flag service: {_text(flag['service'])}")
        value, start = (_text(flag[name]) for name in ("value", "start"))
        click.echo(f"{flag['name']:<20} {value:>9} {start:>9}  {', '.join(locked + changes)}".rstrip())


def _change(change: dict[str, Any]) -> str:
    who = "" if change["scope"] is None else f"{change['scope']} {change['who']}: "
    return f"{who}{_text(change['value'])}{'' if change['counts'] else ' (overtaken by the environment)'}"


def _text(value: bool | str) -> str:
    return value if isinstance(value, str) else str(value).lower()
