"""`tierway replay`: what another strategy, threshold or price list would have chosen for the requests of the past days,
and what that would have cost. Reads the decisions in the store, and calls no model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click
import orjson

from app.cli.options import CONFIG_OPTION, JSON_OPTION, fail, run, settings_of
from app.config.file import read_file
from app.config.settings import Settings
from app.config.validate import validate
from app.core.money import Price, usd
from app.lab.replay import Otherwise, Replayed, Side, replay
from app.learning.decision import Decision
from app.learning.decisions import TRAINING_ROWS, training_rows
from app.routing.registry import STRATEGIES
from app.spend.prices import overridden, price_of
from app.store import layout
from app.store.opening import open_store

SPAN: Final = re.compile(r"([0-9]{1,4})([dh])")
UNITS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1)}
UNKNOWN: Final = "unknown"


@click.command("replay", short_help="Say what another strategy, threshold or price list would have done.")
@CONFIG_OPTION
@click.option("--since", default="7d", show_default=True, help="From when on: 7d, 12h, or a date like 2026-11-20.")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="Another strategy for auto.")
@click.option("--target-local", type=click.FloatRange(0, 1), help="Another share to keep local, like 0.8.")
@click.option(
    "--prices",
    "prices_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A YAML file with other prices under `models:`, as in the configuration.",
)
@JSON_OPTION
def replay_command(
    config_path: Path | None,
    since: str,
    strategy: str | None,
    target_local: float | None,
    prices_path: Path | None,
    as_data: bool,
) -> None:
    """Say what another strategy, threshold or price list would have chosen for past requests, and what that would have
    cost. What is not said is as in the configuration, and the strategy is each request's own.

    \b
    Example:
      tierway replay --since 30d --strategy quality
      tierway replay --target-local 0.9
      tierway replay --prices new-prices.yaml
    """
    settings = settings_of(config_path)
    start, now = _moment(since, datetime.now(UTC)), datetime.now(UTC)
    aim = settings.routing.target_local if target_local is None else target_local
    otherwise = Otherwise(
        strategy,
        aim,
        {} if prices_path is None else _prices(prices_path),
        _known(settings, now.timestamp()),
        settings.routing.max_local_latency,
        {name: task.prefer for name, task in settings.routing.tasks.items()},
    )
    found = replay(run(_stored(settings, start, now)), otherwise)
    if not found.requests:
        fail(f"No decision since {start.date()} is in this store. Requests are remembered once a gateway served them.")
    click.echo(_as_json(found, start, otherwise) if as_data else "\n".join(_lines(found, start, otherwise)))


# --- what is asked --------------------------------------------------------------------------------------------------


def _moment(text: str, now: datetime) -> datetime:
    try:
        if span := SPAN.fullmatch(text):
            return now - int(span[1]) * UNITS[span[2]]
        when = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        fail(f"--since {text!r} is neither like 7d or 12h nor a date like 2026-11-20.", status=2)
    return when if when.tzinfo else when.replace(tzinfo=UTC)


async def _stored(settings: Settings, start: datetime, now: datetime) -> list[Decision]:
    """The decisions of the training log from then on; it is kept for so many days."""
    oldest = max(start, now - timedelta(seconds=layout.lifetime("training")))
    days = ((oldest + timedelta(days=each)).date() for each in range((now.date() - oldest.date()).days + 1))
    url = None if settings.redis_url is None else settings.redis_url.get_secret_value()
    async with open_store(url, settings.data_dir) as store:
        rows = [row for day in days for row in await training_rows(store, day.isoformat())]
    decisions = [row.decision for row in rows if row.decision.at >= start.timestamp()]
    return sorted(decisions, key=lambda each: each.at)


def _prices(path: Path) -> Mapping[str, Price]:
    document = read_file(path)
    file, problems = validate(document)
    if problems:
        fail("\n".join(map(str, problems)), status=2)
    prices = {id_: overridden(model.price) for id_, model in file.models.items() if model.price is not None}
    if not prices:
        example = "models: {claude/opus: {price: {input: 4, output: 20}}}"
        fail(f"{path} names no price. It needs some like: {example}", status=2)
    return prices


def _known(settings: Settings, now: float) -> Callable[[str], Price | None]:
    """The price list in force: the configuration's, else the library's."""
    cache: dict[str, Price | None] = {}

    def known(model: str) -> Price | None:
        if model not in cache:
            name, _, own = model.partition("/")
            upstream, note = settings.upstreams.get(name), settings.models.get(model)
            override = None if note is None else note.price
            cache[model] = None if upstream is None else price_of(upstream, own, override, now)
        return cache[model]

    return known


# --- what is said ---------------------------------------------------------------------------------------------------


def _lines(found: Replayed, start: datetime, otherwise: Otherwise) -> Iterator[str]:
    was, would = found.was, found.would
    yield f"{found.requests} requests since {start:%Y-%m-%d %H:%M} UTC (a sample of at most {TRAINING_ROWS} a day)"
    yield f"changed: {found.changed} ({found.changed / found.requests:.1%})"
    if otherwise.target_local is not None:
        kept_below = "too few scores to say" if found.threshold is None else f"{found.threshold:.3f}"
        yield f"score below which requests stay local: {kept_below}"
    for why, count in sorted(found.kept.items()):
        yield f"as they were, being {why}: {count}"
    yield ""
    yield _line("", "was", "would be")
    yield _line("cost, USD", f"{usd(was.cost_nano):.6f}", f"{usd(would.cost_nano):.6f}")
    yield _line("local", _percent(was.local), _percent(would.local))
    yield _line("expected success", _percent(was.success), _percent(would.success))
    if found.unpriced:
        yield f"not in the cost, because it is unknown: {found.unpriced}"
    if found.unanswered:
        yield f"without any model that could have answered: {found.unanswered}"
    yield ""
    width = max(len("model"), *(len(each.model) for each in found.models))
    yield f"{'model':<{width}}  {'was':>7}  {'would be':>8}  {'USD was':>12}  {'would be':>12}"
    for each in found.models:
        was_usd, would_usd = usd(each.was_nano), usd(each.would_nano)
        yield f"{each.model:<{width}}  {each.was:>7}  {each.would:>8}  {was_usd:>12.6f}  {would_usd:>12.6f}"


def _line(name: str, was: str, would: str) -> str:
    return f"{name:<18}{was:>14}{would:>14}"


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share:.1%}"


def _as_json(found: Replayed, start: datetime, otherwise: Otherwise) -> bytes:
    data = {
        "object": "replay",
        "since": start.isoformat(timespec="seconds"),
        "strategy": otherwise.strategy,
        "target_local": otherwise.target_local,
        "threshold": found.threshold,
        "requests": found.requests,
        "changed": found.changed,
        "changed_share": found.changed / found.requests,
        "kept": dict(found.kept),
        "unpriced": found.unpriced,
        "unanswered": found.unanswered,
        "was": _side(found.was),
        "would_be": _side(found.would),
        "models": [
            {
                "model": each.model,
                "was": each.was,
                "would_be": each.would,
                "was_usd": usd(each.was_nano),
                "would_be_usd": usd(each.would_nano),
            }
            for each in found.models
        ],
    }
    return orjson.dumps(data, option=orjson.OPT_INDENT_2)


def _side(side: Side) -> dict[str, Any]:
    return {"cost_usd": usd(side.cost_nano), "local_share": side.local, "expected_success": side.success}
