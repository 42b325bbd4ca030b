"""Remembers decisions, and what is learnt about their answers: a week by request id, ninety days as a training log.

`note` reads finished requests and only puts them aside; they are written soon after, many with one script, so that no
caller ever waits for it. A store that is away loses decisions, which is counted, and nothing else. Every later word
about an answer (feedback, the next ask, a shadow) goes through `add`, which keeps the learned success in step.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from app.core.caller import Caller
from app.core.clock import Clock
from app.core.errors import GatewayError, NotFound
from app.core.outcome import Ask, Outcome
from app.core.record import Record
from app.core.tasks import TaskOwner
from app.core.value import value
from app.learning import asks, decision, outcome
from app.learning.decision import Decision, Remembered
from app.learning.success import Success
from app.store import layout
from app.store.client import Store
from app.store.link import Value
from app.store.scripts import load
from app.telemetry.logs import get_logger

SOON_SECONDS: Final = 0.05
WAITING_MAX: Final = 2_000
BATCH_MAX: Final = 32  # the store serves nobody else meanwhile
AGAIN_SECONDS: Final = 0.25  # an answer may be judged before another gateway has written down that it was given
LEAST_SECONDS: Final = 60
ROOM_BYTES: Final = 67_108_864
FIELDS_BYTES: Final = 400  # what the store itself takes for a decision
TRAINING_ROWS: Final = 1_000  # of a day; with 90 days and 4 KiB a row, 360 MB at the very worst
REPEATS_MAX: Final = 3  # the same ask at the same place more often than this comes from a program, not from a person
PLACES_MAX: Final = 4_096
CHAT: Final = "chat"
KEPT_SECONDS: Final = layout.lifetime("decision")
LOG_SECONDS: Final = layout.lifetime("training")
Rescored = Callable[[str | None, float, float], None]
UNKNOWN: Final = "There is no such request of this key, or it is too long ago."

log = get_logger("tierway.learning")

PUT: Final = load("decision_put")
OUTCOME: Final = load("decision_outcome")
ASKS: Final = load("asks")


@value(frozen=True, slots=True)
class _Noted:
    """What is still to be written of one request."""

    decision: Decision
    outcomes: tuple[Outcome, ...]
    ask: Ask | None
    retention_days: int | None


class Decisions:
    """The service. `lost` counts decisions that were not kept. `tasks` are awaited at shutdown. `rescored(arm, quality,
    at)` hears what an answer is worth whenever somebody said more about it; `at` is when it was given."""

    def __init__(
        self,
        store: Store,
        success: Success,
        tasks: TaskOwner,
        clock: Clock,
        lost: Callable[[int], None] = lambda count: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rescored: Rescored = lambda arm, quality, at: None,
    ) -> None:
        self._store = store
        self._success = success
        self._tasks = tasks
        self._clock = clock
        self._lost = lost
        self._sleep = sleep
        self._rescored = rescored
        self._waiting: deque[_Noted] = deque()
        self._writing = False
        self._repeats: dict[str, int] = {}

    # --- a finished request -------------------------------------------------------------------------------------------

    def note(self, record: Record) -> None:
        """Learns from a finished request at once, and puts it aside to be written. A reader of `Settlement`."""
        made = decision.of_record(record) if record.endpoint == CHAT else None
        if made is None:
            return
        outcomes = outcome.of_record(record)
        if record.model is not None:
            self._success.learn(record.model, made.task_type, made.learnt_tier, outcome.evidence(outcomes))
        for model, evidence in outcome.escalations(record):
            self._success.learn(model, made.task_type, made.learnt_tier, evidence)
        if record.retention_days == 0:
            return
        if not self._store.healthy or len(self._waiting) >= WAITING_MAX:
            self._lost(1)
            return
        ask = record.ask
        if ask is not None and (record.consent == "off" or self._from_a_program(ask)):
            ask = None
        self._waiting.append(_Noted(made, outcomes, ask, record.retention_days))
        if not self._writing:
            self._writing = True
            self._tasks.spawn(self._write_soon(), "remember decisions")

    def _from_a_program(self, ask: Ask) -> bool:
        """Whether the same came too often to tell anything: health checks, load tests, sampling many answers."""
        if ask.carried:
            return False
        if len(self._repeats) >= PLACES_MAX:
            self._repeats.clear()
        what = ask.place + ask.same
        times = self._repeats[what] = self._repeats.get(what, 0) + 1
        return times > REPEATS_MAX

    async def _write_soon(self) -> None:
        try:
            await self._sleep(SOON_SECONDS)
            await self.flush()
        finally:
            self._writing = False

    async def flush(self) -> None:
        """Writes what was put aside."""
        while self._waiting:
            await self._write_batch()

    async def _write_batch(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
        asked = [(noted.decision, noted.ask) for noted in batch if noted.ask is not None]
        lives, told = await _all((self._put(batch), self._judge_earlier(asked)))
        kept = sum(seconds > 0 for seconds in lives or ())
        if kept < len(batch):
            self._lost(len(batch) - kept)
        await _all(self._say(earlier, whose, said, ()) for earlier, whose, said in told or ())

    async def _put(self, batch: Sequence[_Noted]) -> list[int]:
        """The seconds that each which could be written will live."""
        keys = [layout.ROOM]
        args: list[Value] = [
            ROOM_BYTES,
            KEPT_SECONDS,
            LEAST_SECONDS,
            TRAINING_ROWS,
            LOG_SECONDS,
        ]
        for noted in batch:
            made = noted.decision
            try:
                log_key, row = _log_key(int(made.at // layout.DAY)), _row(noted)
            except (TypeError, ValueError, OverflowError) as error:
                log.error("a decision cannot be kept", exc_info=error)
                continue
            keys += layout.key("decision", made.request_id), log_key
            args += row
        lives: list[int] = await self._store.run(PUT, keys, args)
        return lives

    # --- what is learnt later -----------------------------------------------------------------------------------------

    async def _judge_earlier(self, asked: Sequence[tuple[Decision, Ask]]) -> list[tuple[str, str, Outcome]]:
        """What the asks of these requests tell of the answers before them: of which request, of whose, and what."""
        keys: list[str] = []
        args: list[Value] = [layout.lifetime("ask")]
        for made, ask in asked:
            keys.append(layout.key("ask", ask.place))
            args.append(asks.write_earlier(made.request_id, ask))
            if ask.before is not None:
                keys.append(layout.key("ask", ask.before))
                args.append("")
        remembered = iter(await self._store.run(ASKS, keys, args) if keys else ())
        told, now = [], self._clock.now()
        for made, ask in asked:
            at_place = asks.read_earlier(next(remembered), ask.place)
            before = None if ask.before is None else asks.read_earlier(next(remembered), ask.before)
            for earlier, how in asks.judged(ask, at_place, before):
                if earlier != made.request_id:
                    told.append((earlier, made.key_id or "", outcome.next_ask(how, now)))
        return told

    async def rate(
        self, request_id: str, caller: Caller, rating: float, texts: Sequence[tuple[str, str]] = ()
    ) -> tuple[str, ...]:
        """The caller's own word on an answer; the names of the texts that were kept. Raises `NotFound` where no such
        request of this key is remembered, `StoreUnavailable`."""
        said, owner = outcome.feedback(rating, self._clock.now()), caller.key_id or ""
        allowed = () if caller.store_content == "off" else texts
        await self.flush()
        kept = await self._say(request_id, owner, said, allowed)
        if kept is None:
            await self._sleep(AGAIN_SECONDS)
            kept = await self._say(request_id, owner, said, allowed)
        if kept is None:
            raise NotFound(UNKNOWN, param="request_id")
        return kept

    async def add(self, request_id: str, said: Outcome) -> bool:
        """What one of our own sources found out about an answer; whether its decision is still remembered."""
        await self.flush()
        return await self._say(request_id, None, said, ()) is not None

    async def _say(
        self, request_id: str, owner: str | None, said: Outcome, texts: Sequence[tuple[str, str]]
    ) -> tuple[str, ...] | None:
        """Adds an outcome; None where there is no such decision, or it is another's."""
        key = layout.key("decision", request_id)
        whose, log = await self._store.call("HMGET", key, "owner", "log", again=True)
        if log is None or (owner is not None and whose != owner.encode()):
            return None
        fields, kept = await self._store.run(
            OUTCOME,
            (key, layout.ROOM, log.decode()),
            (
                said.source,
                decision.write_outcome(said),
                request_id,
                ROOM_BYTES,
                layout.lifetime("decision"),
                *_flat(texts),
            ),
        )
        known = _remembered(fields)
        if known is None:
            return None
        self._relearn(known, said)
        return tuple(name for name, _ in texts) if kept else ()

    def _relearn(self, known: Remembered, said: Outcome) -> None:
        made = known.decision
        if made.model is not None:
            before = outcome.evidence(known.outcomes)
            after = outcome.evidence(outcome.replaced(known.outcomes, said))
            self._success.learn(made.model, made.task_type, made.learnt_tier, after, before)
            self._rescored(made.arm, after.value, made.at)

    # --- looking back -------------------------------------------------------------------------------------------------

    async def get(self, request_id: str) -> Remembered:
        """Raises `NotFound`, `StoreUnavailable`."""
        await self.flush()
        found = _remembered(await self._store.call("HGETALL", layout.key("decision", request_id), again=True))
        if found is None:
            raise NotFound("No decision of this id is remembered; they are kept for seven days.")
        return found

    async def training(self, day: str) -> tuple[Remembered, ...]:
        """The rows of one day of the log (2026-11-20, UTC): a fair sample of it. Raises `StoreUnavailable`."""
        return await training_rows(self._store, day)


