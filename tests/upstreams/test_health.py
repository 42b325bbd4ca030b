"""What an attempt's outcome means for a model's health: the caller's mistakes must never take a model from others."""

from __future__ import annotations

import asyncio

import pytest

from app.core.card import Ability, Card
from app.core.clock import ManualClock
from app.core.errors import (
    AccountFault,
    BadReply,
    Broken,
    ClientGone,
    GatewayError,
    Incomplete,
    InternalError,
    Refused,
    Rejected,
    ServerFault,
    Throttled,
    TimedOut,
)
from app.upstreams.breaker import BreakerSettings, State
from app.upstreams.health import THROTTLE_MAX, THROTTLE_SECONDS, Health, ModelHealth

Change = tuple[str, str, State]


def card(name: str, upstream: str = "gpu") -> Card:
    return Card(f"{upstream}/{name}", name, upstream, "vllm", True, frozenset({Ability.CHAT}))


A, B, OTHER = card("a"), card("org/b"), card("a", "gpu2")


class Setup:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.changes: list[Change] = []
        settings = {"gpu": BreakerSettings(failures=2, open=10.0, successes=1)}
        self.health = Health(settings, self.clock, lambda *change: self.changes.append(change))


@pytest.fixture
def setup() -> Setup:
    return Setup()


