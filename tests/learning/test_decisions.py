from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.core.caller import ANONYMOUS, Caller
from app.core.clock import ManualClock
from app.core.errors import NotFound, StoreUnavailable
from app.core.messages import Message, TextPart
from app.core.outcome import Ask, Noticed, Outcome
from app.core.tasks import TaskOwner
from app.core.verdict import Verdict
from app.learning import decisions
from app.learning.asks import ask_of
from app.learning.decisions import Decisions
from app.learning.success import Success
from app.store import layout
from app.store.address import Address
from app.store.client import Store
from tests.core.nouns import chat
from tests.learning.records import PLAN, attempt, record
from tests.store.live import ok, puppet

OWNER = Caller(key_id="key-a")
DAY = "2023-11-14"


@dataclass
class Desk:
    """The service with everything around it."""

    store: Store
    success: Success
    decisions: Decisions
    tasks: TaskOwner
    lost: list[int]
    rescored: list[tuple[str | None, float, float]]

    async def settled(self) -> None:
        """Everything that was put aside is written."""
        await self.tasks.drain(30.0)


def desk_of(store: Store) -> Desk:
    clock, lost = ManualClock(), list[int]()
    errors: list[BaseException] = []
    tasks = TaskOwner(lambda name, error: errors.append(error))

    async def at_once(seconds: float) -> None:
        await asyncio.sleep(0)

    learned = Success(store, clock)
    rescored = list[tuple[str | None, float, float]]()
    decisions = Decisions(store, learned, tasks, clock, lost.append, at_once, lambda *said: rescored.append(said))
    return Desk(store, learned, decisions, tasks, lost, rescored)


@pytest.fixture
async def desk(store: Store) -> AsyncIterator[Desk]:
    desk = desk_of(store)
    yield desk
    await desk.tasks.cancel()


async def noted(desk: Desk, **fields: Any) -> None:
    desk.decisions.note(record(**fields))
    await desk.settled()


async def sources(desk: Desk, request_id: str = "req-1") -> dict[str, float]:
    return {each.source: each.value for each in (await desk.decisions.get(request_id)).outcomes}


# --- remembering ------------------------------------------------------------------------------------------------------


async def test_a_decision_can_be_looked_up_for_a_week(desk: Desk) -> None:
    await noted(desk)
    found = await desk.decisions.get("req-1")
    assert found.decision.model == "gpu/qwen"
    assert [each.source for each in found.outcomes] == ["finish"]
    assert 7 * 86_400 - 5 <= await desk.store.call("TTL", layout.key("decision", "req-1")) <= 7 * 86_400
    assert desk.lost == []


async def test_all_that_is_written_is_declared_and_ends(desk: Desk) -> None:
    """A week of traffic must not stay for ever."""
    ask = Ask("place", None, "same", "numbers")
    await noted(desk, ask=ask, noticed=Noticed(parses=True))
    await desk.decisions.rate("req-1", OWNER, 1.0, (("reason", "fine"),))
    await desk.success.sync()
    found = await desk.store.call("KEYS", "*")
    assert len(found) == 7
    assert [layout.fault_of(key.decode(), await desk.store.call("TTL", key)) for key in found] == [None] * 7


async def test_embeddings_and_requests_without_a_plan_are_no_decisions(desk: Desk) -> None:
    await noted(desk, endpoint="embeddings")
    await noted(desk, plan=None)
    for request_id in ("req-1", "none", "\u00e9"):
        with pytest.raises(NotFound):
            await desk.decisions.get(request_id)
    assert desk.lost == []


