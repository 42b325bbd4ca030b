"""Flags give every caller a steady answer, and overrides count in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from app.config.features import FEATURES
from app.config.load import load
from app.config.schema import Overrides
from app.config.settings import FlagSettings
from app.core.caller import Caller
from app.flags import Flags, is_in_share

SHARES = st.floats(0, 1)
CALLER = Caller(key_id="k1", name="ci", tenant="acme")


def flags(
    overrides: Mapping[str, Any], shares: Mapping[str, float] | None = None, fixed: frozenset[str] = frozenset()
) -> Flags:
    return Flags(shares or {"STREAMING": 1.0}, fixed, Overrides.model_validate(overrides))


def test_flags_start_as_documented() -> None:
    started = Flags.start(FlagSettings())
    for name, feature in FEATURES.items():
        assert started.evaluate(name, "unit") is feature.default


def test_the_environment_sets_the_start_value() -> None:
    started = Flags.start(load({"FEATURE_STREAMING": "false", "FEATURE_SHADOW": "100%"}).flags)
    assert not started.evaluate("STREAMING", "u")
    assert started.evaluate("SHADOW", "u")


@hypothesis(deadline=None)
@given(st.text(max_size=20), SHARES)
def test_a_unit_gets_the_same_answer_every_time(unit: str, share: float) -> None:
    """A conversation that flips between behaviours cannot be debugged."""
    assert is_in_share("X", unit, share) is is_in_share("X", unit, share)


@hypothesis(deadline=None)
@given(st.text(max_size=20), SHARES, SHARES)
def test_a_growing_share_only_adds_units(unit: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert is_in_share("X", unit, large) or not is_in_share("X", unit, small)


def test_a_share_is_about_that_share_of_units() -> None:
    on = sum(is_in_share("SHADOW", f"session-{number}", 0.1) for number in range(10_000))
    assert 850 < on < 1_150


def test_two_flags_do_not_pick_the_same_units() -> None:
    units = [f"session-{number}" for number in range(2_000)]
    both = sum(is_in_share("A", unit, 0.5) and is_in_share("B", unit, 0.5) for unit in units)
    assert 400 < both < 600


def test_the_share_of_a_unit_is_the_same_in_every_process() -> None:
    """Replicas and restarts must agree; these answers are part of the contract."""
    assert [is_in_share("SHADOW", unit, 0.5) for unit in "abcdefgh"] == [
        True,
        True,
        False,
        True,
        True,
        False,
        True,
        False,
    ]


def test_nobody_is_in_an_empty_share_and_everybody_in_a_full_one() -> None:
    assert not is_in_share("X", "", 0.0)
    assert is_in_share("X", "\ud800", 1.0)
    assert is_in_share("X", "\ud800", 0.5) in (True, False)


@pytest.mark.parametrize(
    "overrides",
    [
        {"key": {"k1": {"streaming": False}}},
        {"key": {"ci": {"streaming": False}}},
        {"agent": {"qe": {"streaming": False}}},
        {"tenant": {"acme": {"streaming": False}}},
        {"key": {"k1": {"streaming": False}}, "agent": {"qe": {"streaming": True}}},
        {"agent": {"qe": {"streaming": False}}, "tenant": {"acme": {"streaming": True}}},
        {"key": {"k1": {"shadow": True}}, "agent": {"qe": {"streaming": False}}},
        {"key": {"k1": {"streaming": "0%"}}},
    ],
)
def test_an_override_counts_for_those_it_names(overrides: dict[str, Any]) -> None:
    assert not flags(overrides).evaluate("STREAMING", "u", caller=CALLER, agent="qe")


def test_an_override_does_not_count_for_others() -> None:
    some = flags({"key": {"k1": {"streaming": False}}, "agent": {"qe": {"streaming": False}}})
    assert some.evaluate("STREAMING", "u")
    assert some.evaluate("STREAMING", "u", caller=Caller(key_id="k2", name="x", tenant="y"), agent="other")


def test_a_locked_environment_is_overridden_by_nothing() -> None:
    """The way back must work whatever was configured elsewhere."""
    overrides = Overrides.model_validate({"agent": {"qe": {"streaming": True, "sessions": False}}})
    settings = load({"FEATURE_STREAMING": "false", "FEATURE_LOCK": "true"}).flags
    locked = Flags.start(FlagSettings(settings.start, settings.named, settings.locked, overrides))
    assert not locked.evaluate("STREAMING", "u", agent="qe")
    assert not locked.evaluate("SESSIONS", "u", agent="qe")  # the environment says nothing about this one
    unlocked = Flags.start(FlagSettings(settings.start, settings.named, False, overrides))
    assert unlocked.evaluate("STREAMING", "u", agent="qe")


def test_all_flags_are_decided_in_one_go() -> None:
    """A request that asked twice might get two answers when somebody flips a flag in between."""
    plain = Flags.start(FlagSettings())
    assert plain.decide("u") == {name: feature.default for name, feature in FEATURES.items()}
    assert plain.decide("u") is plain.decide("another"), "nothing is worked out where all are on or off for everybody"
    shared = Flags({**dict.fromkeys(FEATURES, 1.0), "SHADOW": 0.5})
    for unit in ("a", "b", "c"):
        assert shared.decide(unit)["SHADOW"] is shared.evaluate("SHADOW", unit)
    some = Flags(
        dict.fromkeys(FEATURES, 1.0), overrides=Overrides.model_validate({"agent": {"qe": {"streaming": False}}})
    )
    assert some.decide("u")["STREAMING"] and not some.decide("u", agent="qe")["STREAMING"]


def test_a_change_makes_a_new_snapshot_and_leaves_the_old_one() -> None:
    start = Flags(dict.fromkeys(FEATURES, 1.0), frozenset({"SESSIONS"}))
    changed = start.changed({"STREAMING": 0.0, "SESSIONS": 0.0}, {"tenant": {"acme": {"shadow": 0.0}}})
    assert start.decide("u")["STREAMING"] and not changed.decide("u")["STREAMING"]
    assert changed.decide("u")["SESSIONS"], "fixed"
    assert not changed.decide("u", caller=CALLER)["SHADOW"] and changed.decide("u")["SHADOW"]


@hypothesis(deadline=None)
@given(SHARES, SHARES, st.booleans())
def test_what_was_changed_counts_before_what_is_configured(one: float, other: float, there: bool) -> None:
    configured = Overrides.model_construct(
        None, agent={"qe": {"streaming": one}, "x": {"streaming": one}}, key={}, tenant={}
    )
    start = Flags(dict.fromkeys(FEATURES, 1.0), overrides=configured)
    changed = start.changed({}, {"agent": {"qe": {"streaming": other}}} if there else {})
    assert changed.overrides.agent["qe"]["streaming"] == (other if there else one)
    assert changed.overrides.agent["x"]["streaming"] == one
