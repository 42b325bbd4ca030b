"""The rules of each model: a parameter too many is a 400, a rule too strict loses what the caller asked for."""

from __future__ import annotations

from typing import Any

import pytest

from app.wire.messages.rules import (
    EFFORTS,
    NEW_VERSION,
    OLD_VERSION,
    RULES,
    STRICTEST,
    line_of,
    rules_for,
    rules_from_capabilities,
    supported,
)


@pytest.mark.parametrize("name", RULES)
def test_sampling_parameters_and_the_new_version_never_meet(name: str) -> None:
    """Under the new version they are refused even at their defaults."""
    rules = RULES[name]
    assert rules.version == (OLD_VERSION if rules.sampling else NEW_VERSION)
    assert rules.sampling == ("-4-5" in name or "-4-6" in name or name.endswith(("-4", "-4-1")))


@pytest.mark.parametrize(
    ("name", "same_as"),
    [
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("claude-opus-4-0", "claude-opus-4"),
        ("us.anthropic.claude-opus-4-5-20251101-v1:0", "claude-opus-4-5"),
        ("claude-opus-4-6@20260201", "claude-opus-4-6"),
        ("anthropic/claude-opus-5", "claude-opus-5"),
        ("claude-sonnet-5-5-latest", "claude-sonnet-5-5"),
        ("claude-sonnet-6", "claude-sonnet-5-5"),
        ("claude-haiku-7-1", "claude-haiku-5-5"),
    ],
)
def test_names_are_known_with_dates_and_prefixes(name: str, same_as: str) -> None:
    assert rules_for(name) == RULES[same_as]


@pytest.mark.parametrize("name", ["claude-opus-5-7", "claude-nova-1", "kimi-k3", ""])
def test_an_unknown_name_gets_the_strictest_rules(name: str) -> None:
    """A newer model takes less, not more: what it might refuse is not sent."""
    assert rules_for(name) == STRICTEST
    assert (STRICTEST.sampling, STRICTEST.forced, STRICTEST.off) == (False, "no", "never")


def test_the_third_generation_does_not_think() -> None:
    rules = rules_for("claude-3-5-haiku-20241022")
    assert (rules.sampling, rules.adaptive, rules.budgeted, rules.thinks) == (True, False, False, False)


def test_default_max_tokens_leave_room_for_thinking() -> None:
    """An always-thinking model with 4096 tokens stops before it has said a word."""
    assert RULES["claude-opus-5-5"].default_max_tokens(True) == 32_000
    assert RULES["claude-sonnet-4-6"].default_max_tokens(False) == 8_192
    assert rules_for("claude-3-haiku").default_max_tokens(False) == 4_096


def test_lines() -> None:
    assert [line_of(f"claude-{line}-9") for line in ("haiku", "mythos", "nova")] == ["haiku", "mythos", None]


def says(id: str = "claude-nova-1", **capabilities: Any) -> dict[str, Any]:
    return {"id": id, "capabilities": capabilities}


def types(**kinds: bool) -> dict[str, Any]:
    return {"supported": True, "types": {kind: {"supported": can} for kind, can in kinds.items()}}


def test_capabilities_are_believed_over_the_table() -> None:
    rules = rules_from_capabilities(
        {
            "max_tokens": 256_000,
            **says(
                structured_outputs={"supported": False},
                effort={"supported": True, "low": {"supported": True}, "max": {"supported": True}},
                thinking=types(adaptive=True, enabled=True, disabled=True, between_tools=True),
            ),
        }
    )
    assert rules.max_output == 256_000
    assert rules.schema is False
    assert rules.efforts == ("low", "max")
    assert (rules.adaptive, rules.budgeted, rules.off) == (True, True, "disabled")


@pytest.mark.parametrize(
    ("disabled", "between", "off"), [(False, True, "between_tools"), (False, False, "never"), (True, False, "disabled")]
)
def test_how_thinking_is_turned_off_is_read(disabled: bool, between: bool, off: str) -> None:
    model = says(thinking=types(adaptive=True, enabled=False, disabled=disabled, between_tools=between))
    assert rules_from_capabilities(model).off == off


def test_a_model_that_is_off_by_default_stays_so() -> None:
    """That a model takes `disabled` does not say that it thinks unless told not to."""
    model = says("claude-opus-4-7", thinking=types(adaptive=True, disabled=True, between_tools=False))
    assert rules_from_capabilities(model).off == "omit"


def test_a_model_without_thinking_or_effort() -> None:
    rules = rules_from_capabilities(says(thinking={"supported": False}, effort={"supported": False}))
    assert (rules.adaptive, rules.budgeted, rules.thinks, rules.efforts) == (False, False, False, ())


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"id": 3},
        {"id": "claude-nova-1", "capabilities": None, "max_tokens": "many"},
        says(effort=[], thinking="yes", structured_outputs={"supported": "yes"}),
        {"id": "x", "max_tokens": True},
    ],
)
def test_nonsense_leaves_the_table_alone(model: dict[str, Any]) -> None:
    assert rules_from_capabilities(model) == STRICTEST
    assert supported(model, "effort") is None
    assert STRICTEST.efforts == EFFORTS
