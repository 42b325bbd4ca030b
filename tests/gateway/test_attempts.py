"""The one retry loop. The test *is* the sequence: what each candidate does, and what the caller sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.core.card import Card
from app.core.clock import ManualClock
from app.core.errors import (
    AccountFault,
    BadReply,
    Broken,
    Busy,
    ContextLengthExceeded,
    GatewayError,
    Incomplete,
    InternalError,
    OutOfTime,
    Refused,
    Rejected,
    ServerFault,
    Throttled,
    TimedOut,
    Truncated,
    UnsupportedParameter,
    UpstreamFailed,
    UpstreamStumbled,
)
from app.core.events import Fault, Finish, Text, is_content
from app.core.plan import Candidate
from app.gateway.attempts import HELD_BYTES_MAX, HELD_MAX, Attempts
from app.gateway.recording import record_of
from tests.core.nouns import card, paid
from tests.gateway.fakes import Script, Step, Told, exchange_of, good, start
from tests.gateway.walks import Walk, text, walk

A, B, C, D = card("gpu/a"), card("gpu/b"), paid("claude/c"), paid("claude/d")
CANDIDATES = [Candidate(each, "it can do this") for each in (A, B, C)]


# --- which candidate ------------------------------------------------------------------------------------------------


async def test_the_first_candidate_that_answers_is_the_answer() -> None:
    run = walk((A, good()), (B, good("other")))
    assert text(await run.run()) == "hello"
    assert (run.tried, run.outcomes, run.waits) == (["gpu/a"], ["ok"], [])
    assert run.script(B).opened == 0
    run.is_accounted_for()


NEXT = [
    Refused("no"),
    TimedOut("late", phase="first_token"),
    BadReply("html"),
    Throttled("429"),
    AccountFault("401"),
    UnsupportedParameter("no tools"),
]
SAME = [Broken("reset"), Incomplete("cut"), ServerFault("500"), Busy("503")]
NEVER = [Rejected("too hot"), OutOfTime("deadline", phase="total"), InternalError("ours")]


@pytest.mark.parametrize("error", NEXT, ids=lambda error: type(error).__name__)
async def test_what_would_fail_again_moves_on_at_once(error: GatewayError) -> None:
    """Waiting for a server that refuses connections costs the user seconds for nothing."""
    run = walk((A, [error]), (B, good("other")))
    assert text(await run.run()) == "other"
    assert (run.tried, run.waits) == (["gpu/a", "gpu/b"], [0.0])
    run.is_accounted_for()


@pytest.mark.parametrize("error", SAME, ids=lambda error: type(error).__name__)
async def test_what_may_pass_is_tried_once_more_after_a_moment(error: GatewayError) -> None:
    """A connection that was just being closed must not send a free request to a paid model."""
    run = walk((A, Script([error], good())), (B, good("other")))
    assert text(await run.run()) == "hello"
    assert run.tried == ["gpu/a", "gpu/a"]
    assert 0 < run.waits[0] <= 0.5
    run.is_accounted_for()


@pytest.mark.parametrize("error", SAME, ids=lambda error: type(error).__name__)
async def test_twice_is_enough_for_one_candidate(error: GatewayError) -> None:
    run = walk((A, [error]), (B, good("other")))
    assert text(await run.run()) == "other"
    assert run.tried == ["gpu/a", "gpu/a", "gpu/b"]
    assert run.waits[1] == 0.0
    run.is_accounted_for()


async def test_every_candidate_comes_to_its_turn_before_one_gets_a_second() -> None:
    """Two sick local models must not use up the tries that the well third one needs."""
    third = card("claude/third")
    run = walk((A, [ServerFault("500")]), (B, [ServerFault("500")]), (third, good("third")))
    assert text(await run.run()) == "third"
    assert run.tried == ["gpu/a", "gpu/b", "claude/third"]


async def test_a_dead_server_costs_one_try_whatever_it_serves() -> None:
    """Ollama with three models, killed: they must not use up the tries of the one server that is well."""
    others = [(card(f"gpu/{name}"), [Refused("no")]) for name in "abc"]
    run = walk(*others, (C, good("paid")))
    assert text(await run.run()) == "paid"
    assert run.tried == ["gpu/a", "claude/c"]


async def test_who_fell_sick_while_a_retry_waited_is_not_retried() -> None:
    """Of many requests that a dying server broke, each would find out for itself that it is gone."""
    run = walk((A, [Broken("reset")]), (C, good("paid")))
    sleep = run.attempts._sleep

    async def meanwhile(seconds: float) -> None:
        await sleep(seconds)
        if seconds:
            run.health.ended(B, Refused("gone"))

    run.attempts._sleep = meanwhile
    assert text(await run.run()) == "paid"
    assert run.tried == ["gpu/a", "claude/c"]


async def test_the_last_try_goes_to_a_server_that_has_not_failed() -> None:
    """It may hang, or its key may be wrong: then no model of it will do."""
    others = [(card(f"gpu/{name}"), [ServerFault("500")]) for name in "abc"]
    run = walk(*others, (C, good("paid")))
    assert text(await run.run()) == "paid"
    assert run.tried == ["gpu/a", "gpu/b", "claude/c"]


async def test_who_is_known_to_be_sick_is_not_tried_again_while_another_is_well() -> None:
    """All that were under way when a server died would come back to it at once."""
    run = walk((A, [Broken("reset")]), (B, good("other")))
    for _ in range(5):
        run.again()
        await run.run()
    assert run.tried == ["gpu/a", "gpu/b"]


async def test_what_was_not_tried_is_not_said_to_have_failed() -> None:
    fourth = card("claude/fourth")
    sick = [(one, [ServerFault("500")]) for one in (A, B, card("claude/third"))]
    error = await walk(*sick, (fourth, good())).fails()
    assert error.message.startswith("The models that were tried failed.") and "fourth" not in error.message


@pytest.mark.parametrize("error", NEVER, ids=lambda error: type(error).__name__)
async def test_what_is_wrong_with_the_request_is_tried_nowhere_else(error: GatewayError) -> None:
    """A paid model must not be asked what the caller has to change first, and the caller is told just that."""
    run = walk((A, [error]), (B, good("other")))
    assert await run.fails() is error
    assert (run.tried, run.script(B).opened) == (["gpu/a"], 0)
    run.is_accounted_for()


@pytest.mark.parametrize("error", [ContextLengthExceeded("long"), Truncated("cut")], ids=["refused", "dropped"])
async def test_too_long_a_prompt_goes_only_to_larger_windows(error: GatewayError) -> None:
    """Each of the others would refuse it as well; one that does not say its window may be large enough."""
    first = card("gpu/first", context_window=8_000)
    smaller, equal = card("gpu/smaller", context_window=4_000), card("gpu/equal", context_window=8_000)
    unknown, larger = card("gpu/unknown"), paid("claude/larger", context_window=200_000)
    run = walk((first, [error]), (smaller, good()), (equal, good()), (unknown, [error]), (larger, good("long")))
    assert text(await run.run()) == "long"
    assert run.tried == ["gpu/first", "gpu/unknown", "claude/larger"]
    run.is_accounted_for()


async def test_where_no_window_is_larger_the_caller_is_told() -> None:
    error = ContextLengthExceeded("long")
    run = walk((card("gpu/a", context_window=8_000), [error]), (card("gpu/b", context_window=8_000), good()))
    assert await run.fails() is error


@pytest.mark.parametrize("most", [1, 2, 3, 4])
async def test_there_are_only_so_many_attempts(most: int) -> None:
    """A request that fails everywhere must end, and end soon."""
    run = walk(*((each, [Refused("no")]) for each in (A, B, C, D)), max_attempts=most)
    assert isinstance(await run.fails(), UpstreamFailed)
    assert run.tried == [each.id for each in (A, C, D, B)][:most]
    run.is_accounted_for()


async def anybody(candidate: Candidate, at_last: bool) -> None:
    """Lets the request go anywhere."""


async def test_three_attempts_is_what_nobody_has_to_say() -> None:
    clock = ManualClock()
    exchange = exchange_of(A, B, C, D, clock=clock)
    scripts = Script([Refused("no")])
    with pytest.raises(UpstreamFailed):
        async for _ in Attempts(Told(clock)).walk(exchange, anybody, lambda each: scripts.play(), is_content, Fault):
            pass
    assert scripts.opened == 3


def waiting(*scripts: tuple[Card, Script | Sequence[Step]], trigger: str | None, max_attempts: int = 3) -> Walk:
    """The last of these models waits for an emergency, which there is once somebody failed if a trigger is given."""
    run = walk(*scripts, max_attempts=max_attempts)
    run.trigger = trigger
    planned = run.exchange.planned
    assert planned is not None
    *candidates, last = planned.plan.candidates
    run.exchange.planned = planned._replace(plan=replace(planned.plan, candidates=(*candidates,), reserve=(last,)))
    return run


async def test_the_first_to_find_an_emergency_is_helped_by_it() -> None:
    """Else one request fails for each time that a local server dies."""
    run = waiting((A, [Refused("no")]), (C, good("paid")), trigger="gone")
    assert text(await run.run()) == "paid"
    assert run.tried == ["gpu/a", "claude/c"]
    record = record_of(run.exchange)
    assert record.plan is not None and record.plan.trigger == "gone"
    assert (record.reason, record.local, record.fallback_from) == ("emergency; gone", False, "gpu/a")


async def test_without_an_emergency_nobody_who_waits_for_one_is_asked() -> None:
    run = waiting((A, [Refused("no")]), (C, good("paid")), trigger=None)
    assert isinstance(await run.fails(), UpstreamFailed)
    assert run.tried == ["gpu/a"]


@pytest.mark.parametrize(("error", "most"), [(Rejected("too hot"), 3), (Refused("no"), 1)])
async def test_an_emergency_makes_no_tries_where_none_are_left(error: GatewayError, most: int) -> None:
    """A plan that says that it used an emergency, and did not, is a false alarm."""
    run = waiting((A, [error]), (C, good("paid")), trigger="gone", max_attempts=most)
    await run.fails()
    assert run.exchange.plan is not None and run.exchange.plan.trigger is None


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [2.0, 5.0])
async def test_a_wait_the_upstream_names_is_kept(wait: float) -> None:
    """It knows best when it can answer; five seconds are as long as a user hardly notices."""
    error = Busy("loading", retry_after=wait)
    run = walk((A, Script([error], good())), (B, good("other")))
    assert text(await run.run()) == "hello"
    assert run.waits == [wait]


@pytest.mark.parametrize(("wait", "left"), [(5.1, 600.0), (3.0, 2.0)])
async def test_a_wait_that_does_not_fit_sends_the_request_on(wait: float, left: float) -> None:
    """Nobody waits a minute for a model while another one is idle, or beyond the request's own deadline."""
    run = walk((A, [Busy("full", retry_after=wait)]), (B, good("other")))
    run.again(deadline=run.clock.monotonic() + left)
    assert text(await run.run()) == "other"
    assert run.waits == [0.0]


