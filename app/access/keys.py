"""API keys: made, listed and revoked in the store, checked against a snapshot in memory.

A request is checked without asking the store, so keys go on working while it is away; a change reaches every gateway
through the broadcast. A secret is shown once. What is stored is its plain SHA-256: it holds 256 random bits, so there
is nothing to guess and a slow hash would only cost time on every request.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, StrictInt, StringConstraints, ValidationError

from app.config.values import Usd
from app.core.caller import Caller
from app.core.clock import Clock
from app.core.errors import InvalidApiKey, InvalidValue, NotFound, StoreUnavailable
from app.core.money import NANO_PER_USD
from app.core.secret import PREFIX
from app.store import layout
from app.store.broadcast import Broadcast
from app.store.client import Store
from app.store.scripts import load

TOPIC: Final = "keys"
SECRET_BYTES: Final = 32

PUT: Final = load("key_put")
REVOKE: Final = load("key_revoke")

Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]

Budget = Annotated[Usd, Field(le=1_000_000), PlainSerializer(float, return_type=float)]
"""USD; up to here a number of JSON holds every nano-dollar."""
PerMinute = Annotated[StrictInt, Field(ge=1, le=60_000_000)]
Seats = Annotated[StrictInt, Field(ge=1, le=100_000)]

log = logging.getLogger("tierway.access")


class KeySpec(BaseModel):
    """What is asked for when a key is made. Unknown fields are errors: a limit that nobody enforces is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    tenant: Name | None = None
    models: Annotated[tuple[Pattern, ...], Field(max_length=100, examples=[["ollama/*"]])] = ()
    expires_at: Annotated[StrictInt, Field(gt=0, lt=1 << 40)] | None = None  # seconds since 1970, UTC
    priority: Literal["interactive", "batch"] = "interactive"
    privacy: Literal["any", "local"] = "any"
    store_content: Literal["off", "session", "training"] = "session"
    retention_days: Annotated[StrictInt, Field(ge=0, le=3650)] | None = None
    budgets: Annotated[dict[Literal["day", "month", "total"], Budget], Field(examples=[{"day": 5}])] = {}  # USD in each
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    concurrency: Seats | None = None  # requests that may run at the same time


class KeyRecord(KeySpec):
    """What may be shown of a key that exists. Fields of a later release are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: Pattern
    created_at: int
    revoked_at: int | None = None

    def caller(self) -> Caller:
        return Caller(
            key_id=self.id,
            name=self.name,
            tenant=self.tenant,
            models=self.models,
            privacy=self.privacy,
            store_content=self.store_content,
            retention_days=self.retention_days,
            priority=self.priority,
            budgets=tuple((period, int(usd * NANO_PER_USD)) for period, usd in self.budgets.items()),
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            concurrency=self.concurrency,
        )


class StoredKey(KeyRecord):
    """What the store holds."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

    def record(self, revoked_at: int | None) -> KeyRecord:
        return KeyRecord.model_validate({**self.model_dump(), "revoked_at": revoked_at})


