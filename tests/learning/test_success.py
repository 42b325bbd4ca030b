from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from app.core.clock import ManualClock
from app.core.errors import StoreUnavailable, Unprocessable
from app.learning import success
from app.learning.outcome import NOTHING, Evidence
from app.learning.success import BASELINE_FIELD, Baseline, Success
from app.routing.correction import EXPECTED, shift
from app.routing.signals import Observed
from app.store import layout
from app.store.address import Address
from app.store.client import Store
from tests.core.nouns import card
from tests.store.live import eventually, ok, puppet

QWEN = card("gpu/qwen")
GOOD, BAD = Evidence(1.0, 1.0), Evidence(0.0, 1.0)


def learner(store: Store) -> Success:
    return Success(store, ManualClock())


@pytest.fixture
def learned(store: Store) -> Success:
    return learner(store)


@pytest.fixture
async def other(valkey: Path, store: Store) -> AsyncIterator[Success]:
    """Another gateway on the same store."""
    elsewhere = Store(Address(path=str(valkey)))
    await elsewhere.open()
    yield learner(elsewhere)
    await elsewhere.aclose()


def teach(learned: Success, evidence: Evidence, times: int, model: str = "gpu/qwen", task: str = "code") -> None:
    for _ in range(times):
        learned.learn(model, task, "simple", evidence)


async def test_what_was_never_seen_is_unknown(learned: Success) -> None:
    assert learned.observed(QWEN, "code", "simple") is None
    assert learned.quality("gpu/qwen") is None
    assert learned.ratio("gpu/qwen") is None
    assert learned.against_own(["gpu/qwen"]) is None


async def test_what_is_learnt_counts_at_once(learned: Success) -> None:
    """A model that fails ten times must lose its place now, not after a round through the store."""
    teach(learned, GOOD, 3)
    assert learned.observed(QWEN, "code", "simple") == Observed(1.0, 3)
    teach(learned, BAD, 9)
    found = learned.observed(QWEN, "code", "simple")
    assert found is not None
    assert (round(found.mean, 6), found.count) == (0.25, 12)
    assert learned.quality("gpu/qwen", "code") == 0.25


async def test_who_deletes_what_was_learnt_begins_anew(learned: Success, store: Store) -> None:
    """As the routing guide says it: the key that it names, and nothing to restart."""
    teach(learned, BAD, 20)
    await learned.sync()
    assert learned.observed(QWEN, "code", "simple") == Observed(0.0, 20)
    guide = (Path(__file__).resolve().parents[2] / "docs" / "routing.md").read_text()
    assert f"del '{layout.SUCCESS}'" in guide
    await store.call("DEL", layout.SUCCESS, again=True)
    await learned.sync()
    assert learned.observed(QWEN, "code", "simple") is None


async def test_a_cell_that_saw_little_leans_on_how_its_model_did_elsewhere(learned: Success) -> None:
    """Two bad answers do not make a proven model useless for a task."""
    teach(learned, GOOD, 100, task="docs")
    teach(learned, BAD, 2)
    found = learned.observed(QWEN, "code", "simple")
    assert found is not None
    assert 0.6 < found.mean < 0.8
    assert found.count == 7
    assert learned.observed(card("gpu/other"), "code", "simple") is None
    teach(learned, BAD, 100)
    found = learned.observed(QWEN, "code", "simple")
    assert found is not None
    assert found.mean < 0.05


async def test_what_is_as_good_as_usual_corrects_nothing(learned: Success) -> None:
    """Most answers are never rated, only ended well; that alone must not make anything look hard or easy."""
    for tier in EXPECTED:
        for _ in range(200):
            learned.learn("gpu/qwen", "code", tier, Evidence(0.8, 0.2))
    for tier in EXPECTED:
        counts = learned.counts(["gpu/qwen"], "code", tier)
        assert counts is not None
        assert counts.good + counts.bad == pytest.approx(40)
        assert shift(counts, tier) == pytest.approx(0, abs=1e-9)


async def test_where_local_models_do_worse_than_usual_it_counts_against_them(learned: Success) -> None:
    """And where they do better, for them; the more was seen, the more."""
    teach(learned, Evidence(0.8, 1.0), 2_000, task="docs")
    teach(learned, Evidence(0.4, 1.0), 10, task="debug")
    few = learned.counts(["gpu/qwen"], "debug", "simple")
    teach(learned, Evidence(0.4, 1.0), 90, task="debug")
    many, better = (learned.counts(["gpu/qwen"], task, "simple") for task in ("debug", "docs"))
    assert few is not None and many is not None and better is not None
    assert shift(better, "simple") < 0 < shift(few, "simple") < shift(many, "simple")


