"""Answers kept for repetition: the same idempotency key and the same request get the answer that was given, once.

Who claims a key first answers it and keeps the claim alive; a gateway that dies loses it after seconds. Only a finished
answer is kept. A key is its caller's own; callers without one share theirs, and need the whole request to be answered.

What is kept is content, so the store never has it in the clear: it is sealed with what only the request itself can
tell, and the store holds nothing but a print of that. Errors are a caller's to see: without the store nothing can be
promised, so nothing is.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Mapping
from typing import Final, NamedTuple

import orjson

from app.core.caller import Caller
from app.core.errors import (
    IdempotencyInFlight,
    IdempotencyMismatch,
    IdempotencyNotKept,
    InternalError,
    InvalidValue,
    Overloaded,
    StoreUnavailable,
)
from app.store import layout
from app.store.client import Store
from app.store.scripts import load

CLAIM: Final = load("idempotency_claim")
KEEP: Final = load("idempotency_keep")
HOLD: Final = load("idempotency_hold")

NAME: Final = "idempotency-key"
HEADER: Final = NAME.encode()
KEY_MAX: Final = 255
ANSWER_BYTES: Final = 1_048_576
"""A longer answer is given, but not kept."""
ROOM_BYTES: Final = 134_217_728
ENTRY_BYTES: Final = 400  # what the store takes beside the answer
LEAST_SECONDS: Final = 3_600
HOLD_SECONDS: Final = 30.0
"""How long a claim outlives the gateway that made it."""
OURS: Final = b"x-tierway-"
INDIFFERENT: Final = frozenset({b"x-tierway-timeout", b"x-tierway-priority"})
"""Those of our headers that may differ between a request and its repetition: they do not change the answer."""

Headers = tuple[tuple[bytes, bytes], ...]

log = logging.getLogger("tierway.access")


class Answer(NamedTuple):
    status: int
    headers: Headers
    body: bytes


class Asked(NamedTuple):
    """One request under an idempotency key. `secret` never leaves the process."""

    name: str
    print: bytes
    secret: bytes


class Claim(NamedTuple):
    """The right to answer it."""

    asked: Asked
    owner: str


def keepable(caller: Caller) -> bool:
    """Whether content of this caller may be stored."""
    return caller.store_content != "off" and caller.retention_days != 0


def asked_of(caller: Caller, key: bytes, path: str, headers: Mapping[bytes, bytes], body: bytes) -> Asked:
    """Raises `InvalidValue` for what is no key."""
    if not (0 < len(key) <= KEY_MAX and all(0x20 <= byte < 0x7F for byte in key)):
        raise InvalidValue(f"{NAME} must be 1 to {KEY_MAX} printable ASCII characters.", param=NAME)
    name = hashlib.sha256(f"{caller.key_id or ''}\n".encode() + key).hexdigest()
    whole = hashlib.sha512(path.encode("utf-8", "surrogatepass"))
    for header in sorted(headers):
        if header.startswith(OURS) and header not in INDIFFERENT:
            whole.update(b"\n%b:%b" % (header, headers[header]))
    whole.update(b"\n\n" + body)
    digest = whole.digest()
    return Asked(layout.key("idempotency", name), digest[:32], digest[32:])


class Idempotency:
    """The service. Sizes are arguments for tests' sake."""

    def __init__(self, store: Store, *, room_bytes: int = ROOM_BYTES, hold_seconds: float = HOLD_SECONDS) -> None:
        self._store = store
        self._room = room_bytes
        self._hold_ms = round(hold_seconds * 1_000)
        self.renew_seconds = hold_seconds / 3

    async def claim(self, asked: Asked) -> Claim | Answer:
        """The answer that was given, or the right to give it. Raises `IdempotencyMismatch`, `IdempotencyInFlight`,
        `IdempotencyNotKept`, `Overloaded`, `StoreUnavailable`."""
        owner = secrets.token_hex(16)
        state, *rest = await self._store.run(
            CLAIM,
            (asked.name, layout.IDEMPOTENCY_ROOM),
            (asked.print, owner, self._hold_ms, self._room, layout.lifetime("idempotency"), LEAST_SECONDS),
            again=True,
        )
        match state:
            case b"mine":
                return Claim(asked, owner)
            case b"answer":
                return _read(asked, *rest)
            case b"other":
                raise IdempotencyMismatch("This idempotency key was used for another request.", param=NAME)
            case b"running":
                raise IdempotencyInFlight(
                    "The first request with this idempotency key is still being answered.", param=NAME, retry_after=1
                )
            case b"unkept":
                raise IdempotencyNotKept(
                    "This was answered before, but the answer was too large to be kept. Use a new idempotency key to"
                    " ask again.",
                    param=NAME,
                )
            case _:
                raise Overloaded("There is no room to keep more answers by idempotency key.", retry_after=60)

    async def keep(self, claim: Claim, answer: Answer | None) -> bool:
        """Keeps a finished answer, None for one that is too large; False while the store is away."""
        sealed = b"" if answer is None else _seal(_written(answer), claim.asked, claim.owner)
        try:
            kept = await self._store.run(
                KEEP,
                (claim.asked.name, layout.IDEMPOTENCY_ROOM),
                (
                    claim.asked.print,
                    claim.owner,
                    sealed,
                    ENTRY_BYTES,
                    self._room,
                    layout.lifetime("idempotency"),
                    LEAST_SECONDS,
                ),
                again=True,
            )
        except StoreUnavailable:
            return False
        if not kept:
            log.warning("an idempotency key was claimed by two: this gateway was silent for too long")
        return True

    async def renew(self, claim: Claim) -> None:
        """To be called every `renew_seconds` while the answer is being given. A store that is away is let be."""
        await self._hold(claim, self._hold_ms)

    async def release(self, claim: Claim) -> None:
        """No answer came of it: the next request with this key is the first again."""
        await self._hold(claim, 0)

    async def _hold(self, claim: Claim, milliseconds: int) -> None:
        try:
            await self._store.run(HOLD, (claim.asked.name,), (claim.owner, milliseconds), again=True)
        except StoreUnavailable:
            log.info("a claim on an idempotency key could not be renewed or given up")


def _written(answer: Answer) -> bytes:
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in answer.headers]
    return orjson.dumps([answer.status, headers]) + b"\n" + answer.body


def _read(asked: Asked, owner: bytes, sealed: bytes) -> Answer:
    head, _, body = _seal(sealed, asked, owner.decode("ascii", "replace")).partition(b"\n")
    try:
        status, headers = orjson.loads(head)
        rows = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
        return Answer(int(status), rows, body)
    except (ValueError, TypeError, AttributeError) as error:
        raise InternalError("A kept answer cannot be read.") from error


def _seal(data: bytes, asked: Asked, owner: str) -> bytes:
    """Seals and unseals. The stream is never used twice: its owner is random, and keeps one answer."""
    stream = hashlib.shake_256(asked.secret + owner.encode()).digest(len(data))
    return (int.from_bytes(data) ^ int.from_bytes(stream)).to_bytes(len(data))
