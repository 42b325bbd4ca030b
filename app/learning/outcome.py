"""What an answer was worth, from whoever can tell. Pure.

Each source speaks with a value and a weight; the tables below are all there is to tune. A plain end speaks too, softly:
if only failures spoke, a model's mean would be that of its failures. Sources that come later (feedback, the next ask of
the conversation, a shadow's answer, a judge) add to what is known, and a source that speaks again corrects itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from app.core.errors import Blame
from app.core.outcome import Noticed, Outcome, weighed
from app.core.record import Record

FINISH: Final = "finish"
FAILED: Final = "failed"
TRUNCATED: Final = "truncated"
REFUSAL: Final = "refusal"
BARE: Final = "bare"
SHAPE: Final = "shape"
SYNTAX: Final = "syntax"
REPETITION: Final = "repetition"
NEXT_ASK: Final = "next_ask"
FEEDBACK: Final = "feedback"
SHADOW: Final = "shadow"


class Says(NamedTuple):
    """What a source says of an answer."""

    value: float
    weight: float


FINISHES: Final[Mapping[str, Says]] = {
    "stop": Says(0.8, 0.2),
    "tool_calls": Says(0.8, 0.2),
    "length": Says(0.4, 0.5),
    "content_filter": Says(0.1, 1.0),
}
FAILURES: Final[Mapping[str, Says]] = {
    "truncated": Says(0.0, 1.0),
    "bad_reply": Says(0.0, 0.5),
    "incomplete": Says(0.0, 0.5),
    "timeout": Says(0.0, 0.5),
    "broken": Says(0.0, 0.3),
    "server": Says(0.0, 0.3),
}
"""By the outcome of an attempt. What says nothing of a model (refused, throttled, busy) is the affair of health."""
NEXT_ASKS: Final[Mapping[str, Says]] = {
    "again": Says(0.3, 0.5),
    "rephrased": Says(0.3, 0.7),
    "objected": Says(0.1, 1.0),
    "went_on": Says(0.8, 0.3),
}
"""By what the next ask of the conversation is to the one before it."""
BY_CONTENT: Final[Mapping[tuple[str, bool | None], Says]] = {
    (REFUSAL, True): Says(0.1, 1.0),
    (BARE, True): Says(0.1, 1.0),
    (REPETITION, True): Says(0.05, 2.0),
    (SHAPE, True): Says(0.95, 0.5),
    (SHAPE, False): Says(0.0, 2.0),
    (SYNTAX, True): Says(0.9, 0.3),
    (SYNTAX, False): Says(0.2, 0.7),
}
"""By what was seen of the answer's content."""
NOTICED_NOTHING: Final = Noticed()
WAS_TRUNCATED: Final = Says(0.2, 1.0)
FEEDBACK_WEIGHT: Final = 3.0
GOOD, BAD = 0.7, 0.3


class Evidence(NamedTuple):
    """What is known of one answer: its quality, and how much that counts, 0 (nothing) to 1 (a whole answer)."""

    value: float
    weight: float


NOTHING: Final = Evidence(0.0, 0.0)


def of_record(record: Record) -> tuple[Outcome, ...]:
    """What can be told of an answer as soon as it is over. Nothing, where it never began or nobody waited for its
    end; except that a runaway is one even though, or because, its reader left."""
    at = record.started_at + record.seconds
    return tuple([Outcome(source, *says, at) for source, says in _heard(record)])


def _heard(record: Record) -> list[tuple[str, Says]]:
    noticed = record.noticed or NOTICED_NOTHING
    if record.client_gone:
        return [(REPETITION, BY_CONTENT[REPETITION, True])] if noticed.repeating else []
    if record.error_code is not None:
        last = record.attempts[-1] if record.attempts else None
        if last is not None and last.blame == Blame.UPSTREAM and last.outcome in FAILURES:
            return [(FAILED, FAILURES[last.outcome])]
        return []
    heard = []
    finish = FINISHES.get(record.finish or "")
    if finish is not None and not (record.finish == "length" and noticed.limited):
        heard.append((FINISH, finish))
    if record.truncated:
        heard.append((TRUNCATED, WAS_TRUNCATED))
    return heard + _in_content(noticed)


def _in_content(noticed: Noticed) -> list[tuple[str, Says]]:
    seen = (
        (REFUSAL, noticed.refused),
        (BARE, noticed.bare),
        (REPETITION, noticed.repeating),
        (SHAPE, noticed.parses),
        (SYNTAX, noticed.compiles),
    )
    return [(each[0], BY_CONTENT[each]) for each in seen if each in BY_CONTENT]


def escalations(record: Record) -> Iterator[tuple[str, Evidence]]:
    """The models that were tried for this request and gave it up to another, with what that says of them."""
    for attempt in record.attempts:
        if attempt.model != record.model and attempt.blame == Blame.UPSTREAM and attempt.outcome in FAILURES:
            yield attempt.model, Evidence(*FAILURES[attempt.outcome])


def next_ask(how: str, at: float) -> Outcome:
    """What the next ask tells of the answer before it; `how` is a key of `NEXT_ASKS`."""
    return Outcome(NEXT_ASK, *NEXT_ASKS[how], at)


def feedback(rating: float, at: float) -> Outcome:
    """What the caller said, which outweighs what can be guessed."""
    return Outcome(FEEDBACK, min(1.0, max(0.0, rating)), FEEDBACK_WEIGHT, at)


def folded(rating: float) -> str:
    """A rating in a word."""
    if rating >= GOOD:
        return "good"
    return "bad" if rating <= BAD else "neutral"


def evidence(outcomes: Iterable[Outcome]) -> Evidence:
    """All that was said of one answer, as what it adds to the counts: however much is said, it is one answer."""
    value, weight = weighed(outcomes)
    return NOTHING if weight <= 0 else Evidence(value / weight, min(1.0, weight))


def replaced(outcomes: Iterable[Outcome], new: Outcome) -> tuple[Outcome, ...]:
    """The outcomes once `new` has been said: a source that speaks again corrects itself."""
    return (*(outcome for outcome in outcomes if outcome.source != new.source), new)
