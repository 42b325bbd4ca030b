"""A breaker that sticks open takes a healthy model away; one that never opens lets requests wait for the dead."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.upstreams.breaker import PROBE_SECONDS, Breaker, BreakerSettings, State

SETTINGS = BreakerSettings()
START = 1_000.0


def opened(settings: BreakerSettings = SETTINGS, now: float = START) -> Breaker:
    breaker = Breaker(settings)
    breaker.failed(now, refused=True)
    return breaker


def test_a_new_breaker_is_closed() -> None:
    breaker = Breaker(SETTINGS)
    assert breaker.state(0.0) is State.CLOSED
    assert breaker.admits(0.0)


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker(SETTINGS)
    for _ in range(SETTINGS.failures - 1):
        breaker.failed(START)
        assert breaker.state(START) is State.CLOSED
    breaker.failed(START)
    assert breaker.state(START) is State.OPEN
    assert not breaker.admits(START)


def test_it_can_be_told_otherwise_while_it_runs() -> None:
    """An operator who wants a failing server left alone sooner need not restart anything; what was seen counts on."""
    breaker = Breaker(SETTINGS)
    breaker.failed(START)
    breaker.configure(BreakerSettings(failures=2, open=3.0))
    breaker.failed(START)
    assert breaker.open_seconds(START) == 3.0
    breaker.configure(BreakerSettings(failures=2, open=60.0))
    assert breaker.open_seconds(START) == 3.0, "what was said stands"


def test_a_success_between_failures_starts_the_count_again() -> None:
    breaker = Breaker(SETTINGS)
    for _ in range(SETTINGS.failures - 1):
        breaker.failed(START)
    breaker.succeeded(START)
    breaker.failed(START)
    assert breaker.state(START) is State.CLOSED


def alternate(breaker: Breaker, calls: int, step: float) -> float:
    now = START
    for call in range(calls):
        now += step
        (breaker.failed if call % 2 else breaker.succeeded)(now)
    return now


def test_half_of_ten_calls_failing_opens_it() -> None:
    """A server that fails every other time is worth avoiding though it never fails five times in a row."""
    breaker = Breaker(SETTINGS)
    assert breaker.state(alternate(breaker, 9, 1.0)) is State.CLOSED
    breaker = Breaker(SETTINGS)
    assert breaker.state(alternate(breaker, 10, 1.0)) is State.OPEN


def test_calls_outside_the_window_are_forgotten() -> None:
    breaker = Breaker(SETTINGS)
    assert breaker.state(alternate(breaker, 40, SETTINGS.window / 5)) is State.CLOSED


def test_a_refused_connection_opens_at_once() -> None:
    assert opened().state(START) is State.OPEN


def test_it_becomes_half_open_when_its_time_is_over() -> None:
    breaker = opened()
    assert breaker.state(START + SETTINGS.open - 0.001) is State.OPEN
    assert breaker.state(START + SETTINGS.open) is State.HALF_OPEN


def test_half_open_lets_one_probe_through_at_a_time() -> None:
    breaker, now = opened(), START + SETTINGS.open
    assert breaker.admits(now)
    breaker.started(now)
    assert not breaker.admits(now)
    breaker.succeeded(now)
    assert breaker.admits(now)


def test_a_probe_that_never_came_back_does_not_block_for_ever() -> None:
    breaker, now = opened(), START + SETTINGS.open
    breaker.started(now)
    assert not breaker.admits(now + PROBE_SECONDS - 0.001)
    assert breaker.admits(now + PROBE_SECONDS)


def test_an_abandoned_probe_lets_the_next_one_through() -> None:
    breaker, now = opened(), START + SETTINGS.open
    breaker.started(now)
    breaker.abandoned(now)
    assert breaker.state(now) is State.HALF_OPEN
    assert breaker.admits(now)


def test_successes_in_a_row_close_it() -> None:
    breaker, now = opened(), START + SETTINGS.open
    breaker.succeeded(now)
    assert breaker.state(now) is State.HALF_OPEN
    breaker.succeeded(now)
    assert breaker.state(now) is State.CLOSED


def test_a_failed_probe_doubles_the_wait_up_to_its_limit() -> None:
    breaker, now, waits = opened(), START, []
    for _ in range(7):
        wait = next(wait for wait in (10, 20, 40, 80, 160, 300) if breaker.state(now + wait) is State.HALF_OPEN)
        waits.append(wait)
        now += wait
        breaker.started(now)
        breaker.failed(now)
    assert waits == [10, 20, 40, 80, 160, 300, 300]


def test_the_wait_is_short_again_after_it_has_closed() -> None:
    breaker, now = opened(), START + SETTINGS.open
    breaker.failed(now)
    now += 2 * SETTINGS.open
    breaker.succeeded(now)
    breaker.succeeded(now)
    breaker.failed(now, refused=True)
    assert breaker.state(now + SETTINGS.open) is State.HALF_OPEN


def test_answers_while_open_count_too() -> None:
    """The last candidate is tried though it is open; when it answers well again, it need not wait."""
    breaker = opened()
    breaker.succeeded(START + 1)
    breaker.succeeded(START + 1)
    assert breaker.state(START + 1) is State.CLOSED


def test_failures_while_open_do_not_prolong_it() -> None:
    breaker = opened()
    breaker.failed(START + 1, refused=True)
    assert breaker.state(START + SETTINGS.open) is State.HALF_OPEN


def test_a_reset_forgets_all_but_the_throttle() -> None:
    breaker = opened()
    breaker.throttled(START + 99)
    breaker.reset()
    assert breaker.state(START) is State.CLOSED
    assert breaker.throttled_until == START + 99


def test_a_throttle_is_never_shortened() -> None:
    breaker = Breaker(SETTINGS)
    breaker.throttled(START + 60)
    breaker.throttled(START + 5)
    assert breaker.throttled_until == START + 60


def test_a_window_of_nothing_breaks_nothing() -> None:
    breaker = Breaker(BreakerSettings(window=0.0))
    breaker.failed(START)
    breaker.succeeded(START)
    assert breaker.state(START) is State.CLOSED


class BreakerMachine(RuleBasedStateMachine):
    """Whatever calls come and go in whatever order, with any settings."""

    @initialize(
        failures=st.integers(1, 6),
        rate=st.sampled_from([0.1, 0.5, 1.0]),
        open_=st.sampled_from([1.0, 10.0]),
        successes=st.integers(1, 3),
    )
    def configure(self, failures: int, rate: float, open_: float, successes: int) -> None:
        self.settings = BreakerSettings(failures, 30.0, rate, open_, 60.0, successes)
        self.breaker, self.now, self.in_row = Breaker(self.settings), START, 0

    @rule(seconds=st.sampled_from([0.0, 0.5, 9.0, 10.0, 31.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def start(self) -> None:
        half_open = self.breaker.state(self.now) is State.HALF_OPEN
        self.breaker.started(self.now)
        assert not (half_open and self.breaker.admits(self.now)), "a second probe would be let through"

    @rule()
    def succeed(self) -> None:
        self.breaker.succeeded(self.now)
        self.in_row += 1

    @rule(refused=st.booleans())
    def fail(self, refused: bool) -> None:
        before = self.breaker.state(self.now)
        self.breaker.failed(self.now, refused=refused)
        self.in_row = 0
        if before is State.HALF_OPEN or refused:
            assert self.breaker.state(self.now) is State.OPEN

    @rule()
    def abandon(self) -> None:
        before = self.breaker.state(self.now)
        self.breaker.abandoned(self.now)
        assert self.breaker.state(self.now) is before

    @precondition(lambda self: self.in_row >= self.settings.successes)
    @rule()
    def succeeding_is_healthy(self) -> None:
        assert self.breaker.state(self.now) is State.CLOSED

    @invariant()
    def never_stuck(self) -> None:
        later = self.now + max(self.settings.max_open, PROBE_SECONDS)
        assert self.breaker.state(later) is not State.OPEN
        assert self.breaker.admits(later)


BreakerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyHistory = BreakerMachine.TestCase


@given(st.lists(st.booleans(), max_size=200))
def test_the_count_in_the_window_is_exact(outcomes: list[bool]) -> None:
    """Were it to drift, the breaker would open for nothing, or never again."""
    breaker, now = Breaker(BreakerSettings(failures=10_000, rate=0.5, window=10.0)), START
    history: list[tuple[float, bool]] = []
    for failed in outcomes:
        now += 0.7
        (breaker.failed if failed else breaker.succeeded)(now)
        history = [(when, bad) for when, bad in [*history, (now, failed)] if when > now - 10.0]
        bad = sum(bad for _, bad in history)
        expected = failed and len(history) >= SETTINGS.least_calls and bad >= 0.5 * len(history)
        assert (breaker.state(now) is State.OPEN) == expected
        if expected:
            break


def test_states_have_stable_names() -> None:
    """Dashboards and the admin API show them."""
    assert [state.value for state in State] == ["closed", "half_open", "open"]


def test_it_says_how_long_it_stays_open() -> None:
    breaker = opened()
    assert breaker.open_seconds(START + 4) == SETTINGS.open - 4
    assert breaker.open_seconds(START + 40) == 0.0
    assert Breaker(SETTINGS).open_seconds(START) == 0.0