async def test_only_the_named_models_count_together(learned: Success) -> None:
    teach(learned, GOOD, 50)
    teach(learned, BAD, 50, model="claude/opus")
    teach(learned, Evidence(0.5, 1.0), 50, model="gpu/small")
    counts = learned.counts(["gpu/qwen", "gpu/small", "gpu/new"], "code", "simple")
    assert counts is not None
    assert counts.good + counts.bad == pytest.approx(100)
    assert shift(counts, "simple") == pytest.approx(0, abs=1e-9), "there is nothing but this to compare it with"


async def test_where_nothing_was_scored_nothing_is_counted(learned: Success) -> None:
    assert learned.counts(["gpu/qwen"], "code", "simple") is None
    teach(learned, GOOD, 5, task="docs")
    learned.learn("gpu/qwen", None, None, GOOD)
    assert learned.counts(["gpu/qwen"], "code", "simple") is None
    assert learned.counts([], "docs", "simple") is None
    assert learned.counts(["gpu/qwen"], "none", "none") is None


async def test_a_plain_end_counts_as_a_part_of_an_answer(learned: Success) -> None:
    teach(learned, Evidence(0.8, 0.2), 4)
    assert learned.observed(QWEN, "code", "simple") is None
    teach(learned, Evidence(0.8, 0.2), 6)
    found = learned.observed(QWEN, "code", "simple")
    assert found is not None
    assert (round(found.mean, 6), found.count) == (0.8, 2)


async def test_a_later_word_replaces_what_was_thought(learned: Success) -> None:
    learned.learn("gpu/qwen", "code", "simple", Evidence(0.8, 0.2))
    learned.learn("gpu/qwen", "code", "simple", Evidence(0.0, 1.0), before=Evidence(0.8, 0.2))
    assert learned.quality("gpu/qwen") == pytest.approx(0.0, abs=1e-9)
    learned.learn("gpu/qwen", "code", "simple", Evidence(0.5, 0.0))
    assert learned.quality("gpu/qwen") == pytest.approx(0.0, abs=1e-9)


async def test_without_a_verdict_it_is_learnt_all_the_same(learned: Success) -> None:
    learned.learn("gpu/qwen", None, None, GOOD)
    assert learned.quality("gpu/qwen") == 1.0
    assert learned.quality("gpu/qwen", "none") == 1.0


async def test_gateways_learn_from_each_other(learned: Success, other: Success) -> None:
    teach(learned, GOOD, 3)
    teach(other, BAD, 1)
    await learned.sync()
    await other.sync()
    assert other.quality("gpu/qwen", "code") == 0.75
    assert learned.quality("gpu/qwen") == 1.0
    await learned.sync()
    assert learned.quality("gpu/qwen") == 0.75
    assert learned.observed(QWEN, "code", "simple") == Observed(0.75, 4)


async def test_learning_survives_a_restart_and_its_keys_are_declared(learned: Success, store: Store) -> None:
    teach(learned, GOOD, 20)
    await learned.sync()
    await put_baseline(learned, store, "gpu/qwen")
    fresh = learner(store)
    await fresh.sync()
    assert fresh.quality("gpu/qwen", "code") == 1.0
    assert fresh.baseline == Baseline("gpu/qwen", 1_700_000_000.0, {"code": 1.0, "": 1.0})
    found = await store.call("KEYS", "*")
    assert len(found) == 5
    assert [layout.fault_of(key.decode(), await store.call("TTL", key)) for key in found] == [None] * 5


async def test_old_days_fade(learned: Success, other: Success) -> None:
    """A model that was replaced under its old name must not live on its name for months."""
    teach(learned, BAD, 600)
    await learned.sync()
    teach(learned, GOOD, 600)
    await learned.sync()
    await other.sync()
    assert other.quality("gpu/qwen") == pytest.approx(600 / 900, abs=0.01)
    found = other.observed(QWEN, "code", "simple")
    assert found is not None
    assert found.count * success.MILLI <= success.CELL_MAX


