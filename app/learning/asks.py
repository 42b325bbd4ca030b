"""Notices that a caller asks the same again, says it in other words, or objects: the answer before was no good. Pure.

Conversations come whole with each request, so an ask is found again by its place: a digest of whose it is and of what
was said before it. System prompts do not count, since agents write the time of day into them. What is remembered of an
ask is digests and a short vector, no text.
"""

from __future__ import annotations

import hashlib
import math
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import Base64Bytes, BaseModel, ConfigDict, ValidationError

from app.core.messages import Message, RefusalPart, TextPart, ToolUsePart
from app.core.outcome import Ask
from app.core.request import Request

DIMENSIONS: Final = 64  # the built-in embedder's first 64 were trained to stand alone
ALIKE: Final = 0.9
EDGE_CHARS: Final = 512  # of each end of a message; its length counts too
DIGEST_BYTES: Final = 12
NUMBER: Final = re.compile(r"\d+")
_DIGITS: Final = "".join(chr(code) if chr(code).isdigit() else " " for code in range(128))
"""What stands for each character of a plain text: looked up many times faster than searched for."""
SCALE: Final = 127
SAID: Final = (TextPart, RefusalPart)
OBJECTS: Final = re.compile(
    r"\W*(?:no[,.!]|nope\b|wrong\b|try again\b|i (?:said|asked|meant)\b|"
    r"(?:that|this|it)(?:['’]s| is| was)? (?:still )?"
    r"(?:wrong|incorrect|not (?:right|what|correct)|does(?:n['’]?t| not) work|fail(?:s|ed|ing)\b|broken)|"
    r"still (?:not|wrong|fail|broken|the same|doesn)|"
    r"you (?:forgot|missed|ignored|did(?:n['’]?t| not)|misunderstood))",
    re.IGNORECASE,
)


class Earlier(NamedTuple):
    """An ask as it was remembered, and the request whose answer it got last."""

    request_id: str
    ask: Ask


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    r: str
    d: str
    n: str = ""
    v: Base64Bytes = b""


def ask_of(request: Request, key_id: str | None, text: str | None = None, vector: bytes = b"") -> Ask | None:
    """The last ask of a conversation; None without any. `text` is the ask as it is classified, without what harnesses
    add; `vector` its embedding, `packed`."""
    asked = _last_asked(request.messages)
    if not asked:
        return None
    last, before = asked[0], asked[1] if len(asked) > 1 else None
    words = request.messages[last].text if text is None else text
    numbers = _numbers(words[: 8 * EDGE_CHARS])
    places = _places(request.messages, f"{key_id or ''}\0{request.terms.agent or ''}", {last, before})
    return Ask(
        place=places[last],
        before=None if before is None else places[before],
        same=_digest(words.strip()),
        numbers=_digest(" ".join(numbers)) if numbers else NO_NUMBERS,
        vector=vector,
        objects=before is not None and OBJECTS.match(words) is not None,
        carried=last != len(request.messages) - 1,
    )


def _last_asked(messages: Sequence[Message]) -> list[int]:
    """Where the last two asks are, the last of them first."""
    asked: list[int] = []
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].role == "user" and messages[index].text:
            asked.append(index)
            if len(asked) == 2:
                break
    return asked


def judged(ask: Ask, at_place: Earlier | None, at_before: Earlier | None) -> list[tuple[str, str]]:
    """What an ask tells of answers that were given before: pairs of a request's id and a key of `NEXT_ASKS`.

    `at_place` is what was remembered at the same place: the caller went back and asked again. `at_before` is the ask
    before this one: the caller has read its answer and goes on.
    """
    if ask.carried:
        return []
    told = []
    if at_place is not None and (how := _alike(ask, at_place.ask, opening=ask.before is None)):
        told.append((at_place.request_id, how))
    if at_before is not None:
        how = "objected" if ask.objects else _alike(ask, at_before.ask, opening=False)
        told.append((at_before.request_id, how or "went_on"))
    return told


def _alike(ask: Ask, earlier: Ask, *, opening: bool) -> str | None:
    """Openings of conversations have nothing in common but their caller, and templates are alike: there, only the very
    same ask is one that is asked again."""
    if ask.same == earlier.same:
        return "again"
    if opening or ask.numbers != earlier.numbers:
        return None
    return "rephrased" if likeness(ask.vector, earlier.vector) >= ALIKE else None


def packed(vector: Sequence[float] | NDArray[Any] | None) -> bytes:
    """The first dimensions of a vector, scaled to length 1, in a byte each."""
    if vector is None:
        return b""
    head: NDArray[Any] = np.asarray(vector[:DIMENSIONS], dtype=np.float64)
    length = math.sqrt(head @ head)
    return np.rint(head / length * SCALE).astype(np.int8).tobytes() if 0 < length < float("inf") else b""


def likeness(one: bytes, other: bytes) -> float:
    """The cosine of two packed vectors; 0 where they cannot be compared."""
    if not one or len(one) != len(other):
        return 0.0
    a, b = (np.frombuffer(packed_, dtype=np.int8).astype(np.float32) for packed_ in (one, other))
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0


def write_earlier(request_id: str, ask: Ask) -> bytes:
    """What to remember at the ask's place."""
    return orjson.dumps({"r": request_id, "d": ask.same, "n": ask.numbers, "v": b64encode(ask.vector).decode()})


def read_earlier(data: bytes | None, place: str) -> Earlier | None:
    """What was remembered there; what cannot be read was never there."""
    if data is None:
        return None
    try:
        entry = _Entry.model_validate_json(data)
    except ValidationError:
        return None
    return Earlier(entry.r, Ask(place, None, entry.d, entry.n, entry.v))


def _places(messages: Sequence[Message], owner: str, wanted: Iterable[int | None]) -> dict[int, str]:
    """A digest of what stands before each of the wanted messages; of an opening, before which nothing stands, of the
    message itself."""
    running = hashlib.blake2b(owner.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES)
    places, opening = {}, True
    for index, message in enumerate(messages):
        if index in wanted and not opening:
            places[index] = running.hexdigest()
        if message.role not in ("system", "developer"):
            running.update(_gist(message).encode("utf-8", "surrogatepass"))
            if index in wanted and opening:
                places[index] = running.hexdigest()
            opening = False
    return places


def _gist(message: Message) -> str:
    """A message as far as it tells one conversation from another; cheap for a long one."""
    texts = [message.role]
    for part in message.parts:
        if isinstance(part, SAID):
            texts.append(f"{len(part.text)} {part.text[:EDGE_CHARS]} {part.text[-EDGE_CHARS:]}")
        elif isinstance(part, ToolUsePart):
            texts.append(f"{part.name} {len(part.arguments)} {part.arguments[:EDGE_CHARS]}")
    return "\0".join(texts) + "\1"


def _numbers(text: str) -> list[str]:
    return text.translate(_DIGITS).split() if text.isascii() else NUMBER.findall(text)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()


NO_NUMBERS: Final = _digest("")
