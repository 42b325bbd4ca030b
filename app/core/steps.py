"""What a request notes for its trace while it lives: its place there, and when each of its parts began and ended.

Only a request that is traced has such notes. They are kept as they come; what they look like in a trace is said
elsewhere, once the request is over. Times are monotonic seconds of the clock handed in.
"""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from app.core.clock import Clock

NANO: Final = 1_000_000_000
PLAN, ADMIT = "plan", "admit"


class Step(NamedTuple):
    """A part that is over. `error` is the code of what ended it, `model` the full id of whom it was about."""

    name: str
    began: float
    ended: float
    model: str | None = None
    error: str | None = None


class Steps:
    """`span_id` is the request's own place in the trace, `parent_id` the caller's, who may have none. `header` goes to
    the upstream that is asked now. `content`: what was asked and answered, by role, where an operator wants it."""

    __slots__ = (
        *("attempts", "began", "began_at", "clock", "content", "header", "owing"),
        *("parent_id", "parts", "span_id", "trace_id"),
    )

    def __init__(self, trace_id: str, parent_id: str | None, clock: Clock, content: int = 0) -> None:
        self.trace_id, self.parent_id, self.span_id = trace_id, parent_id, new_span_id()
        self.clock = clock
        self.began, self.began_at = clock.monotonic(), clock.now()
        self.header = self._header(self.span_id)
        self.parts: list[Step] = []
        self.attempts: list[tuple[str, float]] = []
        self.owing = False
        self.content = Content(content) if content else None

    def note(self, name: str, began: float, model: str | None = None, error: str | None = None) -> None:
        """This part is over now."""
        self.parts.append(Step(name, began, self.clock.monotonic(), model, error))

    def attempt(self) -> None:
        """An attempt begins, whose place in the trace its upstream is told."""
        span_id = new_span_id()
        self.attempts.append((span_id, self.clock.monotonic()))
        self.header = self._header(span_id)

    def child(self) -> Steps:
        """Those of a request that this one causes."""
        return Steps(self.trace_id, self.span_id, self.clock, 0 if self.content is None else self.content.most)

    def at(self, moment: float) -> int:
        """Nanoseconds since 1970 of a monotonic moment."""
        return int((self.began_at + moment - self.began) * NANO)

    def _header(self, span_id: str) -> str:
        return f"00-{self.trace_id}-{span_id}-01"


class Content:
    """What was asked and answered: at most so many characters of each."""

    __slots__ = ("answered", "asked", "left", "most")

    def __init__(self, most: int) -> None:
        self.most = self.left = most
        self.asked: str | None = None
        self.answered: list[str] = []

    def add(self, text: str) -> None:
        """A piece of the answer."""
        if self.left > 0:
            self.answered.append(text[: self.left])
            self.left -= len(text)


def new_span_id() -> str:
    """Not a secret, so chance need not be the best."""
    return f"{random.getrandbits(64) or 1:016x}"
