"""What a trace is made of afterwards: times and places that were noted while the request lived."""

from __future__ import annotations

import re

from app.core.clock import ManualClock
from app.core.steps import ADMIT, NANO, Content, Steps

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_parts_and_attempts_are_noted_with_their_times() -> None:
    clock = ManualClock(start=1_000.0)
    steps = Steps(TRACE, None, clock)
    own = steps.header
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-01", own) and own.split("-")[2] == steps.span_id
    clock.advance(0.25)
    began = clock.monotonic()
    clock.advance(0.5)
    steps.note(ADMIT, began, "gpu/qwen", "budget_exceeded")
    (part,) = steps.parts
    assert (part.name, part.model, part.error) == ("admit", "gpu/qwen", "budget_exceeded")
    assert (steps.at(part.began), steps.at(part.ended)) == (int(1_000.25 * NANO), int(1_000.75 * NANO))


def test_every_attempt_is_a_place_of_its_own() -> None:
    """An upstream's spans must hang below the attempt that asked it, not below the one before."""
    steps = Steps(TRACE, None, ManualClock())
    steps.attempt()
    first = steps.header
    steps.attempt()
    assert [each.split("-")[2] for each in (first, steps.header)] == [span_id for span_id, _ in steps.attempts]
    assert len({steps.span_id, *(span_id for span_id, _ in steps.attempts)}) == 3


def test_a_request_that_another_causes_is_below_it() -> None:
    steps = Steps(TRACE, "00f067aa0ba902b7", ManualClock(), content=10)
    child = steps.child()
    assert (child.trace_id, child.parent_id) == (TRACE, steps.span_id) and child.span_id != steps.span_id
    assert child.content is not None and child.content.most == 10


def test_an_answer_is_kept_up_to_its_bound() -> None:
    """An answer without end must not fill the memory."""
    content = Content(5)
    for piece in ("abc", "defg", "h"):
        content.add(piece)
    assert "".join(content.answered) == "abcde"
