"""Effort and budgets: a wrong word is a 400, a budget without room is an answer cut off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import UnsupportedParameter
from app.wire.messages.effort import BUDGETS, MIN_BUDGET, Thinking, decide, effort_of
from app.wire.messages.rules import EFFORTS, RULES, rules_for

WORDS = ("none", "minimal", *EFFORTS)


@pytest.mark.parametrize(
    ("name", "effort", "config", "sent"),
    [
        ("claude-opus-5-5", "minimal", None, "low"),
        ("claude-opus-5-5", "xhigh", None, "xhigh"),
        ("claude-opus-5-5", "none", None, "low"),
        ("claude-opus-5-5", None, None, None),
        ("claude-sonnet-5-5", "none", {"type": "between_tools"}, None),
        ("claude-sonnet-5", "none", {"type": "disabled"}, None),
        ("claude-opus-4-7", "none", None, None),
        ("claude-opus-4-7", "high", {"type": "adaptive"}, "high"),
        ("claude-sonnet-4-6", "xhigh", {"type": "adaptive"}, "max"),
        ("claude-opus-4-5", "xhigh", None, "high"),
        ("claude-opus-4-5", "max", None, "high"),
        ("claude-opus-4-5", "low", None, "low"),
    ],
)
def test_efforts_in_the_words_of_each_model(
    name: str, effort: str | None, config: dict[str, str] | None, sent: str | None
) -> None:
    made = decide(RULES[name], effort, None)
    assert (made.config, made.effort, made.ignored) == (config, sent, False)


def test_room_for_thinking_when_the_caller_said_nothing() -> None:
    assert decide(RULES["claude-opus-5-5"], None, None).max_tokens == 32_000
    assert decide(RULES["claude-haiku-5-5"], "none", None).max_tokens == 8_192
    assert decide(RULES["claude-opus-4-8"], None, None).max_tokens == 8_192
    assert decide(RULES["claude-opus-4-8"], "high", None).max_tokens == 32_000
    assert decide(RULES["claude-haiku-4-5"], "medium", None).max_tokens == 18_192
    assert decide(replace(RULES["claude-opus-5-5"], max_output=9_000), None, None).max_tokens == 9_000
    assert decide(RULES["claude-opus-5-5"], None, 500_000).max_tokens == 128_000


@pytest.mark.parametrize(("effort", "budget"), [("minimal", 1_024), ("low", 2_048), ("high", 16_384), ("max", 32_768)])
def test_models_without_efforts_get_a_budget(effort: str, budget: int) -> None:
    made = decide(RULES["claude-haiku-4-5"], effort, None)
    assert made.config == {"type": "enabled", "budget_tokens": budget} and made.on and made.effort is None


def test_a_budget_leaves_half_of_a_small_answer() -> None:
    made = decide(RULES["claude-haiku-4-5"], "high", 4_000)
    assert made == Thinking({"type": "enabled", "budget_tokens": 2_000}, None, 4_000, on=True)


@pytest.mark.parametrize(("most", "replay"), [(MIN_BUDGET, True), (9_000, False)])
def test_where_thinking_cannot_be_it_is_left_out_and_said(most: int, replay: bool) -> None:
    """Too little room, or calls of tools whose thinking is lost: both would be a 400."""
    made = decide(RULES["claude-haiku-4-5"], "high", most, replay=replay)
    assert made == Thinking(None, None, most, on=False, ignored=True)


def test_a_model_that_cannot_think_says_so() -> None:
    assert decide(rules_for("claude-3-haiku"), "high", None).ignored


def test_a_forced_tool_turns_thinking_off_where_both_do_not_go() -> None:
    made = decide(RULES["claude-haiku-5-5"], "max", None, forced=True)
    assert (made.config, made.effort, made.on) == ({"type": "disabled"}, "high", False)
    assert decide(RULES["claude-haiku-5-5"], None, None, forced=True).effort is None
    made = decide(RULES["claude-haiku-4-5"], "low", None, forced=True)
    assert (made.config, made.ignored) == (None, True)
    only_max = replace(RULES["claude-haiku-5-5"], efforts=("max",))
    assert decide(only_max, "high", None, forced=True).effort == "max"


def test_a_forced_tool_and_adaptive_thinking_go_together() -> None:
    assert decide(RULES["claude-sonnet-4-6"], "high", None, forced=True).config == {"type": "adaptive"}


@pytest.mark.parametrize("name", ["claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-2"])
def test_models_that_cannot_be_forced_refuse(name: str) -> None:
    """Falling back to a mere wish would hand the caller text where it expects a call."""
    with pytest.raises(UnsupportedParameter) as caught:
        decide(RULES[name], None, None, forced=True)
    assert caught.value.param == "tool_choice"
    with pytest.raises(UnsupportedParameter):
        decide(replace(RULES["claude-haiku-5-5"], off="never"), None, None, forced=True)


@given(st.sampled_from(sorted(RULES)), st.sampled_from(WORDS), st.none() | st.integers(1, 300_000), st.booleans())
def test_what_is_sent_is_always_taken(name: str, effort: str, most: int | None, forced: bool) -> None:
    rules = RULES[name]
    try:
        made = decide(rules, effort, most, forced=forced)
    except UnsupportedParameter:
        assert forced
        return
    assert made.effort is None or made.effort in rules.efforts
    assert 1 <= made.max_tokens <= rules.max_output
    config: dict[str, Any] = made.config or {"type": "none"}
    assert config["type"] in {"none", rules.off} | ({"adaptive"} if rules.adaptive else {"enabled"})
    if config["type"] == "enabled":
        assert MIN_BUDGET <= config["budget_tokens"] < made.max_tokens
    if not made.on and rules.thinks:
        assert made.effort not in ("xhigh", "max")


@pytest.mark.parametrize(
    ("thinking", "effort", "word"),
    [
        (None, None, None),
        (None, "max", "max"),
        ({"type": "disabled"}, "high", "none"),
        ({"type": "between_tools"}, None, "none"),
        ({"type": "adaptive"}, None, "high"),
        ({"type": "adaptive"}, "low", "low"),
        ({"type": "enabled", "budget_tokens": 1_500}, None, "low"),
        ({"type": "enabled", "budget_tokens": 99_999}, None, "xhigh"),
        ({"type": "enabled", "budget_tokens": "many"}, None, "high"),
        ({"type": []}, None, None),
        ("on", 3, None),
    ],
)
def test_what_a_thinking_object_asks(thinking: Any, effort: Any, word: str | None) -> None:
    assert effort_of(thinking, effort) == word


@given(st.sampled_from(["minimal", "low", "medium", "high", "xhigh"]))
def test_budgets_lead_back_to_their_words(word: str) -> None:
    assert effort_of({"type": "enabled", "budget_tokens": BUDGETS[word]}) == word