async def training_rows(store: Store, day: str) -> tuple[Remembered, ...]:
    """`Decisions.training`, for who has nothing but the store."""
    rows = await store.call("HVALS", layout.key("training", day), again=True)
    return tuple(row for data in rows if (row := decision.read_row(data)) is not None)


async def _all(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """The results of calls made in one go; a call that failed has none. One that fails by a fault of ours is told of,
    and is no affair of the others, nor of who waits for them."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            if not isinstance(result, GatewayError):
                log.error("a decision cannot be kept", exc_info=result)
        elif isinstance(result, BaseException):
            raise result
    return [None if isinstance(result, BaseException) else result for result in results]


def _row(noted: _Noted) -> list[Value]:
    """A decision as the script takes it, with its outcomes."""
    made, days = noted.decision, noted.retention_days
    data = decision.write(made)
    row: list[Value] = [
        made.key_id or "",
        data,
        len(data) + FIELDS_BYTES,
        KEPT_SECONDS if days is None else min(KEPT_SECONDS, days * layout.DAY),
        made.request_id,
        int(days is None or days * layout.DAY >= LOG_SECONDS),
        int(1_000_000 * random.random()),
        len(noted.outcomes),
    ]
    for each in noted.outcomes:
        row += each.source, decision.write_outcome(each)
    return row


def _flat(texts: Sequence[tuple[str, str]]) -> tuple[Value, ...]:
    return tuple(part for pair in texts for part in pair)


@lru_cache(8)
def _log_key(day: int) -> str:
    """The training log of a day, counted from 1970."""
    return layout.key("training", datetime.fromtimestamp(day * layout.DAY, UTC).date().isoformat())


def _remembered(fields: list[bytes]) -> Remembered | None:
    """The fields of a stored decision; None for none, or for what cannot be read."""
    pairs = dict(zip(fields[::2], fields[1::2], strict=True))
    made = decision.read(pairs.get(b"decision", b""))
    if made is None:
        return None
    found = [decision.read_outcome(data) for name, data in sorted(pairs.items()) if name.startswith(b"outcome:")]
    texts = sorted((name, text) for name, text in pairs.items() if name.startswith(b"text:"))
    return Remembered(
        made,
        tuple(each for each in found if each is not None),
        tuple((name[5:].decode(), text.decode("utf-8", "replace")) for name, text in texts),
    )
