"""A decision in words and as JSON: why this model, what it cost, what would have been cheaper and why not. Pure.

For `/admin/decisions/{id}`, and for anything else that shows a decision to a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from app.core.errors import ClientGone
from app.core.money import usd
from app.core.outcome import quality
from app.learning.decision import Considered, Decision, Remembered

SHOWN: Final = 3
LEAST_USD: Final = 0.000001
PASSED_OVER: Final[Mapping[str | None, str]] = {
    None: "passed over as unhealthy",
    "budget_exceeded": "passed over: a limit on spend does not allow it",
    "budget_store_unavailable": "passed over: nobody could say what may be spent",
    "overloaded": "passed over: it had no place free",
}
"""Why a model was not even asked, by the code of what kept the request from it."""


def explained(remembered: Remembered) -> dict[str, Any]:
    """All that is remembered, the summary first."""
    decision, outcomes = remembered.decision, remembered.outcomes
    value = quality(outcomes)
    return {
        "object": "decision",
        "request_id": decision.request_id,
        "at": datetime.fromtimestamp(decision.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "summary": summary(remembered),
        **_asked(decision),
        **_answered(decision),
        "candidates": [_candidate(each, decision) for each in decision.candidates],
        "excluded": [{"model": each.model, "reason": each.reason} for each in decision.excluded],
        "more_candidates": decision.more_candidates,
        "more_excluded": decision.more_excluded,
        "quality": None if value is None else round(value, 4),
        "outcomes": [
            {"source": each.source, "value": each.value, "weight": each.weight, "at": each.at} for each in outcomes
        ],
        "said": dict(remembered.texts),
    }


def _asked(decision: Decision) -> dict[str, Any]:
    names = ("model_requested", "strategy", "score", "tier", "task_type", "confidence", "classifier", "abstained")
    who = ("key_id", "tenant", "agent", "session", "parent_id", "root_id", "flags", "consent")
    return {name: getattr(decision, name) for name in (*names, "probability", "arm", "trigger", *who)}


def _answered(decision: Decision) -> dict[str, Any]:
    names = ("model", "upstream", "reason", "fallback_from", "passed_over", "status", "error_code", "finish")
    numbers = ("tokens_in", "tokens_out", "seconds", "first_token_seconds")
    return {
        **{name: getattr(decision, name) for name in names},
        "cost_usd": _usd(decision.cost_nano),
        **{name: getattr(decision, name) for name in numbers},
        "attempts": [
            {"model": each.model, "outcome": each.outcome, "seconds": each.seconds} for each in decision.attempts
        ],
    }


def _candidate(each: Considered, decision: Decision) -> dict[str, Any]:
    seconds = each.first_token_seconds
    return {
        "model": each.model,
        "cost_usd": _usd(each.cost_nano),
        "latency_ms": None if seconds is None else round(seconds * 1000),
        "predicted": each.success,
        "reason": each.reason,
        "chosen": each.model == _chosen(decision),
    }


def summary(remembered: Remembered) -> str:
    """A few sentences that can be understood without knowing any field."""
    decision = remembered.decision
    sentences = (
        _who(decision),
        _how_hard(decision),
        _by_chance(decision),
        _what_it_cost(decision),
        _cheaper(decision),
        _left_out(decision),
        _how_good(remembered),
    )
    return " ".join(sentence for sentence in sentences if sentence)


def _who(decision: Decision) -> str:
    first = decision.candidates[0] if decision.candidates else None
    asked = f"{decision.model_requested} ({decision.strategy})"
    if decision.model is None:
        return f"{asked} would go to {first.model}: {first.reason}." if first else f"No model could take {asked}."
    failed = [each for each in decision.attempts if each.outcome not in ("ok", "left")]
    if decision.error_code == ClientGone.code:
        return f"The client of {asked} left before the end; {decision.model} was at it: {decision.reason}."
    if decision.error_code is not None:
        tried = _listed(f"{each.model}: {each.outcome}" for each in failed)
        return f"{asked} was not answered ({decision.error_code})" + (f"; tried {tried}." if tried else ".")
    why = f"{asked} was answered by {decision.model}: {decision.reason}."
    if decision.fallback_from is None:
        return why
    passed_over = PASSED_OVER.get(decision.passed_over, f"passed over: {decision.passed_over}")
    cause = next((each.outcome for each in failed if each.model == decision.fallback_from), passed_over)
    return f"{why} It stands in for {decision.fallback_from} ({cause})."


def _how_hard(decision: Decision) -> str:
    if decision.score is None:
        return "The request was not classified."
    unsure = ", unsure, so it took the middle" if decision.abstained else ""
    task = (decision.task_type or "general").replace("_", " ")
    return f"The request looked {_words(decision.tier)} (score {decision.score:.2f}, {task}{unsure})."


def _by_chance(decision: Decision) -> str:
    parts = []
    if decision.probability < 1:
        parts.append(f"Chance had a say: this was chosen with a probability of {decision.probability:.0%}.")
    if decision.arm is not None:
        parts.append(f"It was in the arm {decision.arm}.")
    if decision.trigger is not None:
        parts.append(f"A paid model was allowed because of an emergency: {_words(decision.trigger)}.")
    return " ".join(parts)


def _what_it_cost(decision: Decision) -> str:
    chosen = next((each for each in decision.candidates if each.model == _chosen(decision)), None)
    expected = None if chosen is None else chosen.cost_nano
    if decision.model is None:
        return f"It is expected to cost {_money(expected)}."
    if decision.cost_nano is None:
        return "What it cost is unknown."
    return f"It cost {_money(decision.cost_nano)}" + (f", {_money(expected)} expected." if expected else ".")


def _cheaper(decision: Decision) -> str:
    """Those that would have cost less by estimate and stood behind, with the reason that they had."""
    chosen = next((each for each in decision.candidates if each.model == _chosen(decision)), None)
    if chosen is None or chosen.cost_nano is None:
        return ""
    less = [
        each
        for each in decision.candidates
        if each.cost_nano is not None and each.cost_nano < chosen.cost_nano and each is not chosen
    ]
    if not less:
        return "No candidate would have been cheaper."
    less.sort(key=lambda each: each.cost_nano or 0)
    told = _listed(f"{each.model} at {_money(each.cost_nano)} ({_why_behind(each, decision)})" for each in less)
    return f"Cheaper would have been {told}."


def _why_behind(each: Considered, decision: Decision) -> str:
    tried = next((attempt for attempt in decision.attempts if attempt.model == each.model), None)
    if tried is not None and tried.outcome != "ok":
        return f"tried, and failed: {tried.outcome}"
    return each.reason if each.success is None else f"{each.reason}; expected to succeed {each.success:.0%}"


def _left_out(decision: Decision) -> str:
    if not decision.excluded:
        return ""
    told = _listed(f"{each.model} ({each.reason})" for each in decision.excluded)
    more = decision.more_excluded + max(0, len(decision.excluded) - SHOWN)
    return f"Left out: {told}" + (f", and {more} more." if more else ".")


def _how_good(remembered: Remembered) -> str:
    if remembered.decision.model is None:
        return ""
    value = quality(remembered.outcomes)
    if value is None:
        return "How good the answer was is unknown."
    sources = ", ".join(_words(each.source) for each in remembered.outcomes)
    return f"The answer's quality is put at {value:.2f} (by {sources})."


def _chosen(decision: Decision) -> str | None:
    return decision.model or (decision.candidates[0].model if decision.candidates else None)


def _listed(items: Iterable[str]) -> str:
    return ", ".join(list(items)[:SHOWN])


def _words(name: str | None) -> str:
    return (name or "unknown").replace("_", " ")


def _usd(nano: int | None) -> float | None:
    return None if nano is None else usd(nano)


def _money(nano: int | None) -> str:
    if nano is None:
        return "an unknown amount"
    if not nano:
        return "nothing"
    return f"{usd(nano):.6f} USD" if usd(nano) >= LEAST_USD else "less than 0.000001 USD"
