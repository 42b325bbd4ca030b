"""Whose turn it is: money moves a request on to the next, and comes back to those it kept out only at last."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.core.errors import (
    BudgetExceeded,
    BudgetStoreUnavailable,
    ContextLengthExceeded,
    GatewayError,
    RateLimited,
    Refused,
    ServerFault,
    Unbounded,
    UnsupportedParameter,
    UpstreamFailed,
)
from app.core.money import Price
from app.core.plan import Candidate
from app.gateway.turns import Turns
from tests.core.nouns import card, paid
from tests.gateway.fakes import good
from tests.gateway.walks import Walk, text, walk

A, B, FREE_ONE = paid("claude/a"), paid("openai/b"), card("gpu/c")
POOR = BudgetExceeded("no room")
AWAY = BudgetStoreUnavailable("away")


def run_of(**denials: list[GatewayError | None]) -> Walk:
    """All three answer well; `a`, `b` and `c` are what keeps the request from them."""
    run = walk((A, good("a")), (B, good("b")), (FREE_ONE, good("c")))
    run.denials = {each.id: denials[each.name] for each in (A, B, FREE_ONE) if each.name in denials}
    return run


@pytest.mark.parametrize("error", [POOR, UnsupportedParameter("n"), Unbounded("an image")])
async def test_who_may_not_have_a_request_is_passed_over(error: GatewayError) -> None:
    """It is no attempt: nobody waits, nobody's health suffers, and the next answers."""
    run = run_of(a=[error])
    assert text(await run.run()) == "b"
    assert run.tried == ["openai/b"] and run.health.begun == ["openai/b"] and run.waits == []
    run.is_accounted_for()


async def test_who_waited_once_for_the_store_is_not_made_to_wait_again() -> None:
    """It does not answer, and every paid model would ask it; the free ones need not."""
    run = run_of(a=[POOR], b=[AWAY])
    assert text(await run.run()) == "c"
    priced = [replace(each, price=Price(1, 1, 1, 1, 1)) for each in (A, B)]
    run = walk((priced[0], good("a")), (priced[1], good("b")))
    run.denials = {A.id: [AWAY]}
    assert await run.fails() is AWAY
    assert run.entered == [("claude/a", False)]


async def test_nobody_is_asked_for_less_before_all_were_asked_for_all() -> None:
    """A whole answer of a free model is worth more than a short one of the best."""
    run = run_of(a=[POOR], b=[POOR])
    assert text(await run.run()) == "c"
    assert run.entered == [("claude/a", False), ("openai/b", False), ("gpu/c", False)]


async def test_whom_money_kept_out_is_asked_for_less_at_last() -> None:
    run = run_of(a=[POOR, None], b=[POOR], c=[UnsupportedParameter("n")])
    assert text(await run.run()) == "a"
    assert run.entered[3:] == [("claude/a", True)]


async def test_the_only_one_is_asked_once() -> None:
    """A budget that is used up must not cost the store twice the calls."""
    run = walk((A, good()))
    run.denials = {"claude/a": [POOR]}
    assert await run.fails() is POOR
    assert run.entered == [("claude/a", True)]


async def test_what_less_would_not_change_is_not_asked_again() -> None:
    error = UnsupportedParameter("n")
    run = run_of(a=[error], b=[error], c=[error])
    assert await run.fails() is error
    assert [id for id, _ in run.entered] == ["claude/a", "openai/b", "gpu/c"]
    assert run.exchange.attempts == [] and run.health.begun == []


async def test_the_first_denial_is_what_the_caller_is_told() -> None:
    """It is the best model's."""
    run = run_of(a=[POOR], b=[AWAY], c=[AWAY])
    assert await run.fails() is POOR


async def test_a_limit_on_the_caller_is_told_at_once() -> None:
    """No other model would change it."""
    error = RateLimited("too often")
    run = run_of(a=[error])
    assert await run.fails() is error
    assert run.entered == [("claude/a", False)]


async def test_after_a_failure_those_that_money_kept_out_are_asked_again() -> None:
    """The free one is dead; a short answer of the paid one is better than none."""
    run = walk((A, good("a")), (FREE_ONE, [Refused("no")]))
    run.denials = {"claude/a": [POOR, None]}
    assert text(await run.run()) == "a"
    assert run.tried == ["gpu/c", "claude/a"]
    run.is_accounted_for()


async def test_who_is_kept_out_takes_no_try_from_the_others() -> None:
    """The free one stumbles, and answers the second time."""
    run = walk((A, good("a")), (B, good("b")), (FREE_ONE, [ServerFault("500")]))
    run.candidates["gpu/c"] = (FREE_ONE, type(run.script(FREE_ONE))([ServerFault("500")], good("c")))
    run.denials = {"claude/a": [POOR], "openai/b": [POOR]}
    assert text(await run.run()) == "c"
    assert run.tried == ["gpu/c", "gpu/c"]


async def test_where_somebody_was_tried_the_caller_is_told_of_that() -> None:
    """And not that every model failed: some were not asked."""
    run = walk((A, good("a")), (FREE_ONE, [Refused("no")]))
    run.denials = {"claude/a": [POOR]}
    error = await run.fails()
    assert isinstance(error, UpstreamFailed)
    assert "The models that were tried failed" in error.message and "gpu/c: refused" in error.message


async def test_a_window_that_was_too_small_counts_for_those_kept_out_too() -> None:
    small, large = paid("claude/small", context_window=8_000), paid("claude/large", context_window=200_000)
    run = walk(
        (small, good()), (large, good("large")), (card("gpu/c", context_window=8_000), [ContextLengthExceeded("long")])
    )
    run.denials = {"claude/small": [POOR, None], "claude/large": [POOR, None]}
    assert text(await run.run()) == "large"
    assert run.tried == ["gpu/c", "claude/large"]


async def test_there_is_a_turn_for_whoever_is_added() -> None:
    turns = Turns([Candidate(A, "")], 3, lambda candidate: True, lambda: True)

    async def enter(candidate: Candidate, at_last: bool) -> None:
        assert not at_last or candidate.card in (A, B)

    first = await turns.next(enter)
    turns.failed(first, Refused("no"))
    turns.add([Candidate(B, "emergency")])
    assert turns.wait(10.0) == 0.0
    turns.reorder()
    assert (await turns.next(enter)).card is B
    assert turns.tries_left == 2
