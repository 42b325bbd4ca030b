"""`tierway keys`: makes, lists and revokes API keys, directly in the store."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal, DecimalException
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import orjson

from app.access.keys import KeyRecord, Keys, KeySpec
from app.cli.options import CONFIG_OPTION, JSON_OPTION, checked, fail, run, settings_of
from app.core.clock import SystemClock
from app.core.errors import NotFound
from app.store.opening import open_store

T = TypeVar("T")

SPAN: Final = re.compile(r"([0-9]{1,9})([dh])")
UNITS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1)}
LAST: Final = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())
"""What is later cannot be written as a date."""
LINE: Final = "{:<22} {:<20} {:<14} {:<24} {:<8} {:<12} {:<18} {:<11} {}"


@click.group(short_help="Make, list and revoke API keys.")
def keys() -> None:
    """API keys: they work at once on every gateway that shares the store, and end within 2 s of being revoked.

    \b
    Example:
      tierway keys create --name ci --model 'ollama/*' --expires 90d
      tierway keys list
      tierway keys revoke key_0123456789abcdef
    """


@keys.command("create", short_help="Make a key; its secret is shown once.")
@CONFIG_OPTION
@click.option("--name", required=True, help="What you call it.")
@click.option("--tenant", help="Whose it is.")
@click.option("--model", "allowed", multiple=True, help="A model id or pattern it may use; may be repeated; else all.")
@click.option("--expires", help="When it ends: 90d, 12h, or a date like 2027-01-31.")
@click.option(
    "--priority",
    type=click.Choice(["interactive", "batch"]),
    default="interactive",
    show_default=True,
    help="Who waits for whom when there is too much, where a request does not say.",
)
@click.option(
    "--privacy",
    type=click.Choice(["any", "local"]),
    default="any",
    show_default=True,
    help="local: its requests never leave local models, fallbacks included.",
)
@click.option(
    "--store-content",
    type=click.Choice(["off", "session", "training"]),
    default="session",
    show_default=True,
    help="What may be kept of its requests.",
)
@click.option("--retention-days", type=int, help="Days that it may be kept.")
@click.option(
    "--budget", "budget", multiple=True, help="USD it may spend: day=5, month=50 or total=100; may be repeated."
)
@click.option("--rpm", "requests_per_minute", type=int, help="The most requests a minute.")
@click.option("--tpm", "tokens_per_minute", type=int, help="The most tokens a minute, in and out.")
@click.option("--concurrency", type=int, help="The most requests at the same time.")
@JSON_OPTION
def create_key(
    config_path: Path | None,
    allowed: tuple[str, ...],
    expires: str | None,
    budget: tuple[str, ...],
    as_data: bool,
    **said: Any,
) -> None:
    """Make a key. The secret is shown this once.

    \b
    Example:
      tierway keys create --name ci --tenant qa --expires 90d --budget day=5 --rpm 60
    """
    expires_at = None if expires is None else moment(expires, datetime.now(UTC))
    budgets: Any = amounts(budget)
    spec = checked(lambda: KeySpec(models=allowed, expires_at=expires_at, budgets=budgets, **said))

    async def create(service: Keys) -> tuple[KeyRecord, str, bool]:
        first = not await service.list()  # before the secret is there, which nothing may lose
        return *await service.create(spec), first

    record, secret, first = _with_keys(config_path, create)
    if first:
        click.echo("This is the first key: from now on every request needs one.", err=True)
    if as_data:
        click.echo(orjson.dumps({**record.model_dump(), "key": secret}, option=orjson.OPT_INDENT_2))
        return
    click.echo(f"id      {record.id}\nname    {record.name}\nkey     {secret}")
    click.echo("Keep the key now: it is stored hashed and cannot be shown again.", err=True)


@keys.command("list", short_help="List all keys, without their secrets.")
@CONFIG_OPTION
@JSON_OPTION
def list_keys(config_path: Path | None, as_data: bool) -> None:
    """List all keys, revoked ones included, without their secrets.

    \b
    Example:
      tierway keys list --json
    """
    records = _with_keys(config_path, lambda service: service.list())
    if as_data:
        data = {"object": "list", "data": [record.model_dump() for record in records]}
        click.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2))
        return
    if not records:
        click.echo("No key was made yet, so requests from this machine need none. tierway keys create makes one.")
        return
    click.echo(LINE.format("id", "name", "tenant", "models", "privacy", "priority", "limits", "ends", "state"))
    for record in records:
        click.echo(_key_line(record, datetime.now(UTC)))


def _key_line(record: KeyRecord, now: datetime) -> str:
    ends = None if record.expires_at is None else datetime.fromtimestamp(min(record.expires_at, LAST), UTC)
    state = "revoked" if record.revoked_at is not None else "expired" if ends is not None and ends <= now else "active"
    day = "never" if ends is None else ends.date().isoformat()
    allowed, limits = ",".join(record.models) or "all", ",".join(_limits(record)) or "none"
    return LINE.format(
        record.id, record.name, record.tenant or "-", allowed, record.privacy, record.priority, limits, day, state
    )


def _limits(record: KeyRecord) -> Iterator[str]:
    for period, usd in record.budgets.items():
        yield f"${usd.normalize():f}/{period}"
    for most, unit in (
        (record.requests_per_minute, "rpm"),
        (record.tokens_per_minute, "tpm"),
        (record.concurrency, "at-once"),
    ):
        if most is not None:
            yield f"{most}{unit}"


@keys.command("revoke", short_help="End a key for good.")
@CONFIG_OPTION
@click.argument("key_id")
def revoke_key(config_path: Path | None, key_id: str) -> None:
    """End a key for good, on every gateway within 2 s.

    \b
    Example:
      tierway keys revoke key_0123456789abcdef
    """

    async def revoke(service: Keys) -> None:
        try:
            await service.revoke(key_id)
        except NotFound:
            fail("There is no key with this id. Give the id, not the name or the secret: tierway keys list shows them.")

    _with_keys(config_path, revoke)
    click.echo(f"{key_id} is revoked.")


def moment(text: str, now: datetime) -> int:
    """`90d`, `12h` or an ISO date, as seconds since 1970."""
    try:
        if span := SPAN.fullmatch(text):
            when = now + int(span[1]) * UNITS[span[2]]
        else:
            when = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        fail(f"--expires {text!r} is neither like 90d or 12h nor a date like 2027-01-31.", status=2)
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


def amounts(said: tuple[str, ...]) -> dict[str, Decimal]:
    """`day=5` and the like, by period; which periods there are is for who takes them to say."""
    found: dict[str, Decimal] = {}
    for text in said:
        period, _, usd = text.partition("=")
        try:
            amount = Decimal(usd)
        except DecimalException:
            amount = Decimal("nan")
        if not amount.is_finite() or period in found:
            fail(
                f"--budget {text!r} is not like day=5 (USD, without a unit), or its period was named before.", status=2
            )
        found[period] = amount
    return found


def _with_keys(config_path: Path | None, work: Callable[[Keys], Coroutine[Any, Any, T]]) -> T:
    settings = settings_of(config_path)
    url = None if settings.redis_url is None else settings.redis_url.get_secret_value()

    async def with_store() -> T:
        async with open_store(url, settings.data_dir) as store:
            return await work(Keys(store, SystemClock()))

    return run(with_store())