async def test_no_attempt_begins_after_the_deadline() -> None:
    """The client no longer waits; its retry would pay for both."""
    run = walk((A, [lambda: run.clock.advance(10), Refused("no")]), (B, good()))
    run.again(deadline=run.clock.monotonic() + 10)
    assert isinstance(await run.fails(), UpstreamFailed)
    assert run.tried == ["gpu/a"]


async def test_retries_are_a_small_share_of_all_requests() -> None:
    """When everything fails, trying everything twice would double the load on what is already down."""
    run = walk((A, [Broken("reset")]), (B, good("other")))
    retried = []
    for _ in range(60):
        run.again()
        run.health.reset("gpu")  # who is known to be sick is not tried again at all
        assert text(await run.run()) == "other", "moving on is always possible"
        retried.append(run.tried.count("gpu/a") == 2)
    assert all(retried[:10])
    assert sum(retried[-20:]) == 4, "a fifth of them"


async def test_a_retry_that_does_not_fit_costs_no_budget() -> None:
    run = walk((A, [Busy("full", retry_after=60.0)]), (B, good("other")))
    for _ in range(20):
        run.again()
        await run.run()
    run.health.reset("gpu")
    run.candidates[A.id] = (A, Script([Broken("reset")]))
    run.again()
    await run.run()
    assert run.tried == ["gpu/a", "gpu/a", "gpu/b"]


