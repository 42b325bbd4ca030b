"""An answer that broke off, as another model is asked to go on with it. Pure.

A model that takes the beginning of its answer is given what was said; any other gets it as its own last message, and is
told to go on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from app.core.card import Ability, Card
from app.core.messages import Message, TextPart
from app.core.money import Tokens
from app.core.plan import Candidate
from app.core.request import AnyRequest, Request
from app.core.tokens import bytes_of

GO_ON: Final = (
    "Your answer was cut off by a fault of the connection. Go on exactly where it ends, with the very next word. Repeat"
    " nothing of it, and say nothing of the interruption."
)


@dataclass(frozen=True, slots=True)
class Continuation:
    """`said` is the text so far, `broken` the models that broke off, in order. `began`, `tokens`: of the answer up to
    now; `candidate` and `charge_nano`: of the last that broke off."""

    said: str
    broken: tuple[str, ...]
    began: float | None
    tokens: Tokens
    candidate: Candidate
    charge_nano: int | None

    def left(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Who has not begun it; other servers first, because a server breaks more often than a model."""
        left = [each for each in candidates if each.card.id not in self.broken]
        upstream = self.candidate.card.upstream
        return tuple(sorted(left, key=lambda each: each.card.upstream == upstream))

    def asked_of(self, request: AnyRequest, card: Card) -> AnyRequest:
        if not self.said or not isinstance(request, Request):
            return request
        begun = Message("assistant", (TextPart(self.said),))
        rows: list[dict[str, Any]] = [{"role": "assistant", "content": self.said}]
        messages = [begun]
        if Ability.PREFILL not in card.abilities:
            rows.append({"role": "user", "content": GO_ON})
            messages.append(Message("user", (TextPart(GO_ON),)))
        size = sum(bytes_of(message.text) for message in messages)
        most = request.max_tokens
        return replace(
            request,
            messages=(*request.messages, *messages),
            body={**request.body, "messages": [*request.body.get("messages", ()), *rows]},
            input_bytes=request.input_bytes + size,
            max_tokens=None if most is None else max(1, most - self.tokens.completion),
        )
