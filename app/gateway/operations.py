"""What an operator does to upstreams: drain one, let it take part again, forget its failures. On every replica.

Both are kept in the store: a drain as a field that is there or not, a reset as a number that grows. A gateway that
missed the message reads them at the next poll; one that starts finds the drains, and has nothing to reset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.core.card import Card
from app.core.errors import NotFound, Overloaded
from app.core.upstream import Upstream
from app.gateway.audit import OPERATOR, Audit, Entry
from app.gateway.discovery import Found
from app.routing.registry import Registry
from app.store import layout
from app.store.broadcast import Broadcast
from app.store.client import Store
from app.upstreams.health import Health, ModelHealth
from app.upstreams.vllm import VllmUpstream

TOPIC: Final = "upstreams"
DRAIN: Final = "drain "
RESET: Final = "reset "
TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model as this gateway sees it. `demoted` says why it waits behind the others, if it does."""

    id: str
    breaker: str
    open_seconds: float
    throttled_seconds: float
    first_token_seconds: float | None
    demoted: str | None


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One server of a pool."""

    url: str
    in_flight: int
    waiting: int
    away: bool


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """One upstream as this gateway sees it. `error` is what was wrong when it was last asked for its models."""

    name: str
    kind: str
    local: bool
    drained: bool
    error: str | None
    in_flight: int
    max_concurrency: int
    load: float
    models: tuple[ModelState, ...]
    replicas: tuple[ReplicaState, ...]


@dataclass(frozen=True, slots=True)
class Around:
    """What there is at the moment: upstreams, their models, and what they said last."""

    upstreams: Callable[[], Mapping[str, Upstream]]
    registry: Callable[[], Registry]
    found: Callable[[], Sequence[Found]]


class Operations:
    """Drains and resets reach `health` here, and everybody else through the store."""

    def __init__(self, store: Store, audit: Audit, health: Health, around: Around) -> None:
        self._store = store
        self._audit = audit
        self._health = health
        self._around = around
        self._resets: Mapping[str, bytes] | None = None

    def follow(self, broadcast: Broadcast) -> None:
        broadcast.watch(TOPIC, self.refresh)

    async def refresh(self) -> None:
        fields = await self._fields()
        self._health.drained = frozenset(name.removeprefix(DRAIN) for name in fields if name.startswith(DRAIN))
        resets = {name.removeprefix(RESET): number for name, number in fields.items() if name.startswith(RESET)}
        known, self._resets = self._resets, resets
        if known is not None:
            for name, number in resets.items():
                if known.get(name) != number:
                    self._health.reset(name)

    async def drain(self, name: str) -> UpstreamState:
        """It gets nothing new, as long as anything else can answer. Raises `NotFound`."""
        return await self._change(name, DRAIN, "upstream.drain", lambda before: b"1")

    async def resume(self, name: str) -> UpstreamState:
        """The end of a drain. Raises `NotFound`."""
        return await self._change(name, DRAIN, "upstream.resume", lambda before: None)

    async def reset(self, name: str) -> UpstreamState:
        """Closes its breakers and forgets its throttles. Raises `NotFound`."""
        return await self._change(name, RESET, "upstream.reset", _next)

    async def _change(
        self, name: str, prefix: str, action: str, after: Callable[[bytes | None], bytes | None]
    ) -> UpstreamState:
        if name not in self._around.upstreams():
            there = ", ".join(self._around.upstreams())
            raise NotFound(f"There is no upstream named {name[:64]!r}; there are: {there}.")
        if self._resets is None:
            await self.refresh()  # so that what is changed now is news
        field = f"{prefix}{name}"
        for _ in range(TRIES):
            before = (await self._fields()).get(field)
            new = after(before)
            if new == before:
                break
            entry = Entry(OPERATOR, action, name)
            if await self._audit.change(layout.UPSTREAMS, field, before, new, TOPIC, entry):
                break
        else:
            raise Overloaded("This upstream is being changed by somebody else.", retry_after=1)
        await self.refresh()
        return self._state(name)

    async def _fields(self) -> dict[str, bytes]:
        reply = await self._store.call("HGETALL", layout.UPSTREAMS, again=True)
        names = (name.decode(errors="replace") for name in reply[::2])
        return dict(zip(names, reply[1::2], strict=True))

    # --- looking ----------------------------------------------------------------------------------------------------

    def states(self) -> tuple[UpstreamState, ...]:
        return tuple(map(self._state, self._around.upstreams()))

    def _state(self, name: str) -> UpstreamState:
        upstream, health = self._around.upstreams()[name], self._health
        traffic = health.traffic
        called = {one.model: one for one in health.snapshot(name)}
        cards = [card for card in self._around.registry().cards if card.upstream == name]
        return UpstreamState(
            name,
            upstream.kind,
            upstream.local,
            name in health.drained,
            next((found.error for found in self._around.found() if found.upstream == name), None),
            traffic.in_flight(name),
            traffic.ceiling(name),
            traffic.use(name),
            tuple(self._model(card, called.get(card.id)) for card in cards),
            _replicas(upstream),
        )

    def _model(self, card: Card, called: ModelHealth | None) -> ModelState:
        one = called or ModelHealth(card.id, self._health.state(card), 0.0, 0.0)
        first = self._health.traffic.first_token(card)
        demoted = self._health.demoted(card)
        return ModelState(card.id, one.state, one.open_seconds, one.throttled_seconds, first, demoted)


def _replicas(upstream: Upstream) -> tuple[ReplicaState, ...]:
    if not isinstance(upstream, VllmUpstream):
        return ()
    replicas = upstream.pool.replicas
    return tuple(ReplicaState(one.url, one.in_flight, one.queue_depth, one.away) for one in replicas)


def _next(before: bytes | None) -> bytes:
    return b"%d" % (int(before) + 1 if before is not None and before.isdigit() else 1)