async def test_many_are_written_in_one_go(tmp_path: Path) -> None:
    """The client's Python is what a write costs; one by one they would take five times as much."""

    def answer(command: list[bytes]) -> bytes | None:
        if command[0] not in (b"EVAL", b"EVALSHA"):
            return ok(command)
        written = int(command[2]) // 2
        return b"*%d\r\n" % written + b":604800\r\n" * written

    async with puppet(tmp_path, answer) as server:
        store = Store(server.address)
        await store.open()
        desk = desk_of(store)
        reads = server.reads
        for number in range(50):
            desk.decisions.note(record(request_id=f"req-{number}"))
        await desk.settled()
        written = [int(command[2]) // 2 for command in server.heard if command[0] == b"EVALSHA"]
        assert sum(written) == 50
        assert max(written) <= decisions.BATCH_MAX, "nobody else is served meanwhile"
        assert server.reads - reads <= 4
        await store.aclose()


async def test_a_store_that_is_away_loses_decisions_and_holds_nobody_up(desk: Desk) -> None:
    await desk.store.aclose()
    desk.decisions.note(record())
    assert desk.lost == [1]
    assert len(desk.tasks) == 0
    assert desk.success.quality("gpu/qwen") == pytest.approx(0.8)  # learning goes on
    with pytest.raises(StoreUnavailable):
        await desk.decisions.get("req-1")


async def test_a_store_that_goes_away_meanwhile_loses_what_was_put_aside(desk: Desk) -> None:
    desk.decisions.note(record())
    desk.decisions.note(record(ask=Ask("place", "before", "same", "numbers")))
    await desk.store.aclose()
    await desk.settled()
    assert desk.lost == [2]


async def test_one_that_cannot_be_written_takes_no_other_with_it(desk: Desk) -> None:
    """Else one request's odd number loses the decisions of all others, and their feedback fails."""
    odd = replace(PLAN, tokens=(1, 2**64))  # more than a JSON writer takes
    ask = Ask("place", None, "same", "numbers")
    desk.decisions.note(record())
    desk.decisions.note(record(request_id="req-odd", plan=odd, ask=ask))
    desk.decisions.note(record(request_id="req-2"))
    with capture_logs() as lines:
        await desk.decisions.rate("req-2", OWNER, 1.0)
        await desk.settled()
    assert (await desk.decisions.get("req-1")).decision.model == "gpu/qwen"
    with pytest.raises(NotFound):
        await desk.decisions.get("req-odd")
    assert desk.lost == [1] and [line["log_level"] for line in lines] == ["error"]


async def test_what_waits_has_a_bound(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that hangs must not let the memory grow."""
    monkeypatch.setattr(decisions, "WAITING_MAX", 3)
    for _ in range(5):
        desk.decisions.note(record())
    assert desk.lost == [1, 1]


async def test_a_fault_of_ours_is_not_swallowed(store: Store) -> None:
    errors: list[BaseException] = []
    tasks = TaskOwner(lambda name, error: errors.append(error))

    class Broken(Success):
        def learn(self, *args: Any, **kwargs: Any) -> None:
            if kwargs or len(args) > 4:
                raise RuntimeError("a bug")

    broken = Decisions(store, Broken(store, ManualClock()), tasks, ManualClock())
    first = Ask("p1", None, "a", "")
    broken.note(record(request_id="req-1", ask=first))
    broken.note(record(request_id="req-2", ask=replace(first, place="p2", before="p1", same="b")))
    with capture_logs() as lines:
        await tasks.drain(5.0)
    assert [str(line["exc_info"]) for line in lines] == ["a bug"] and not errors
    broken.note(record(request_id="req-3"))
    await tasks.drain(5.0)
    assert (await broken.get("req-3")).decision.request_id == "req-3"


async def test_a_damaged_decision_is_as_good_as_none(desk: Desk) -> None:
    await noted(desk)
    await desk.store.call("HSET", layout.key("decision", "req-1"), "decision", "[]")
    with pytest.raises(NotFound):
        await desk.decisions.get("req-1")
    with pytest.raises(NotFound):
        await desk.decisions.rate("req-1", OWNER, 1.0)


# --- how long, and how much -------------------------------------------------------------------------------------------


async def test_a_keys_own_retention_is_kept(desk: Desk) -> None:
    """What a tenant agreed to is a day, not a week, and not ninety days in a log."""
    await noted(desk, retention_days=1)
    assert await desk.store.call("TTL", layout.key("decision", "req-1")) <= 86_400
    assert await desk.decisions.training(DAY) == ()
    await noted(desk, request_id="req-2", retention_days=0, ask=Ask("p", None, "s", "n"))
    with pytest.raises(NotFound):
        await desk.decisions.get("req-2")
    assert await desk.store.call("EXISTS", layout.key("ask", "p")) == 0
    await noted(desk, request_id="req-3", retention_days=365)
    assert len(await desk.decisions.training(DAY)) == 1


async def test_who_consents_to_nothing_leaves_no_trace_of_the_ask(desk: Desk) -> None:
    await noted(desk, consent="off", ask=Ask("p", None, "s", "n"))
    assert await desk.store.call("EXISTS", layout.key("ask", "p")) == 0
    assert (await desk.decisions.get("req-1")).decision.features == ""


async def test_under_load_decisions_live_shorter_and_the_newest_are_there(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger lives in the same store; decisions must never take its room."""
    monkeypatch.setattr(decisions, "ROOM_BYTES", 100_000)
    for number in range(400):
        desk.decisions.note(record(request_id=f"req-{number}"))
    await desk.settled()
    ttls = [await desk.store.call("TTL", layout.key("decision", f"req-{number}")) for number in range(400)]
    assert ttls[0] > 600_000
    assert 60 <= ttls[-1] < 3_600
    assert all(later <= earlier + 5 for earlier, later in pairwise(ttls))
    charged = sum(1_500 * max(0, ttl) / 604_800 for ttl in ttls)
    assert charged < 110_000
    assert desk.lost == []


async def test_when_there_is_no_room_at_all_decisions_are_lost_and_counted(desk: Desk) -> None:
    now = int((await desk.store.call("TIME"))[0])
    await desk.store.call("HSET", layout.ROOM, "left", 0, "at", now)
    await noted(desk)
    assert desk.lost == [1]
    await desk.store.call("HSET", layout.ROOM, "left", 0, "at", now - 4 * 86_400)  # it comes back with time
    await noted(desk)
    await desk.decisions.get("req-1")
    assert desk.lost == [1]


async def test_the_training_log_is_a_bounded_sample_of_its_day(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day of a million requests must leave as many rows as a day of a thousand, and not only its morning."""
    monkeypatch.setattr(decisions, "TRAINING_ROWS", 20)
    for number in range(200):
        desk.decisions.note(record(request_id=f"req-{number}"))
    await desk.settled()
    rows = await desk.decisions.training(DAY)
    assert 19 <= len(rows) <= 20
    numbers = [int(row.decision.request_id[4:]) for row in rows]
    assert max(numbers) >= 40
    key = layout.key("training", DAY)
    assert await desk.store.call("HGET", key, "#seen") == b"200"
    assert 0 < await desk.store.call("TTL", key) <= 90 * 86_400


async def test_rows_that_cannot_be_read_are_passed_over(desk: Desk) -> None:
    await noted(desk)
    await desk.store.call("HSET", layout.key("training", DAY), "bad", "{")
    assert len(await desk.decisions.training(DAY)) == 1
    assert await desk.decisions.training("1999-01-01") == ()


# --- whose it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", [Caller(key_id="key-b"), ANONYMOUS])
async def test_nobody_rates_anothers_request_nor_learns_that_it_exists(desk: Desk, caller: Caller) -> None:
    await noted(desk)
    with pytest.raises(NotFound) as theirs:
        await desk.decisions.rate("req-1", caller, 0.0)
    with pytest.raises(NotFound) as none:
        await desk.decisions.rate("req-none", caller, 0.0)
    assert theirs.value.message == none.value.message
    assert await sources(desk) == {"finish": 0.8}


async def test_an_id_that_another_key_used_is_not_taken_over(desk: Desk) -> None:
    """Clients choose request ids; one must not wipe out, or speak for, another's."""
    await noted(desk)
    await noted(desk, key_id="key-b", model="claude/opus")
    assert desk.lost == [1]
    assert (await desk.decisions.get("req-1")).decision.model == "gpu/qwen"
    await noted(desk, model="ollama/rnj")  # its own may be used again
    assert (await desk.decisions.get("req-1")).decision.model == "ollama/rnj"


async def test_without_keys_everybody_is_the_same_nobody(desk: Desk) -> None:
    await noted(desk, key_id=None)
    assert await desk.decisions.rate("req-1", ANONYMOUS, 1.0) == ()


# --- feedback ---------------------------------------------------------------------------------------------------------


async def test_what_is_learnt_is_kept_under_the_tier_before_its_correction(desk: Desk) -> None:
    """There it is looked for; otherwise a correction would be made of the counts of other requests."""
    verdict = Verdict(0.6, 0.9, "code", "v1", uncorrected=0.4)
    tried = (attempt("gpu/small", "server", "upstream"), attempt("gpu/qwen"))
    await noted(desk, plan=replace(PLAN, verdict=verdict), tier="complex", attempts=tried, model="gpu/qwen")
    await desk.decisions.rate("req-1", OWNER, 0.0)
    made = (await desk.decisions.get("req-1")).decision
    assert (made.tier, made.learnt_tier) == ("complex", "moderate")
    assert {cell[2] for cell in desk.success._sums if cell[2]} == {"moderate"}
    assert desk.success.counts(["gpu/qwen"], "code", "moderate") is not None


async def test_every_later_word_about_an_answer_reaches_the_arm_that_gave_it(desk: Desk) -> None:
    """A canary whose answers please nobody would pass for well: a plain end is all that is known at first."""
    await noted(desk, plan=replace(PLAN, arm="new:treatment"))
    assert desk.rescored == []
    await desk.decisions.rate("req-1", OWNER, 0.0)
    await desk.decisions.add("req-1", Outcome("shadow", 1.0, 0.2, 5.0))
    at = (await desk.decisions.get("req-1")).decision.at
    (arm, value, when), (_, better, _) = desk.rescored
    assert (arm, when) == ("new:treatment", at)
    assert 0 < value < better < 0.3


async def test_feedback_reaches_the_decision_the_log_and_the_learned_success(desk: Desk) -> None:
    await noted(desk)
    assert desk.success.quality("gpu/qwen", "code") == pytest.approx(0.8)
    texts = (("correction", "42"), ("reason", "wrong number"))
    assert await desk.decisions.rate("req-1", OWNER, 0.0, texts) == ("correction", "reason")
    found = await desk.decisions.get("req-1")
    assert {each.source: each.value for each in found.outcomes} == {"finish": 0.8, "feedback": 0.0}
    assert dict(found.texts) == dict(texts)
    assert desk.success.quality("gpu/qwen", "code") == pytest.approx(0.05, abs=0.01)
    (row,) = await desk.decisions.training(DAY)
    assert {each.source for each in row.outcomes} == {"finish", "feedback"}
    log = b"".join(await desk.store.call("HVALS", layout.key("training", DAY)))
    assert b"wrong number" not in log


async def test_a_caller_may_change_its_mind(desk: Desk) -> None:
    await noted(desk)
    await desk.decisions.rate("req-1", OWNER, 0.0)
    await desk.decisions.rate("req-1", OWNER, 1.0)
    assert (await sources(desk))["feedback"] == 1.0
    assert desk.success.quality("gpu/qwen") == pytest.approx(0.9875, abs=0.001)
    await desk.success.sync()
    assert desk.success.quality("gpu/qwen") == pytest.approx(0.9875, abs=0.005)


async def test_who_consents_to_nothing_is_heard_but_not_quoted(desk: Desk) -> None:
    await noted(desk, consent="off")
    caller = replace(OWNER, store_content="off")
    assert await desk.decisions.rate("req-1", caller, 0.0, (("reason", "secret"),)) == ()
    found = await desk.decisions.get("req-1")
    assert found.texts == ()
    assert (await sources(desk))["feedback"] == 0.0


async def test_words_for_which_there_is_no_room_are_left_out(desk: Desk) -> None:
    await noted(desk)
    await desk.store.call("HSET", layout.ROOM, "left", 10)
    assert await desk.decisions.rate("req-1", OWNER, 0.0, (("reason", "x" * 100),)) == ()
    assert (await sources(desk))["feedback"] == 0.0


async def test_an_answer_may_be_rated_the_moment_it_was_given(desk: Desk, valkey: Path) -> None:
    """Also on another gateway, which hears of it a moment later."""
    desk.decisions.note(record())
    await desk.decisions.rate("req-1", OWNER, 1.0)
    elsewhere = Store(Address(path=str(valkey)))
    await elsewhere.open()

    async def meanwhile(seconds: float) -> None:
        await noted(desk, request_id="req-2")

    other = Decisions(elsewhere, Success(elsewhere, ManualClock()), desk.tasks, ManualClock(), sleep=meanwhile)
    await other.rate("req-2", OWNER, 1.0)
    await elsewhere.aclose()
    assert (await sources(desk, "req-2"))["feedback"] == 1.0


async def test_a_request_that_no_model_answered_can_be_rated(desk: Desk) -> None:
    await noted(desk, model=None, error_code="upstream_failed", status=502, attempts=())
    await desk.decisions.rate("req-1", OWNER, 0.0)
    assert desk.success.quality("gpu/qwen") is None


async def test_a_decision_that_ends_between_two_looks_is_gone(desk: Desk, tmp_path: Path) -> None:
    def answer(command: list[bytes]) -> bytes | None:
        if command[0] == b"HMGET":
            return b"*2\r\n$5\r\nkey-a\r\n$1\r\nl\r\n"
        return b"*2\r\n*0\r\n:0\r\n" if command[0] in (b"EVAL", b"EVALSHA") else ok(command)

    async with puppet(tmp_path, answer) as server:
        store = Store(server.address)
        await store.open()
        assert not await desk_of(store).decisions.add("req-1", Outcome("judge", 1.0, 1.0, 0.0))
        await store.aclose()


# --- other sources ----------------------------------------------------------------------------------------------------


async def test_our_own_sources_need_no_key(desk: Desk) -> None:
    """A shadow's comparison or a judge adds to the same signal."""
    await noted(desk)
    assert await desk.decisions.add("req-1", Outcome("shadow", 0.2, 1.0, 5.0))
    assert await sources(desk) == {"finish": 0.8, "shadow": 0.2}
    assert not await desk.decisions.add("req-9", Outcome("shadow", 0.2, 1.0, 5.0))


async def test_models_that_gave_up_learn_of_it(desk: Desk) -> None:
    tried = (attempt("ollama/rnj", "truncated", "upstream"), attempt("gpu/qwen"))
    await noted(desk, attempts=tried)
    assert desk.success.quality("ollama/rnj", "code") == 0.0


def turn(*words: str) -> Ask | None:
    messages = tuple(
        Message("assistant" if index % 2 else "user", (TextPart(each),)) for index, each in enumerate(words)
    )
    return ask_of(chat(messages=messages), "key-a")


async def test_the_next_ask_judges_the_answer_before_it(desk: Desk, valkey: Path) -> None:
    """Also when it reaches another gateway, and even though nobody sent a session."""
    await noted(desk, request_id="req-1", ask=turn("Sort a list?"))
    elsewhere = Store(Address(path=str(valkey)))
    await elsewhere.open()
    other = desk_of(elsewhere)
    await noted(other, request_id="req-2", ask=turn("Sort a list?", "42", "That's wrong."))
    await noted(desk, request_id="req-3", ask=turn("Sort a list?", "42", "That's wrong.", "sorted(x)", "And a set?"))
    assert (await sources(desk, "req-1"))["next_ask"] == 0.1
    assert (await sources(desk, "req-2"))["next_ask"] == 0.8
    assert "next_ask" not in await sources(desk, "req-3")
    await elsewhere.aclose()


async def test_the_last_answer_of_a_tool_loop_is_the_one_that_is_judged(desk: Desk) -> None:
    first = turn("Fix it")
    assert first is not None
    await noted(desk, request_id="req-1", ask=first)
    await noted(desk, request_id="req-2", ask=replace(first, carried=True))
    await noted(desk, request_id="req-3", ask=turn("Fix it", "done", "still fails"))
    assert "next_ask" not in await sources(desk, "req-1")
    assert (await sources(desk, "req-2"))["next_ask"] == 0.1


async def test_a_request_does_not_judge_itself(desk: Desk) -> None:
    """The same id sent twice, by a client that retries."""
    for _ in range(2):
        await noted(desk, ask=turn("Sort a list?"))
    assert "next_ask" not in await sources(desk)


async def test_what_a_program_repeats_judges_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load test or a health check sends the same again and again, whatever the answers are worth."""
    monkeypatch.setattr(decisions, "PLACES_MAX", 2)
    for number in range(8):
        await noted(desk, request_id=f"req-{number}", ask=turn("ping"))
    judged = [number for number in range(8) if "next_ask" in await sources(desk, f"req-{number}")]
    assert judged == [0, 1]
    await noted(desk, request_id="req-8", ask=turn("other"))
    await noted(desk, request_id="req-9", ask=turn("ping"))  # places are not remembered for ever
    assert "next_ask" in await sources(desk, "req-2")


async def test_a_long_tool_loop_is_no_program(desk: Desk) -> None:
    first = turn("Fix it")
    assert first is not None
    for number in range(8):
        await noted(desk, request_id=f"req-{number}", ask=replace(first, carried=number > 0))
    await noted(desk, request_id="req-8", ask=turn("Fix it", "done", "still fails"))
    assert (await sources(desk, "req-7"))["next_ask"] == 0.1


async def test_the_same_opening_of_another_key_says_nothing(desk: Desk) -> None:
    await noted(desk, request_id="req-1", ask=turn("Sort a list?"))
    await noted(desk, request_id="req-2", ask=turn("Sort a list?"), key_id="key-b")
    assert "next_ask" not in await sources(desk, "req-1")
