"""The controller of rollouts: what every replica sees is put together in the store, and one of them at a time decides.

Every second a gateway adds what its requests showed and asks whether it is its turn; the one whose turn it is weighs
everything (`routing.trial`) and moves shares (`routing.rollouts`). A move is a comparison with what stood there, so it
happens once whoever makes it; it is audited, logged, and told to all. Without the store, shares stay as they are.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final, NamedTuple

import orjson
from pydantic import TypeAdapter, ValidationError

from app.config.schema import Rollout
from app.config.wording import place_of, worded
from app.core.errors import Blame, InternalError, Overloaded, StoreUnavailable, Throttled, Unprocessable
from app.core.record import Record
from app.gateway.audit import GATEWAY, OPERATOR, Audit, Entry
from app.routing.rollouts import (
    CONTROL,
    NOWHERE,
    TREATMENT,
    Assigned,
    Live,
    Running,
    assign,
    experiment,
    moved,
    started,
    written,
)
from app.routing.trial import FAILED, FIRST, SCORE, Seen, Trial, folded, judged
from app.store import layout
from app.store.broadcast import Broadcast
from app.store.client import Store
from app.store.scripts import load
from app.telemetry.logs import get_logger

TOPIC: Final = "rollouts"
FILE: Final = "file"
TICK_SECONDS: Final = 1.0
TURN_MILLISECONDS: Final = 900  # less than a tick, so that every tick is somebody's turn
FIRST_MAX: Final = 3_600_000
HELD_MAX: Final = 10_000  # values of one measure that wait for the next tick
TRIES: Final = 5
GONE: Final = Running("", 0.0)

TICK: Final = load("rollout_tick")

ShareObserver = Callable[[str, str, float], None]

log = get_logger("rollouts")


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """`serial` is that of the rollout it was made for."""

    serial: int
    trial: Trial


class Standing(NamedTuple):
    """A rollout for people: how it stands, and what its arms did since its share last changed."""

    live: Live
    trial: Trial


_LIVE: Final = TypeAdapter(Live)
_TRIAL: Final = TypeAdapter(StoredTrial)


class Rollouts:
    """`running` is what requests are assigned by; `observe(name, arm, share)` is told of every change."""

    def __init__(self, store: Store, audit: Audit, observe: ShareObserver) -> None:
        self.running: tuple[Running, ...] = ()
        self._store = store
        self._audit = audit
        self._observe = observe
        self._serials: Mapping[str, int] = {}
        self._since: Mapping[str, float] = {}
        self._held: dict[tuple[str, str, str], list[int]] = {}
        self._shown: dict[str, Running] = {}

    # --- requests ---------------------------------------------------------------------------------------------------

    def assign(self, unit: str, *, chosen: bool = False) -> Assigned:
        """Where a request belongs. `chosen`: its caller named the strategy."""
        return assign(self.running, unit, chosen=chosen) if self.running else NOWHERE

    def observe(self, record: Record) -> None:
        """A finished request: whether its arm failed, and how soon it began to answer."""
        arm = None if record.plan is None else record.plan.arm
        if arm is None or (failed := has_failed(record)) is None:
            return
        first = record.first_token_seconds
        for name, which in _arms(arm):
            self._hold(name, which, FAILED, int(failed))
            if first is not None:
                self._hold(name, which, FIRST, min(round(first * 1_000), FIRST_MAX))

    def scored(self, arm: str | None, quality: float, at: float = inf) -> None:
        """An answer's quality (0 to 1) became known, or better known; `arm` is that of its plan, `at` when it was given
        (seconds since 1970): what was answered before a share changed does not count after it."""
        for name, which in _arms(arm or ""):
            if at >= self._since.get(name, 0.0):
                self._hold(name, which, SCORE, round(1_000 * min(max(quality, 0.0), 1.0)))

    def _hold(self, name: str, arm: str, measure: str, value: int) -> None:
        if name in self._serials:
            values = self._held.setdefault((name, arm, measure), [])
            if len(values) < HELD_MAX:
                values.append(value)

    # --- what all replicas share ------------------------------------------------------------------------------------

    def follow(self, broadcast: Broadcast) -> None:
        """Keeps `running` up to date from now on."""
        broadcast.watch(TOPIC, self.refresh)

    async def refresh(self) -> None:
        lives = [live for live, _ in (await self._read()).values()]
        self.running = tuple(one for live in lives if (one := live.running) is not None)
        before, self._serials = self._serials, {one.experiment.name: one.serial for one in lives if one.running}
        self._since = {live.experiment.name: live.since for live in lives}
        same = {name for name, serial in self._serials.items() if before.get(name) == serial}
        self._held = {held: values for held, values in self._held.items() if held[0] in same}
        self._show({live.experiment.name: live.running or replace(GONE, name=live.experiment.name) for live in lives})

    def _show(self, shown: dict[str, Running]) -> None:
        for name in self._shown.keys() - shown.keys():
            shown[name] = replace(GONE, name=name)
        for name, one in shown.items():
            if self._shown.get(name) != one:
                treated = 0.0 if one.shadow else one.share
                self._observe(name, TREATMENT, treated)
                self._observe(name, CONTROL, 1 - treated if one.share else 0.0)
                self._observe(name, "shadow", one.share if one.shadow else 0.0)
        self._shown = shown

    async def adopt(self, wanted: Mapping[str, Rollout]) -> None:
        """Takes over what the file says: what is new or was changed there starts afresh, what it no longer names is
        gone. What it said before already stays as it stands, rolled back or changed by an operator."""
        stored = await self._read()
        for name, rollout in wanted.items():
            origin = hashlib.sha256(rollout.model_dump_json().encode()).hexdigest()[:16]
            live, before = stored.get(name, (None, None))
            if live is None or live.origin != origin:
                new = started(experiment(name, rollout), live, await self._now(), "the file says so", origin)
                await self._put(name, before, new, Entry(FILE, "rollout.start", name, "the file says so"))
        for name, (live, before) in stored.items():
            if name not in wanted and live.origin is not None:
                entry = Entry(FILE, "rollout.end", name, "the file no longer names it")
                await self._put(name, before, None, entry)
                await self._store.call("HDEL", layout.TRIALS, name, again=True)
        await self.refresh()

    async def standings(self) -> tuple[Standing, ...]:
        """All rollouts, as the store has them now."""
        stored, trials = await self._read(), _pairs(await self._store.call("HGETALL", layout.TRIALS, again=True))
        return tuple(
            Standing(live, _trial(trials.get(name.encode()), live)) for name, (live, _) in sorted(stored.items())
        )

    async def put(self, name: str, change: Mapping[str, Any]) -> Standing:
        """Starts a rollout, changes one, or arms it again. What the change does not say stays as it is. Raises
        `Unprocessable`."""
        for _ in range(TRIES):
            live, before = (await self._read()).get(name, (None, None))
            rollout = _valid({**({} if live is None else written(live.experiment)), **change})
            origin = None if live is None else live.origin
            new = started(experiment(name, rollout), live, await self._now(), "an operator said so", origin)
            entry = Entry(OPERATOR, "rollout.put", name, orjson.dumps(written(new.experiment)).decode())
            if await self._put(name, before, new, entry):
                await self.refresh()
                return Standing(new, Trial())
        raise Overloaded("This rollout is being changed by somebody else.", retry_after=1)

    # --- deciding ---------------------------------------------------------------------------------------------------

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Ticks for ever; to be cancelled."""
        while True:
            await sleep(TICK_SECONDS)
            try:
                await self.tick()
            except StoreUnavailable:
                continue  # the store says so itself; what was seen in this second is lost

    async def tick(self) -> None:
        """Tells what was seen here, and decides if it is this gateway's turn."""
        held, self._held = self._held, {}
        if not self.running:
            return
        told: list[str] = []
        for (name, arm, measure), values in held.items():
            told += (f"{name}|{self._serials[name]}|{arm}|{measure}", "".join(f"{value}," for value in values))
        keys = (layout.ROLLOUTS_SEEN, layout.ROLLOUTS_TURN, layout.ROLLOUTS, layout.TRIALS)
        waits = layout.PARTITIONS["rollouts-seen"].seconds or 0
        turn = await self._store.run(TICK, keys, (TURN_MILLISECONDS, waits, *told))
        if turn is None:
            return
        now, rollouts, trials, seen = int(turn[0]), _pairs(turn[1]), _pairs(turn[2]), _pairs(turn[3])
        for key, before in rollouts.items():
            live = _live(key, before)
            if live is not None and live.running is not None:
                await self._decide(live, before, _trial(trials.get(key), live), seen, now)

    async def _decide(self, live: Live, before: bytes, trial: Trial, seen: Mapping[bytes, bytes], now: float) -> None:
        name = live.experiment.name
        after = folded(trial, _seen(seen, live, CONTROL), _seen(seen, live, TREATMENT))
        ruling = judged(after)
        new = moved(live, ruling, now)
        if new is live:
            if after != trial:
                text = _TRIAL.dump_json(StoredTrial(live.serial, after))
                await self._store.call("HSET", layout.TRIALS, name, text, again=True)
            return
        entry = Entry(GATEWAY, f"rollout.{ruling.action}", name, ruling.why)
        if await self._put(name, before, new, entry):
            write = log.info if ruling.action == "up" else log.warning
            write("rollout moved", name=name, action=ruling.action, share=new.now.share, reason=ruling.why)
            await self.refresh()

    async def _put(self, name: str, before: bytes | None, new: Live | None, entry: Entry) -> bool:
        after = None if new is None else _LIVE.dump_json(new)
        return await self._audit.change(layout.ROLLOUTS, name, before, after, TOPIC, entry)

    async def _read(self) -> dict[str, tuple[Live, bytes]]:
        """All rollouts with their texts, in the order of their names, in which they take their requests."""
        stored = _pairs(await self._store.call("HGETALL", layout.ROLLOUTS, again=True))
        lives = {live.experiment.name: (live, text) for name, text in stored.items() if (live := _live(name, text))}
        return dict(sorted(lives.items()))

    async def _now(self) -> float:
        """The store's clock, which all replicas share."""
        seconds, _ = await self._store.call("TIME", again=True)
        return float(seconds)


