"""How close a model's answer comes to the one that was given: what a shadow is judged by. Pure.

Agreement is no proof of quality, only a sign of it: two good answers may differ in every word. So it speaks softly, and
somewhat louder where the meanings were compared as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from app.core.events import Answer, Choice
from app.core.outcome import Outcome
from app.core.request import Request

SOURCE: Final = "shadow"
WEIGHT: Final = 0.2
WEIGHT_WITH_MEANING: Final = 0.5
ENOUGH_WORDS: Final = 0.5  # an answer half or twice as long is as good as one of the same length


@dataclass(frozen=True, slots=True)
class Comparison:
    """`length` is the shorter answer's share of the longer; `parses` whether what had to be JSON is, None where nothing
    had to; `meaning` the likeness of the texts, None where it was not measured. `value` sums it up, 0 to 1."""

    length: float
    same_finish: bool
    same_calls: bool
    parses: bool | None
    meaning: float | None
    value: float


def compare(request: Request, given: Answer, other: Answer, meaning: float | None = None) -> Comparison:
    """The first choice of each. `meaning` is the cosine of the texts' embeddings."""
    one, two = _first(given), _first(other)
    length = _ratio(len(one.text or ""), len(two.text or ""))
    same_finish = one.finish == two.finish
    same_calls = [call.name for call in one.calls] == [call.name for call in two.calls]
    parses = _parses(request, two)
    close = None if meaning is None or not math.isfinite(meaning) else min(max(meaning, 0.0), 1.0)
    parts = [(min(1.0, length / ENOUGH_WORDS), 1.0), (float(same_finish), 1.0), (float(same_calls), 2.0)]
    if close is not None:
        parts.append((close, 4.0))
    value = sum(part * weight for part, weight in parts) / sum(weight for _, weight in parts)
    empty = not two.calls and not (two.text or "").strip()
    return Comparison(length, same_finish, same_calls, parses, close, 0.0 if parses is False or empty else value)


def outcome_of(comparison: Comparison, at: float) -> Outcome:
    """What the comparison says about the other answer."""
    weight = WEIGHT if comparison.meaning is None else WEIGHT_WITH_MEANING
    return Outcome(SOURCE, comparison.value, weight, at)


def cosine(one: Sequence[float], two: Sequence[float]) -> float | None:
    """The likeness of two vectors; None where that makes no sense."""
    lengths = math.hypot(*one) * math.hypot(*two)
    if len(one) != len(two) or lengths <= 0 or not math.isfinite(lengths):
        return None
    return sum(x * y for x, y in zip(one, two, strict=True)) / lengths


def text_of(answer: Answer) -> str:
    """The text that meanings are compared of."""
    return _first(answer).text or ""


def _first(answer: Answer) -> Choice:
    return answer.choices[0] if answer.choices else Choice(0)


def _ratio(one: int, two: int) -> float:
    return min(one, two) / max(one, two) if one or two else 1.0


def _parses(request: Request, choice: Choice) -> bool | None:
    """Arguments of calls must be JSON, and text where JSON was demanded."""
    said = [call.arguments or "{}" for call in choice.calls if not call.custom]
    if request.format is not None and not choice.calls:
        said.append(choice.text or "")
    return all(map(_is_json, said)) if said else None


def _is_json(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return False
