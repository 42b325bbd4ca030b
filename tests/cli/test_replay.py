"""Without these an operator changes the routing blindly, or on figures that were read from the wrong days."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.cli.replay import _moment
from app.core.clock import ManualClock
from app.core.money import Tokens
from app.core.record import Record
from app.core.tasks import TaskOwner
from app.learning.decisions import Decisions
from app.learning.success import Success
from app.store.opening import open_store
from tests.cli.conftest import Run
from tests.learning.records import PLAN, record

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
PRICED = "models: {gpu/qwen: {price: {input: 400, output: 2000}}}"


def asked(name: str, ago: timedelta, **more: Any) -> Record:
    """A request that the first of three models answered, so long ago."""
    at = (datetime.now(UTC) - ago).timestamp()
    plan = replace(PLAN, tokens=(100, 400))
    return record(**{"request_id": name, "started_at": at, "plan": plan, "tokens": Tokens(100, 50), **more})


def remember(folder: Path, records: Sequence[Record]) -> None:
    """As a gateway with this data folder would have."""

    async def write() -> None:
        async with open_store(None, folder) as store:
            clock, tasks = ManualClock(datetime.now(UTC).timestamp()), TaskOwner(lambda name, error: None)
            decisions = Decisions(store, Success(store, clock), tasks, clock)
            for each in records:
                decisions.note(each)
            await decisions.flush()
            await tasks.cancel()

    asyncio.run(write())


@pytest.fixture
def past(tmp_path: Path) -> None:
    remember(
        tmp_path / "data",
        [
            asked("an-hour", timedelta(hours=1)),
            asked("two-days", timedelta(days=2)),
            asked("by-name", timedelta(hours=2), plan=replace(PLAN, strategy="named")),
            asked("long-ago", timedelta(days=30)),
        ],
    )


def replayed(run: Run, *options: str) -> Any:
    result = run("replay", "--json", *options)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_table_says_what_would_have_been(run: Run, past: None) -> None:
    result = run("replay", "--strategy", "quality")
    assert result.exit_code == 0, result.stderr
    first, *lines = result.stdout.splitlines()
    assert first.startswith("3 requests since 20") and first.endswith("UTC (a sample of at most 1000 a day)")
    assert lines == [
        "changed: 2 (66.7%)",
        "as they were, being asked for by name: 1",
        "",
        "                             was      would be",
        "cost, USD               0.005700      0.181900",
        "local                     100.0%         33.3%",
        "expected success           91.0%         96.3%",
        "",
        "model            was  would be       USD was      would be",
        "gpu/qwen           3         1      0.005700      0.001900",
        "claude/opus        0         2      0.000000      0.180000",
    ]


def test_as_json_it_is_the_same(run: Run, past: None) -> None:
    said = replayed(run, "--strategy", "quality")
    assert (said["object"], said["strategy"], said["target_local"], said["threshold"]) == (
        "replay",
        "quality",
        None,
        None,
    )
    assert (said["requests"], said["changed"], said["kept"]) == (3, 2, {"asked for by name": 1})
    assert said["changed_share"] == pytest.approx(2 / 3) and (said["unpriced"], said["unanswered"]) == (0, 0)
    assert said["was"] == {"cost_usd": 0.0057, "local_share": 1.0, "expected_success": pytest.approx(0.91)}
    assert said["would_be"]["cost_usd"] == 0.1819
    assert said["models"][0] == {
        "model": "gpu/qwen",
        "was": 3,
        "would_be": 1,
        "was_usd": 0.0057,
        "would_be_usd": 0.0019,
    }


@pytest.mark.parametrize(("since", "requests"), [("90m", None), ("90d", 4), ("3d", 3), ("90h", 3), ("1d", 2)])
def test_only_what_was_since_then_counts(run: Run, past: None, since: str, requests: int | None) -> None:
    result = run("replay", "--json", "--since", since)
    if requests is None:
        assert result.exit_code == 2 and "7d or 12h" in result.stderr
    else:
        assert json.loads(result.stdout)["requests"] == requests


def test_another_price_list(run: Run, past: None, tmp_path: Path) -> None:
    """At a hundred times the price `gpu/qwen` is no longer the cheapest that can do it."""
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICED)
    said = replayed(run, "--prices", str(prices), "--since", "1d")
    by_model = {each["model"]: each for each in said["models"]}
    assert by_model["gpu/qwen"]["would_be"] == 1, "who is asked for by name stays, at the new price"
    assert by_model["gpu/qwen"]["would_be_usd"] == pytest.approx((100 * 400 + 50 * 2000) / 1e6)
    assert by_model["claude/opus"]["would_be"] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models: {gpu/qwen: {price: {input: cheap, output: 20}}}", "models.gpu/qwen.price.input"),
        ("models: {gpu/qwen: {cost: 1}}", "unknown key"),
        ("gpu/qwen: {input: 4}", "unknown key"),
        ("models: {gpu/qwen: {num_ctx: 5}}", "names no price"),
        (":", "valid YAML"),
    ],
)
def test_prices_that_make_no_sense_are_refused(run: Run, tmp_path: Path, text: str, words: str) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(text)
    result = run("replay", "--prices", str(prices))
    assert result.exit_code == 2 and words in result.stderr and result.stdout == ""


def test_the_configurations_prices_and_target_count(run: Run, past: None, tmp_path: Path) -> None:
    config = tmp_path / "tierway.yaml"
    config.write_text(
        "upstreams: {claude: {kind: openai, base_url: 'http://127.0.0.1:1'}}\n"
        "models: {claude/opus: {price: {input: 1, output: 2}}}\n"
        "routing: {target_local: 0.5}\n"
    )
    result = run("replay", "--config", str(config), "--strategy", "quality", "--json")
    said = json.loads(result.stdout)
    assert said["target_local"] == 0.5
    by_model = {each["model"]: each for each in said["models"]}
    assert by_model["claude/opus"]["would_be_usd"] == pytest.approx(2 * (100 * 1 + 50 * 2) / 1e6)
    table = run("replay", "--config", str(config), "--target-local", "0.9").stdout
    assert "score below which requests stay local: too few scores to say" in table


def test_a_target_has_its_threshold(run: Run, tmp_path: Path) -> None:
    remember(tmp_path / "data", [asked(f"r{at}", timedelta(hours=1)) for at in range(50)])
    table = run("replay", "--target-local", "0.8").stdout
    assert "score below which requests stay local: 0.120" in table


def test_what_has_no_price_or_no_model_is_said(run: Run, tmp_path: Path) -> None:
    only_paid = replace(PLAN, candidates=PLAN.candidates[2:])
    unpriced = asked("a", timedelta(hours=1), cost_nano=None)
    unanswered = asked("b", timedelta(hours=1), plan=only_paid, model="claude/opus")
    remember(tmp_path / "data", [unpriced, unanswered])
    table = run("replay", "--strategy", "privacy").stdout
    assert "not in the cost, because it is unknown: 2" in table
    assert "without any model that could have answered: 1" in table


def test_an_empty_store_is_said_to_be_empty(run: Run) -> None:
    result = run("replay")
    assert result.exit_code == 1 and result.stdout == "" and "No decision since" in result.stderr


@pytest.mark.parametrize("options", [["--since", "soon"], ["--target-local", "2"], ["--strategy", "best"]])
def test_options_that_make_no_sense_are_refused(run: Run, options: list[str]) -> None:
    assert run("replay", *options).exit_code == 2


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("7d", NOW - timedelta(days=7)),
        ("12h", NOW - timedelta(hours=12)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T12:00+02:00", datetime(2026, 11, 1, 10, tzinfo=UTC)),
    ],
)
def test_since_is_a_span_or_a_date(text: str, when: datetime) -> None:
    assert _moment(text, NOW) == when