@dataclass(frozen=True, slots=True)
class _Entry:
    digest: bytes
    caller: Caller
    expires_at: int | None
    revoked: bool


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All keys at one moment. `any_created` counts revoked ones: with the first key, calling without one ends."""

    clock: Clock = field(repr=False)
    records: tuple[KeyRecord, ...] = ()
    any_created: bool = False
    _entries: Mapping[bytes, _Entry] = field(default_factory=dict, repr=False)

    def authenticate(self, secret: str) -> Caller:
        """Raises `InvalidApiKey`. Only who has the whole secret learns that it once worked."""
        digest = _digest(secret)
        entry = self._entries.get(digest)
        if entry is None or not hmac.compare_digest(entry.digest, digest):
            raise InvalidApiKey("The API key is not valid.")
        if entry.revoked:
            raise InvalidApiKey("The API key was revoked.")
        if entry.expires_at is not None and entry.expires_at <= self.clock.now():
            raise InvalidApiKey("The API key has expired.")
        return entry.caller


class Keys:
    """The service. `ring` is what requests are checked against; `refresh` replaces it."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._asked = self._shown = 0
        self.ring = KeyRing(clock)

    def follow(self, broadcast: Broadcast) -> None:
        """Keeps the ring up to date from now on."""
        broadcast.watch(TOPIC, self.refresh)

    async def refresh(self) -> None:
        """Reads all keys. When the store is away, raises `StoreUnavailable` and leaves the ring as it is."""
        self._asked += 1
        mine = self._asked
        keys, revoked = await asyncio.gather(
            self._store.call("HGETALL", layout.KEYS, again=True),
            self._store.call("HGETALL", layout.KEYS_REVOKED, again=True),  # read last: nothing is un-revoked
        )
        if mine > self._shown:
            self._shown = mine
            # A store that was emptied must not open the gateway to callers without a key.
            self.ring = _ring(self._clock, _pairs(keys), _pairs(revoked), self.ring.any_created)

    async def create(self, spec: KeySpec) -> tuple[KeyRecord, str]:
        """The key and its secret, which nobody will see again."""
        now = int(self._clock.now())
        if spec.expires_at is not None and spec.expires_at <= now:
            raise InvalidValue("expires_at is in the past.", param="expires_at")
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        stored = StoredKey(
            **spec.model_dump(), id=f"key_{secrets.token_hex(8)}", created_at=now, sha256=_digest(secret).hex()
        )
        if spec.budgets:  # what is spent from now on must survive a loss of power
            await self._store.make_durable()
        await self._store.run(
            PUT,
            (layout.KEYS, layout.VERSIONS),
            (stored.id, stored.model_dump_json(exclude={"revoked_at"}), TOPIC, layout.CHANGES),
            again=True,
        )
        await self._read_own_write()
        return stored.record(None), secret

    async def list(self) -> tuple[KeyRecord, ...]:
        """All keys, oldest first, as the store has them now."""
        await self.refresh()
        return self.ring.records

    async def revoke(self, key_id: str) -> None:
        """For good, and again without harm. Raises `NotFound`."""
        known = await self._store.run(
            REVOKE,
            (layout.KEYS, layout.KEYS_REVOKED, layout.VERSIONS),
            (key_id, int(self._clock.now()), TOPIC, layout.CHANGES),
            again=True,
        )
        if not known:
            raise NotFound("There is no key with this id.")
        await self._read_own_write()

    async def _read_own_write(self) -> None:
        """So that what was just made or revoked counts here at once; should it fail, the broadcast comes anyway."""
        with contextlib.suppress(StoreUnavailable):
            await self.refresh()


def same_secret(given: str, expected: str) -> bool:
    """Compares in constant time, whatever the lengths; for the admin key."""
    return hmac.compare_digest(_digest(given), _digest(expected))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _pairs(reply: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _ring(clock: Clock, keys: Mapping[bytes, bytes], revoked: Mapping[bytes, bytes], any_created: bool) -> KeyRing:
    entries: dict[bytes, _Entry] = {}
    records: list[KeyRecord] = []
    for stored in _readable(keys):
        when = revoked.get(stored.id.encode())
        records.append(stored.record(None if when is None else _seconds(when)))
        digest = bytes.fromhex(stored.sha256)
        entries[digest] = _Entry(digest, stored.caller(), stored.expires_at, when is not None)
    records.sort(key=lambda record: (record.created_at, record.id))
    return KeyRing(clock, tuple(records), any_created or bool(keys), entries)


def _readable(keys: Mapping[bytes, bytes]) -> Iterable[StoredKey]:
    for key_id, text in keys.items():
        try:
            stored = StoredKey.model_validate_json(text)
        except ValidationError:
            log.warning("the record of key %r cannot be read, so the key is not accepted", key_id[:100])
            continue
        if stored.id.encode() == key_id:
            yield stored


def _seconds(text: bytes) -> int:
    return int(text) if text.isdigit() else 0