@pytest.mark.parametrize(
    "error",
    [
        ServerFault("x"),
        Broken("x"),
        BadReply("x"),
        Incomplete("x"),
        AccountFault("x"),
        TimedOut("x", phase="idle"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_upstreams_fault_counts(setup: Setup, error: GatewayError) -> None:
    setup.health.ended(A, error)
    assert setup.health.demoted(A) is None
    setup.health.ended(A, error)
    assert setup.health.demoted(A) == "failing lately"
    assert setup.health.state(A) is State.OPEN


def test_new_settings_count_for_what_is_known_already(setup: Setup) -> None:
    for one in (A, OTHER):
        setup.health.ended(one, ServerFault("x"))
    setup.health.ended(OTHER, Refused("x"))
    setup.health.configure({"gpu": BreakerSettings(failures=3), "gpu2": BreakerSettings(open=1.0)})
    setup.health.ended(A, ServerFault("x"))
    assert setup.health.demoted(A) is None
    setup.health.ended(A, ServerFault("x"))
    assert setup.health.demoted(A) == "failing lately"
    setup.clock.advance(1_000)
    setup.health.configure({})
    assert setup.health.refuses("gpu2"), "its door is known as well"


@pytest.mark.parametrize(
    "error",
    [Rejected("x"), ClientGone("x"), InternalError("x"), asyncio.CancelledError(), RuntimeError()],
    ids=lambda error: type(error).__name__,
)
def test_what_is_not_the_upstreams_fault_does_not_count(setup: Setup, error: BaseException) -> None:
    for _ in range(20):
        setup.health.ended(A, error)
    assert setup.health.demoted(A) is None
    assert setup.changes == []


def test_a_refused_connection_demotes_all_models_there(setup: Setup) -> None:
    """Nothing listens, whatever model is asked for; another upstream with a similar name is not concerned."""
    for one in (A, B, OTHER):
        setup.health.ended(one, None)
    setup.health.ended(A, Refused("x"))
    assert setup.health.demoted(A) and setup.health.demoted(B)
    assert setup.health.demoted(OTHER) is None
    assert sorted(setup.changes) == [("gpu", "a", State.OPEN), ("gpu", "org/b", State.OPEN)]


def test_a_refused_connection_demotes_models_that_were_never_called(setup: Setup) -> None:
    """Else each model of a dead server would cost somebody a failed try of its own."""
    setup.health.ended(A, Refused("x"))
    assert setup.health.demoted(B) == "failing lately" and setup.health.refuses("gpu")
    assert not setup.health.refuses("gpu2")


def test_one_request_finds_out_for_all_models_whether_a_server_is_back(setup: Setup) -> None:
    health = setup.health
    health.ended(A, Refused("x"))
    setup.clock.advance(10.0)
    assert health.demoted(A) is None and health.demoted(B) is None
    health.started(B)
    assert health.demoted(A) == "failing lately", "one at a time"
    health.ended(B, ServerFault("x"))
    assert health.demoted(A) is None and not health.refuses("gpu"), "it answers again, if not well"
    told = [state for _, model, state in setup.changes if model == "a"]
    assert told == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_what_was_under_way_when_a_server_died_says_nothing_of_the_way_there(setup: Setup) -> None:
    """All that break with it would else count as proof that it can be reached."""
    setup.health.ended(A, Refused("x"))
    for error in (Broken("x"), ClientGone("x"), Throttled("x")):
        setup.health.ended(B, error)
    assert setup.health.refuses("gpu")
    setup.health.ended(B, None)
    assert not setup.health.refuses("gpu")


def test_who_sleeps_waits_behind_the_others() -> None:
    """A sleeping server lets requests wait for ever."""
    asleep = {"gpu"}
    health = Health({}, ManualClock(), lambda *change: None, awake=lambda name: name not in asleep)
    assert health.demoted(A) == "asleep or away" and health.demoted(OTHER) is None
    asleep.clear()
    assert health.demoted(A) is None


def test_a_throttle_is_a_wait_and_no_failure(setup: Setup) -> None:
    for _ in range(20):
        setup.health.ended(A, Throttled("x", retry_after=30.0))
    assert setup.health.state(A) is State.CLOSED
    assert setup.health.demoted(A) == "throttled"
    assert setup.health.throttled_seconds(A) == 30.0
    setup.clock.advance(30.0)
    assert setup.health.demoted(A) is None
    assert setup.health.throttled_seconds(A) == 0.0


@pytest.mark.parametrize(("said", "waited"), [(None, THROTTLE_SECONDS), (0.0, THROTTLE_SECONDS), (1e300, THROTTLE_MAX)])
def test_a_throttle_without_a_usable_wait_is_bounded(setup: Setup, said: float | None, waited: float) -> None:
    """An upstream must not take itself out of use for a year by one odd header."""
    setup.health.ended(A, Throttled("x", retry_after=said))
    assert setup.health.throttled_seconds(A) == waited


def test_a_model_never_called_is_healthy(setup: Setup) -> None:
    assert setup.health.demoted(A) is None
    assert setup.health.state(A) is State.CLOSED
    assert setup.health.throttled_seconds(A) == 0.0


def test_every_change_of_state_is_told_once(setup: Setup) -> None:
    """The gauge on the dashboard shows what is, not what was."""
    health = setup.health
    health.started(A)
    health.ended(A, None)
    health.ended(A, Refused("x"))
    health.ended(A, Refused("x"))
    setup.clock.advance(10.0)
    health.started(A)
    assert health.demoted(A) == "failing lately"  # one probe at a time
    health.ended(A, None)
    assert setup.changes == [("gpu", "a", state) for state in (State.OPEN, State.HALF_OPEN, State.CLOSED)]


def test_an_upstream_without_settings_of_its_own_has_the_defaults(setup: Setup) -> None:
    for _ in range(4):
        setup.health.ended(OTHER, ServerFault("x"))
    assert setup.health.demoted(OTHER) is None
    setup.health.ended(OTHER, ServerFault("x"))
    assert setup.health.demoted(OTHER) == "failing lately"


def test_an_upstream_that_is_drained_waits_behind_the_others(setup: Setup) -> None:
    setup.health.drained = frozenset({"gpu"})
    assert setup.health.demoted(A) == setup.health.demoted(B) == "drained by an operator"
    assert setup.health.demoted(OTHER) is None
    setup.health.drained = frozenset()
    assert setup.health.demoted(A) is None


def test_a_snapshot_shows_the_models_of_one_upstream(setup: Setup) -> None:
    health = setup.health
    assert health.snapshot("gpu") == ()
    health.ended(A, Refused("x"))
    health.ended(B, Throttled("x", retry_after=7.0))
    health.ended(OTHER, None)
    setup.clock.advance(4.0)
    assert health.snapshot("gpu") == (
        ModelHealth("gpu/a", State.OPEN, 6.0, 0.0),
        ModelHealth("gpu/org/b", State.OPEN, 6.0, 3.0),
    )


def test_a_reset_forgets_failures_and_throttles_of_one_upstream(setup: Setup) -> None:
    """An operator who has repaired a server need not wait for the breaker to find out."""
    health = setup.health
    for one in (A, OTHER):
        health.ended(one, None)
        health.ended(one, Refused("x"))
    health.ended(B, Throttled("x", retry_after=70.0))
    health.reset("gpu")
    assert health.demoted(A) is None and health.demoted(B) is None
    assert health.demoted(OTHER) == "failing lately"
    assert set(setup.changes[-2:]) == {("gpu", model, State.CLOSED) for model in ("a", "org/b")}


def test_calls_in_flight_are_counted_until_they_end(setup: Setup) -> None:
    health = setup.health
    for _ in range(3):
        health.started(A)
    health.started(OTHER)
    health.ended(A, None)
    health.ended(A, ClientGone("x"))
    assert (health.traffic.in_flight("gpu"), health.traffic.in_flight("gpu2")) == (1, 1)


def test_the_next_gateway_knows_what_this_one_knows(setup: Setup) -> None:
    """A reload must not send requests to a server that is known to be down, nor keep what is about another one."""
    for one in (A, OTHER):
        setup.health.ended(one, Refused("x"))
    later = Health({}, setup.clock, lambda *change: None)
    later.inherit(setup.health, {"gpu"})
    assert later.demoted(A) and later.refuses("gpu") and later.demoted(OTHER) is None
    later.reset("gpu")
    assert setup.health.demoted(A) is None or setup.health.refuses("gpu"), "they share the breakers of models"
