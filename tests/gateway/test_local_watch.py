"""Paid models are used in an emergency only if an emergency is noticed, and not a request longer than it lasts."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.clock import ManualClock
from app.core.errors import GatewayError, Refused, Rejected, ServerFault
from app.core.plan import Candidate, Plan
from app.core.record import Attempt, Record
from app.gateway.local_watch import LATELY, STALE_QUALITY_SECONDS, STALE_SECONDS, LocalWatch
from app.routing.emergency import FAILURES, GONE, QUALITY, SLOW
from tests.core.nouns import card, paid

OK = ("ok", None)
SICK = ("server", "upstream")
LEFT = ("left", "caller")


def record(*attempts: tuple[str, str, str | None], **fields: Any) -> Record:
    """A finished request; of each attempt its upstream, its outcome and whose fault that was."""
    known: dict[str, Any] = {"endpoint": "chat", "stream": True, **fields}
    tried = tuple(Attempt(f"{upstream}/m", upstream, outcome, blame, 1.0) for upstream, outcome, blame in attempts)
    return Record("r", None, "r", 0, model_requested="auto", status=200, started_at=0.0, seconds=1.0,
                  overhead_seconds=0.0, attempts=tried, **known)  # fmt: skip


class Case:
    """A watch over `gpu`, which is local, and `claude`, which is not."""

    def __init__(self) -> None:
        self.quality: float | None = None
        self.reachable = True
        self.clock = ManualClock()
        self.watch = LocalWatch(lambda name: name == "gpu", lambda: self.quality, lambda: self.reachable, self.clock)

    def see(self, *outcomes: tuple[str, str | None], upstream: str = "gpu", **fields: Any) -> str | None:
        """Each as a request of its own."""
        for outcome in outcomes:
            self.watch.observe(record((upstream, *outcome), **fields))
        return self.watch.trigger()

    def wait(self, *seconds: float, **fields: Any) -> str | None:
        for each in seconds:
            self.watch.observe(record(("gpu", *OK), **{"local": True, "first_token_seconds": each, **fields}))
        return self.watch.trigger()


def test_nothing_seen_is_no_emergency() -> None:
    assert Case().watch.trigger() is None


@pytest.mark.parametrize(
    ("outcomes", "trigger"),
    [
        ([SICK, SICK], None),
        ([SICK, SICK, SICK], FAILURES),
        ([SICK, SICK, OK, SICK], None),
        ([SICK, SICK, LEFT, SICK], FAILURES),
        ([SICK, SICK, SICK, OK], None),
        ([LEFT, LEFT, LEFT], None),
    ],
)
def test_three_local_failures_in_a_row_are_one(outcomes: list[tuple[str, str | None]], trigger: str | None) -> None:
    """A client that left says nothing either way; one answer ends it."""
    assert Case().see(*outcomes) == trigger


def test_failures_within_one_request_count_each() -> None:
    case = Case()
    case.watch.observe(record(("gpu", *SICK), ("gpu", *SICK), ("claude", *OK)))
    assert case.watch.trigger() is None
    case.watch.observe(record(("gpu", *SICK), ("claude", *OK)))
    assert case.watch.trigger() == FAILURES


def test_what_paid_upstreams_do_is_nothing_to_it() -> None:
    case = Case()
    assert case.see(SICK, SICK, SICK, upstream="claude") is None
    assert case.see(SICK, SICK, SICK) == FAILURES
    assert case.see(OK, upstream="claude") == FAILURES


def test_an_embedding_that_went_well_does_not_hide_failing_chats() -> None:
    """The built-in embedder never fails, and a client that embeds between its chats would end every emergency."""
    case = Case()
    case.see(SICK, SICK)
    case.see(OK, endpoint="embeddings")
    assert case.see(SICK) == FAILURES


def test_late_first_tokens_are_one_once_they_are_usual() -> None:
    case = Case()
    assert case.wait(*[30.0] * (LATELY - 1)) is None
    assert case.wait(30.0) == SLOW
    assert case.wait(*[1.0] * LATELY) is None


def test_late_first_tokens_are_forgotten() -> None:
    """While paid models go first, no local one can show that it has become faster: the emergency would never end."""
    case = Case()
    assert case.wait(*[30.0] * LATELY) == SLOW
    case.clock.advance(STALE_SECONDS + 1)
    assert case.watch.trigger() is None


def test_one_cold_start_is_none() -> None:
    assert Case().wait(1.0, 1.0, 120.0, 1.0, 1.0) is None


@pytest.mark.parametrize(
    "fields", [{"stream": False}, {"local": False}, {"first_token_seconds": None}, {"endpoint": "embeddings"}]
)
def test_only_local_streams_show_how_soon_they_began(fields: dict[str, Any]) -> None:
    """A whole JSON reply takes as long as it is long."""
    assert Case().wait(*[30.0] * LATELY, **fields) is None


def test_what_a_fallback_took_is_not_the_local_models_time() -> None:
    case = Case()
    for _ in range(LATELY):
        case.watch.observe(record(("claude", *LEFT), ("gpu", *OK), local=True, first_token_seconds=30.0))
    assert case.watch.trigger() is None


@pytest.mark.parametrize(("quality", "trigger"), [(None, None), (0.95, None), (0.9, None), (0.89, QUALITY)])
def test_answers_below_nine_tenths_of_the_baseline_are_one(quality: float | None, trigger: str | None) -> None:
    case = Case()
    case.quality = quality
    assert case.watch.trigger() == trigger


def test_when_no_local_upstream_answers_it_is_one_at_once() -> None:
    case = Case()
    case.reachable = False
    assert case.watch.trigger() == GONE
    case.reachable = True
    assert case.watch.trigger() is None


def test_a_quality_that_nothing_moves_is_forgotten() -> None:
    """While local models are passed over for their quality none can show a better one: the emergency would never end.
    One more bad answer, and it goes on."""
    case = Case()
    case.quality = 0.5
    assert case.watch.trigger() == QUALITY
    case.clock.advance(STALE_QUALITY_SECONDS)
    assert case.watch.trigger() == QUALITY
    case.clock.advance(1)
    assert case.watch.trigger() is None
    case.quality = 0.49
    assert case.watch.trigger() == QUALITY


FIRST, OTHER, CLOUD = (Candidate(each, "") for each in (card("gpu/a"), card("gpu/b"), paid("claude/c")))


@pytest.mark.parametrize(
    ("before", "failures", "trigger"),
    [
        (0, [(FIRST, Refused("no"))], GONE),
        (0, [(FIRST, ServerFault("500"))], None),
        (2, [(FIRST, ServerFault("500"))], FAILURES),
        (1, [(FIRST, ServerFault("500")), (OTHER, ServerFault("500"))], FAILURES),
        (2, [(FIRST, Rejected("wrong"))], None),
        (2, [(CLOUD, ServerFault("500"))], None),
    ],
)
def test_a_request_under_way_counts_what_it_met_itself(
    before: int, failures: list[tuple[Candidate, GatewayError]], trigger: str | None
) -> None:
    """Its record comes when it is over, too late to help it."""
    case = Case()
    case.see(*[SICK] * before)
    assert case.watch.trigger_after(Plan((FIRST, OTHER), "cost"), failures) == trigger
