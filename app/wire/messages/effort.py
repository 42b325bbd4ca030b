"""How hard a model shall think: OpenAI's `reasoning_effort` in Anthropic's terms, and back.

Newer models take an effort and decide themselves how much they think, older ones take a budget of tokens, some cannot
be kept from thinking. `Rules` says which is which; this is the arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.core.errors import UnsupportedParameter
from app.wire.messages.rules import ANSWER_TOKENS, EFFORTS, Rules

MIN_BUDGET: Final = 1_024
BUDGETS: Final[Mapping[str, int]] = {
    "minimal": MIN_BUDGET,
    "low": 2_048,
    "medium": 10_000,
    "high": 16_384,
    "xhigh": 32_768,
    "max": 32_768,
}
DEFAULT_EFFORT: Final = "high"  # what the API itself takes for none
_OFF: Final = frozenset({"disabled", "between_tools"})
_UNTHINKING_MOST: Final = EFFORTS.index("high")  # without thinking, a higher effort is refused


@dataclass(frozen=True, slots=True)
class Thinking:
    """What to send: the `thinking` object, the effort, the `max_tokens` that leaves room for both thinking and
    answer. `ignored`: the effort that was asked for could not be given."""

    config: dict[str, Any] | None
    effort: str | None
    max_tokens: int
    on: bool
    ignored: bool = False


def decide(
    rules: Rules, effort: str | None, most: int | None, *, forced: bool = False, replay: bool = True
) -> Thinking:
    """`most` is the caller's `max_tokens`. `forced`: a tool must be called. `replay`: a history of tool calls, if it
    ends in one, has its thinking with it."""
    if forced and (rules.forced == "no" or (rules.forced == "unthinking" and rules.off == "never")):
        raise UnsupportedParameter("this model cannot be forced to call a tool", param="tool_choice")
    if forced and rules.forced == "unthinking":
        asked = None if effort in (None, "none") else _nearest(rules, effort, _UNTHINKING_MOST)
        ignored = effort not in (None, "none") and asked is None
        return _decided(rules, most, _off(rules), asked, on=False, ignored=ignored)
    if effort is None:
        return _decided(rules, most, None, None, on=rules.thinks)
    if effort == "none":
        never = rules.off == "never"
        return _decided(rules, most, _off(rules), _nearest(rules, "low") if never else None, on=never)
    if rules.efforts:
        config = {"type": "adaptive"} if rules.adaptive and not rules.thinks else None
        return _decided(rules, most, config, _nearest(rules, effort), on=rules.adaptive)
    return _budgeted(rules, effort, most, replay)


def _budgeted(rules: Rules, effort: str, most: int | None, replay: bool) -> Thinking:
    budget = BUDGETS.get(effort, BUDGETS[DEFAULT_EFFORT])
    room = min(budget + ANSWER_TOKENS if most is None else most, rules.max_output)
    if not rules.budgeted or not replay or room <= MIN_BUDGET:
        return _decided(rules, most, None, None, on=rules.thinks, ignored=True)
    budget = min(budget, max(MIN_BUDGET, room // 2, room - ANSWER_TOKENS))
    return Thinking({"type": "enabled", "budget_tokens": budget}, None, room, on=True)


def _decided(
    rules: Rules,
    most: int | None,
    config: dict[str, Any] | None,
    effort: str | None,
    *,
    on: bool,
    ignored: bool = False,
) -> Thinking:
    room = rules.default_max_tokens(on) if most is None else min(most, rules.max_output)
    return Thinking(config, effort, room, on, ignored)


def _off(rules: Rules) -> dict[str, Any] | None:
    return {"type": rules.off} if rules.off in _OFF else None


def _nearest(rules: Rules, effort: str, most: int = len(EFFORTS) - 1) -> str | None:
    """The effort of the model that comes closest: the same, else the next higher, else the highest."""
    if not rules.efforts:
        return None
    wanted = min(EFFORTS.index(effort) if effort in EFFORTS else 0, most)
    possible = [EFFORTS.index(each) for each in rules.efforts]
    possible = [each for each in possible if each <= most] or possible[:1]
    return EFFORTS[min((each for each in possible if wanted <= each), default=max(possible))]


def effort_of(thinking: Any, effort: Any = None) -> str | None:
    """OpenAI's word for what a `thinking` object (and an effort beside it) asks; None where it asks nothing."""
    thinking = thinking if isinstance(thinking, dict) else {}
    kind = str(thinking.get("type"))
    if kind in _OFF:
        return "none"
    if isinstance(effort, str):
        return effort
    if kind == "adaptive":
        return DEFAULT_EFFORT
    if kind != "enabled":
        return None
    budget = thinking.get("budget_tokens")
    if type(budget) is not int:
        return DEFAULT_EFFORT
    return next((word for word, tokens in BUDGETS.items() if budget <= tokens), "xhigh")