# --- commitment -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [*NEXT, *SAME, *NEVER], ids=lambda error: type(error).__name__)
async def test_after_content_a_failure_ends_the_answer(error: GatewayError) -> None:
    """Never another model's words spliced in silently; the client sees that the answer broke."""
    run = walk((A, [start(), Text("hel"), error]), (B, good("other")))
    events = await run.run()
    assert events == [start(), Text("hel"), Fault(error)]
    assert (run.tried, run.script(B).opened) == (["gpu/a"], 0)
    assert run.outcomes != ["ok"]
    run.is_accounted_for()


async def test_nothing_but_a_start_is_no_answer() -> None:
    """It would be an empty reply with status 200."""
    run = walk((A, Script([start()], good("second try"))))
    assert text(await run.run()) == "second try"
    assert run.outcomes == ["incomplete", "ok"]
    run.is_accounted_for()


async def test_an_upstream_that_says_nothing_at_all_has_failed() -> None:
    run = walk((A, []), (B, []), max_attempts=4)
    error = await run.fails()
    assert (type(error), run.outcomes) == (UpstreamStumbled, ["incomplete"] * 4)


@pytest.mark.parametrize("frames", [1, HELD_MAX])
async def test_early_frames_are_held_back_and_then_sent_in_order(frames: int) -> None:
    """Role-only frames before an error inside a 200 must not commit; before content they belong to the answer."""
    begin: list[Step] = [start(f"m{number}") for number in range(frames)]
    run = walk((A, [*begin, Text("x"), Finish("stop")]))
    assert await run.run() == [*begin, Text("x"), Finish("stop")]


