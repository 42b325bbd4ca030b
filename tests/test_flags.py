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
from app.flags import Flags

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
