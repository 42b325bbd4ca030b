"""`tierway settings` and `tierway versions`: what may be changed while gateways run, and going back to how it was;
`tierway reload`: reading the file again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import click
import orjson

from app.cli.asking import asked, of_a_gateway
from app.cli.options import JSON_OPTION, fail

WORDS: Final = {"ok": "counts now", "unchanged": "counted already"}
"""What a reload came to."""


@click.group(short_help="List settings, change them while gateways run.")
def settings() -> None:
    """Settings of running gateways. A change counts on every gateway of the same store within 2 s.

    \b
    Example:
      tierway settings list
      tierway settings set target_local=0.2 max_local_latency=2
    """


@settings.command("list", short_help="What may be changed, and what was.")
@of_a_gateway
@JSON_OPTION
def list_settings(url: str, key: str | None, as_data: bool) -> None:
    """What may be changed at run time, and what was.

    \b
    Example:
      tierway settings list
    """
    _show(asked("GET", url, "settings", key)["data"], as_data)


@settings.command("set", short_help="Change one or several, all at once.")
@click.argument("changes", nargs=-1, required=True, metavar="NAME=VALUE...")
@of_a_gateway
@JSON_OPTION
def set_settings(changes: tuple[str, ...], url: str, key: str | None, as_data: bool) -> None:
    """Change settings: all of them, or none. A value is JSON or plain text.

    \b
    Example:
      tierway settings set strategy=quality
      tierway settings set target_local=0.2 max_local_latency=2 breaker='{"failures": 2}'
    """
    values: dict[str, Any] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            fail(f"{change!r} is no NAME=VALUE.", status=2)
        values[name] = _value(value)
    _show(asked("PUT", url, "settings", key, values)["data"], as_data)


@settings.command("unset", short_help="Take changes back.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@of_a_gateway
@JSON_OPTION
def unset_settings(names: tuple[str, ...], url: str, key: str | None, as_data: bool) -> None:
    """Take changes back, all of them or none: what the file says counts again.

    \b
    Example:
      tierway settings unset strategy
    """
    _show(asked("PUT", url, "settings", key, dict.fromkeys(names))["data"], as_data)


@click.group(short_help="See how flags and settings stood, and go back there.")
def versions() -> None:
    """Every change of a flag or a setting is a version of all of them; 0 is as configured.

    \b
    Example:
      tierway versions list
      tierway versions restore 3
    """


@versions.command("list", short_help="The newest first, which is the one that counts.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="How many, at most.")
@of_a_gateway
@JSON_OPTION
def list_versions(limit: int, url: str, key: str | None, as_data: bool) -> None:
    """How flags and settings stood, the newest first.

    \b
    Example:
      tierway versions list --limit 5
    """
    _show_versions(asked("GET", url, "versions", key, query={"limit": limit})["data"], as_data)


@versions.command("restore", short_help="Let everything be as it was.")
@click.argument("number", type=click.IntRange(0))
@of_a_gateway
@JSON_OPTION
def restore_version(number: int, url: str, key: str | None, as_data: bool) -> None:
    """Let flags, settings and the configuration file count as they stood in that version; 0 is as configured.

    \b
    Example:
      tierway versions restore 0
    """
    _show_versions([asked("POST", url, f"versions/{number}/restore", key)], as_data)


@click.command(short_help="Let running gateways read their file again.")
@of_a_gateway
@JSON_OPTION
def reload(url: str, key: str | None, as_data: bool) -> None:
    """Let running gateways read their configuration file again. A bad file changes nothing.

    \b
    Example:
      tierway reload
    """
    said = asked("POST", url, "reload", key)
    text = f"{said['outcome']}: configuration {said['config_version']} {WORDS[said['outcome']]}"
    click.echo(orjson.dumps(said, option=orjson.OPT_INDENT_2) if as_data else text)


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _show(found: list[dict[str, Any]], as_data: bool) -> None:
    if as_data:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    for state in found:
        was = f"  (configured: {_text(state['configured'])})" if state["changed"] else ""
        click.echo(f"{state['name']:<24} {_text(state['value'])}{was}")


def _show_versions(found: list[dict[str, Any]], as_data: bool) -> None:
    if as_data:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    click.echo(f"{'number':>6}  {'at, UTC':<19}  what was done")
    for version in found:
        at = datetime.fromtimestamp(version["at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        click.echo(
            f"{version['number']:>6}  {at}  {version['action']} {version['subject']} {version['reason']}".rstrip()
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