async def test_the_held_back_frames_of_a_failed_attempt_are_never_seen() -> None:
    run = walk((A, [start("a"), start("a"), Refused("error inside a 200")]), (B, [start("b"), Text("x")]))
    assert await run.run() == [start("b"), Text("x")]


async def test_frames_without_end_are_not_held_without_end() -> None:
    """An upstream that only sends keep-alives must not fill the memory."""
    endless: list[Step] = [start()] * (HELD_MAX + 50)
    run = walk((A, [*endless, None]), (B, good("other")))
    assert text(await run.run()) == "other"
    assert run.outcomes == ["bad_reply", "ok"]
    run.is_accounted_for()


async def test_large_frames_are_not_held_without_end_either() -> None:
    large: list[Step] = [replace(start(), raw=b"x" * (HELD_BYTES_MAX // 4)) for _ in range(5)]
    run = walk((A, [*large[:4], Text("x"), Finish("stop")]), (B, good("other")))
    assert text(await run.run()) == "x"
    run = walk((A, [*large, Text("x"), Finish("stop")]), (B, good("other")))
    assert text(await run.run()) == "other"
    assert run.outcomes == ["bad_reply", "ok"]


async def test_a_finish_alone_is_an_answer() -> None:
    """A model may have nothing to say."""
    run = walk((A, [start(), Finish("stop")]))
    assert await run.run() == [start(), Finish("stop")]


# --- callers that leave, and faults of ours -------------------------------------------------------------------------

LONG: list[Step] = [start(), Text("a"), Text("b"), Text("c"), Finish("stop")]


@pytest.mark.parametrize("turns", range(12))
async def test_a_caller_that_leaves_closes_the_upstream_wherever_it_is(turns: int) -> None:
    """A model that goes on for nobody burns money. Left by cancellation, at every await point of the way."""
    run = walk((A, [Refused("no")]), (B, LONG))
    task = asyncio.ensure_future(run.run())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    run.is_accounted_for()
    if task.cancelled() and run.script(B).opened:
        assert run.outcomes[-1] == "left"
        assert run.exchange.attempts[-1].blame == "caller"
    assert "failed" not in str(run.health.demoted(B))


@pytest.mark.parametrize("taken", [1, 2, 3, 4])
async def test_a_caller_that_takes_no_more_closes_the_upstream(taken: int) -> None:
    """Left by closing, at every yield."""
    run = walk((A, LONG), (B, good()))
    items = run.items()
    for _ in range(taken):
        await anext(items)
    await items.aclose()
    assert run.outcomes == ["left"]
    assert run.script(B).opened == 0
    run.is_accounted_for()


async def test_a_caller_that_leaves_at_the_fault_changes_nothing() -> None:
    run = walk((A, [start(), Text("a"), Broken("reset")]))
    items = run.items()
    events = [await anext(items) for _ in range(3)]
    await items.aclose()
    assert isinstance(events[-1], Fault)
    assert run.outcomes == ["broken"]
    run.is_accounted_for()


@pytest.mark.parametrize("content", [False, True])
async def test_a_fault_of_ours_is_neither_hidden_nor_the_upstreams(content: bool) -> None:
    """A programming error must be seen, and must not take a healthy model out of the plan."""
    steps: list[Step] = [start(), Text("a")] if content else [start()]
    run = walk((A, [*steps, KeyError("ours")]), (B, good()))
    with pytest.raises(KeyError):
        await run.run()
    assert (run.outcomes, run.exchange.attempts[0].blame) == (["internal_error"], "us")
    assert run.health.demoted(A) is None
    run.is_accounted_for()


# --- one request, several walks -------------------------------------------------------------------------------------


async def test_all_walks_of_a_request_together_make_no_more_than_the_most_attempts() -> None:
    """An operator who allows one attempt would pay for four of them."""
    run = walk((A, [start(), ContextLengthExceeded("too long")]), (B, [ContextLengthExceeded("too long")]))
    for _ in range(4):
        assert type(await run.fails()) is ContextLengthExceeded
    assert len(run.tried) == 3 and len(run.entered) == 3
    run.is_accounted_for()


async def test_a_request_earns_its_share_of_retries_once_however_often_it_is_walked() -> None:
    """Else outages were fed with retries by those who ask for the longest answers."""
    run = walk((A, [ContextLengthExceeded("too long")]))
    run.attempts._budget._tokens = 0.0
    for _ in range(3):
        await run.fails()
    assert run.attempts._budget._tokens == pytest.approx(0.2)