async def test_an_answer_of_the_store_that_was_lost_counts_once(tmp_path: Path) -> None:
    """The merge may have been done although nobody heard of it; sent again, it must carry the same number."""
    heard: list[list[bytes]] = []
    silent = True

    def answer(command: list[bytes]) -> bytes | None:
        if command[0] in (b"EVALSHA", b"EVAL"):
            heard.append(command)
            return b"HANG UP" if silent else b"*0\r\n"
        return b"$-1\r\n" if command[:2] == [b"GET", layout.BASELINE.encode()] else ok(command)

    async with puppet(tmp_path, answer) as server:
        store = Store(server.address, timeout=0.05)
        await store.open()
        learned = learner(store)
        teach(learned, GOOD, 1)
        with pytest.raises(StoreUnavailable):
            await learned.sync()
        teach(learned, GOOD, 1)
        silent = False
        await eventually(lambda: store.healthy)
        await learned.sync()
        await learned.sync()
        await store.aclose()
    sent = [(command[5], command[9:]) for command in heard]
    cell = [b"gpu/qwen\x1fcode\x1fsimple", b"1000", b"1000"]
    assert sent[0] == sent[-2] == (b"1", cell)
    assert sent[-1] == (b"2", cell)


async def test_the_script_counts_a_merge_once(learned: Success, store: Store) -> None:
    keys = (layout.SUCCESS, layout.key("merged", "p"))
    arguments = (7, 60, 100, 500_000, "m\x1fcode\x1fsimple", 1500, 2000)
    for _ in range(3):
        fields = await store.run(success.MERGE, keys, arguments)
    assert sorted(fields) == sorted([b"m\x1fcode\x1fsimple|v", b"1500", b"m\x1fcode\x1fsimple|w", b"2000"])


async def test_a_flood_of_models_has_a_bound(store: Store) -> None:
    """An upstream that names a new model on every answer must not fill the store."""
    many = [part for number in range(20) for part in (f"m{number}\x1fcode\x1fsimple", 1, 1)]
    fields = await store.run(success.MERGE, (layout.SUCCESS, layout.key("merged", "p")), (1, 60, 10, 500_000, *many))
    assert len(fields) == 2 * 10
    again = ("m0\x1fcode\x1fsimple", 1, 1)
    fields = await store.run(success.MERGE, (layout.SUCCESS, layout.key("merged", "p")), (2, 60, 10, 500_000, *again))
    assert len(fields) == 2 * 10
    assert dict(zip(fields[::2], fields[1::2], strict=True))[b"m0\x1fcode\x1fsimple|w"] == b"2"


async def test_while_the_store_is_away_learning_goes_on(learned: Success, store: Store) -> None:
    await store.aclose()
    teach(learned, GOOD, 3)
    with pytest.raises(StoreUnavailable):
        await learned.sync()
    assert learned.quality("gpu/qwen") == 1.0


async def test_names_with_separators_do_no_harm(learned: Success) -> None:
    """Model names come from upstreams."""
    learned.learn("gpu/a|v\x1fb\ud800", "code", "simple", GOOD)
    await learned.sync()
    assert learned.quality("gpu/a?v?b?") == 1.0


async def test_damaged_sums_are_passed_over(learned: Success, store: Store) -> None:
    for field, value in (
        ("x", "1"),
        ("a|w", "1"),
        ("a\x1fb\x1fc|w", "1"),
        ("d\x1fe\x1ff|w", "x"),
        ("d\x1fe\x1ff|v", "1"),
    ):
        await store.call("HSET", layout.SUCCESS, field, value)
    await store.call("HSET", layout.BASELINE, BASELINE_FIELD, "[")
    teach(learned, GOOD, 1)
    await learned.sync()
    assert learned.quality("gpu/qwen") == 1.0
    assert learned.quality("d") is None
    assert learned.baseline is None


async def test_what_was_learnt_last_outlives_the_process(learned: Success, other: Success, store: Store) -> None:
    teach(learned, GOOD, 1)
    await learned.aclose()
    await other.sync()
    assert other.quality("gpu/qwen") == 1.0
    await store.aclose()
    await learned.aclose()


# --- comparisons ------------------------------------------------------------------------------------------------------


async def put_baseline(learned: Success, store: Store, model: str) -> None:
    """As `gateway.baselines` does, which audits it as well."""
    learned.baseline = await learned.measured(model)
    await store.call("HSET", layout.BASELINE, BASELINE_FIELD, orjson.dumps(learned.baseline))


