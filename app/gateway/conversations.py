"""Which model served a conversation before, so that its prefix stays cached there and a tool loop keeps its model.

A conversation is told by its session header, else by how it began: the caller, the agent, its first words. This memory
is one process's own and forgets the oldest; a conversation it does not know is planned as a new one.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from app.core.caller import Caller
from app.core.messages import ThinkingPart
from app.core.request import Request
from app.core.tokens import estimate

REMEMBERED: Final = 50_000
OPENING_CHARS: Final = 2_048


class Conversations:
    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._served: OrderedDict[bytes, tuple[str, str | None]] = OrderedDict()
        self._remembered = remembered

    def previous(self, key: bytes | None, rollout: str | None = None, *, stays: bool = False) -> str | None:
        """The full id of the model that answered this conversation last. One that only a rollout had chosen is none
        once the conversation is not in that rollout any more, unless it must stay."""
        if key is None or (found := self._served.get(key)) is None:
            return None
        model, chosen_by = found
        return model if stays or chosen_by in (None, rollout) else None

    def answered(self, key: bytes | None, model: str, rollout: str | None = None) -> None:
        """`rollout`: whose treatment the answer was."""
        if key is None:
            return
        self._served[key] = (model, rollout)
        self._served.move_to_end(key)
        if len(self._served) > self._remembered:
            self._served.popitem(last=False)


def conversation_of(request: Request, caller: Caller) -> bytes | None:
    """The same for every turn of a conversation; None for a request without any words of a user."""
    who = f"{caller.key_id}\0{request.terms.agent}\0"
    if request.terms.session is not None:
        return _digest(f"{who}session\0{request.terms.session}")
    for message in request.messages:
        if message.role == "user" and (opening := message.text):
            return _digest(f"{who}opening\0{opening[:OPENING_CHARS]}\0{len(opening)}")
    return None


def goes_on(request: Request) -> bool:
    """Whether an answer was given before: only then can there be a model to keep."""
    # No generator: it takes longer than the loop over the few messages that most requests have.
    for message in request.messages:
        if message.role == "assistant":
            return True
    return False


def history_tokens(request: Request) -> int:
    """About how many tokens another model would have to read again."""
    return estimate(request.input_bytes) if goes_on(request) else 0


def is_bound(request: Request) -> bool:
    """Whether signed thinking in the history binds it to the model that signed it."""
    return any(
        isinstance(part, ThinkingPart) and (part.signature is not None or part.redacted is not None)
        for message in request.messages
        for part in message.parts
    )


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
