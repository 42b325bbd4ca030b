"""Flag values as operators write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from app.config.features import FEATURES, flag_value, parse_flag, parse_percent


@pytest.mark.parametrize(
    ("written", "share"),
    [
        (True, 1.0),
        (False, 0.0),
        ("true", 1.0),
        (" FALSE ", 0.0),
        ("10%", 0.1),
        ("0%", 0.0),
        ("100 %", 1.0),
        ("2.5%", 0.025),
    ],
)
def test_a_flag_is_true_false_or_a_percentage(written: object, share: float) -> None:
    assert parse_flag(written) == pytest.approx(share)


@pytest.mark.parametrize("written", ["yes", "on", "1", "", "101%", "-1%", "10", "%", "1e1%", 1, 0.5, None, [], {}])
def test_anything_else_is_refused_rather_than_guessed(written: object) -> None:
    assert parse_flag(written) is None


@hypothesis(deadline=None)
@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    share = parse_percent(text)
    assert share is None or 0 <= share <= 1


def test_the_flags_and_defaults_are_those_we_promise() -> None:
    """A default that changes silently changes every deployment."""
    assert {name for name, feature in FEATURES.items() if not feature.default} == {"SHADOW"}
    assert set(FEATURES) == {
        *("MULTI_MODEL_ROUTER", "STREAMING", "BUDGET_GUARD", "CLOUD_FALLBACK"),
        *("LOCAL_MODELS", "SESSIONS", "RESUMABLE_STREAMS", "SHADOW"),
    }


@pytest.mark.parametrize("value", [True, False, "10%", "0.5%", "99.9999%", "0.0001%", "50%", "100%", "20.05%"])
def test_a_flag_is_shown_as_it_may_be_written(value: bool | str) -> None:
    """What is shown can be put into the environment as it stands."""
    share = parse_flag(value)
    assert share is not None
    shown = flag_value(share)
    assert parse_flag(shown) == share and (shown == value or value == "100%")