async def test_models_are_compared_with_a_stored_one(learned: Success, other: Success, store: Store) -> None:
    """`how good are the local ones, next to Claude as it was when we started?`"""
    teach(learned, Evidence(0.8, 1.0), 20, "claude/opus")
    teach(learned, Evidence(0.6, 1.0), 20)
    teach(learned, Evidence(0.4, 1.0), 20, task="docs")
    await put_baseline(learned, store, "claude/opus")
    teach(learned, BAD, 100, "claude/opus")
    assert learned.ratio("gpu/qwen", "code") == pytest.approx(0.75)
    assert learned.ratio("gpu/qwen", "docs") == pytest.approx(0.5)
    assert learned.ratio("gpu/qwen") == pytest.approx(0.625)
    await learned.sync()
    await other.sync()
    assert other.ratio("gpu/qwen", "code") == pytest.approx(0.75)


async def test_too_little_is_no_baseline(learned: Success) -> None:
    teach(learned, GOOD, 5)
    for model in ("gpu/qwen", "gpu/none"):
        with pytest.raises(Unprocessable):
            await learned.measured(model)


async def test_a_baseline_of_nothing_compares_nothing(learned: Success) -> None:
    teach(learned, BAD, 20)
    learned.baseline = await learned.measured("gpu/qwen")
    assert learned.ratio("gpu/qwen") is None


async def test_models_that_got_worse_are_noticed(learned: Success) -> None:
    """One of the reasons for which an emergency may call paid models: local quality below 90 % of what it was."""
    teach(learned, GOOD, 300)
    assert learned.against_own(["gpu/qwen"]) == pytest.approx(1.0)
    teach(learned, BAD, 20)
    now = learned.against_own(["gpu/qwen", "gpu/unknown"])
    assert now is not None
    assert now < 0.7
    teach(learned, BAD, 100, "gpu/new")
    assert learned.against_own(["gpu/new"]) is None


# --- around it --------------------------------------------------------------------------------------------------------


async def test_the_metric_hears_of_every_change_here_and_elsewhere(store: Store, other: Success) -> None:
    told: list[tuple[str, str, float]] = []
    learned = Success(store, ManualClock(), lambda *what: told.append(what))
    learned.learn("gpu/qwen", "code", "simple", GOOD)
    other.learn("gpu/rnj", "docs", "simple", BAD)
    await other.sync()
    await learned.sync()
    assert told[0] == ("gpu/qwen", "code", 1.0)
    assert sorted(told[1:]) == [("gpu/qwen", "code", 1.0), ("gpu/rnj", "docs", 0.0)]


async def test_the_metric_hears_of_changes_while_the_store_is_away(store: Store) -> None:
    """A model that fails meanwhile would look as good as before."""
    told: list[tuple[str, str, float]] = []
    await store.aclose()
    learned = Success(store, ManualClock(), lambda *what: told.append(what))
    learned.learn("gpu/qwen", "code", "simple", GOOD)
    with pytest.raises(StoreUnavailable):
        await learned.sync()
    assert told == [("gpu/qwen", "code", 1.0)]


async def test_what_is_learnt_here_is_told_as_what_it_adds(learned: Success, other: Success) -> None:
    """A report on a week needs what was learnt in it, once, and corrected by what is said later."""
    heard: list[tuple[str, int, int]] = []
    learned.learnt = lambda *what: heard.append(what)
    learned.learn("gpu/qwen", "code", "simple", Evidence(0.8, 0.2))
    learned.learn("gpu/qwen", "code", "simple", Evidence(0.0, 1.0), before=Evidence(0.8, 0.2))
    learned.learn("gpu/qwen", "code", "simple", NOTHING)
    teach(other, GOOD, 1)
    await other.sync()
    await learned.sync()
    assert heard == [("gpu/qwen", 160, 200), ("gpu/qwen", -160, 800)]


async def test_it_keeps_in_step_by_itself_whatever_the_store_does(
    store: Store, other: Success, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(success, "SYNC_SECONDS", 0.01)
    learned = learner(store)
    await store.call("SET", layout.SUCCESS, "not a hash")
    task = asyncio.create_task(learned.run())
    await eventually(lambda: "not shared" in caplog.text)
    await store.call("DEL", layout.SUCCESS)
    teach(other, GOOD, 1)
    await other.sync()
    await eventually(lambda: learned.quality("gpu/qwen") == 1.0)
    await store.aclose()
    await asyncio.sleep(0.03)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