def has_failed(record: Record) -> bool | None:
    """Whether the answer failed through what its arm stands for, be it that another model stepped in; None when that
    cannot be told: the client left, the request was wrong. Being throttled is no failure."""
    blamed = {attempt.blame for attempt in record.attempts if attempt.outcome != Throttled.kind}
    if Blame.UPSTREAM in blamed or Blame.US in blamed or record.error_code == InternalError.code:
        return True
    return False if record.error_code is None else None


def _arms(arm: str) -> Iterator[tuple[str, str]]:
    for part in arm.split(","):
        name, colon, which = part.partition(":")
        if colon and which in (CONTROL, TREATMENT):
            yield name, which


def _seen(seen: Mapping[bytes, bytes], live: Live, arm: str) -> Seen:
    head = f"{live.experiment.name}|{live.serial}|{arm}|"
    return {name: _values(seen.get(f"{head}{name}".encode(), b"")) for name in (FAILED, FIRST, SCORE)}


def _values(text: bytes) -> Sequence[int]:
    return [int(value) for value in text.split(b",") if value.isdigit()]


def _live(name: bytes, text: bytes) -> Live | None:
    try:
        live = _LIVE.validate_json(text)
    except ValidationError:
        log.warning(
            "the state of a rollout cannot be read, so it does not run", name=name[:64].decode(errors="replace")
        )
        return None
    sound = live.experiment.name.encode() == name and 0 <= live.step < len(live.experiment.ladder)
    return live if sound else None


def _trial(text: bytes | None, live: Live) -> Trial:
    try:
        stored = None if text is None else _TRIAL.validate_json(text)
    except ValidationError:
        return Trial()
    return stored.trial if stored is not None and stored.serial == live.serial else Trial()


def _valid(wanted: Mapping[str, Any]) -> Rollout:
    try:
        return Rollout.model_validate(wanted)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field, said = ".".join(map(str, place_of(first))), worded(first)
        raise Unprocessable(f"{field}: {said}" if field else said, param=field or None) from None


def _pairs(reply: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(reply[::2], reply[1::2], strict=True))
