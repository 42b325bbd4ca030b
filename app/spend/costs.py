"""What traffic cost and how it went, summed up by day: by model, upstream, key, tenant and agent, for all gateways.

There are two ways in, and each number takes exactly one. What a leased attempt cost, and its tokens, travel as cells
with the settlement of its lease, so that they are booked once and with the money. Everything else comes out of finished
records: it waits here, and is merged into the store every second, exactly once. Days are those of UTC.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

from app.config.settings import UpstreamSettings
from app.core.clock import Clock
from app.core.errors import Blame, GatewayError, StoreUnavailable
from app.core.money import NANO_PER_USD
from app.core.record import Attempt, Record
from app.core.spending import CostCell
from app.spend import cells
from app.spend.cells import Names, Prefixes, Who
from app.spend.dearest import Dearest
from app.spend.histogram import bucket
from app.store import layout
from app.store.client import Store
from app.store.scripts import load

SYNC_SECONDS: Final = 1.0
BATCH: Final = 400
"""Sums in one merge: as many as the store can take without keeping a payment waiting."""
FIELDS_MAX: Final = 60_000
HOUR: Final = 3_600
MILLI: Final = 1_000
DAYS_SECONDS: Final = layout.lifetime("costs")
NOT_LOST: Final = frozenset({"ok", "left", "stopped", "expired"})
"""Outcomes of attempts whose answer reached the client, or a part of it did, or of which nobody knows."""

MERGE: Final = load("costs_merge")

log = logging.getLogger("tierway.costs")


class Place(NamedTuple):
    """What kind of upstream it is, and whether it is local."""

    kind: str
    local: bool


@dataclass(frozen=True, slots=True)
class Around:
    """What costs ask of others. `place` knows the upstreams; `hourly` are nano-dollars an hour of their machines;
    `saved` and `imputed` are told nano-dollars, for metrics."""

    dearest: Dearest
    place: Callable[[str], Place | None]
    hourly: Mapping[str, int]
    saved: Callable[[int], None] = lambda nano: None
    imputed: Callable[[str, int], None] = lambda upstream, nano: None


def hourly_of(upstreams: Mapping[str, UpstreamSettings]) -> dict[str, int]:
    """Nano-dollars an hour, of the machines that have a price."""
    return {name: int(each.cost_per_hour * NANO_PER_USD) for name, each in upstreams.items() if each.cost_per_hour}


class Costs:
    """The service of one gateway. `note` reads every record."""

    def __init__(self, store: Store, clock: Clock, around: Around) -> None:
        self.store = store
        self.clock = clock
        self.hourly = around.hourly
        self._around = around
        self._day = -1
        self._key = ""
        self._names = Names()
        self._upstreams: dict[str, tuple[str, bool]] = {}
        self._pending: defaultdict[str, defaultdict[str, int]] = defaultdict(_sums)  # by hash and field
        self._sending: tuple[int, dict[str, dict[str, int]]] | None = None
        self._merges = 0
        self._process = secrets.token_hex(8)
        self._merging = asyncio.Lock()
        self._unsaved = 0

    # --- in, with the settlement of a lease ---------------------------------------------------------------------------

    def cells_of(
        self, attempt: Attempt, key_id: str | None, tenant: str | None, agent: str | None, *, stands_in: bool = False
    ) -> tuple[CostCell, ...]:
        """The cost and tokens of a leased attempt, to be booked with its settlement. `stands_in`: it is not the model
        that should have answered. The cost is among them even where there is none: it may have to correct what the
        expiry of the lease booked."""
        self._turn()
        prefixes = self._prefixes(attempt.model, key_id, tenant, agent)
        booked = {cells.COST: 0, **money_of(attempt, stands_in=stands_in)}
        made = []
        for measure, amount in booked.items():
            made.append(CostCell(self._key, prefixes.day + measure, amount, DAYS_SECONDS))
            if measure in cells.EVER:
                made.append(CostCell(layout.COSTS_TOTAL, prefixes.ever + measure, amount, 0))
        return tuple(made)

    # --- in, from records ---------------------------------------------------------------------------------------------

    def note(self, record: Record) -> None:
        """A finished request."""
        self._turn()
        model, key, tenant, agent = record.model, record.key_id, record.tenant, record.agent
        mine = self._prefixes(model, key, tenant, agent)
        for measure in counted(record):
            self._add(mine, measure, 1)
        attempts = _with_usage(record)
        imputed = 0
        for attempt in attempts:
            prefixes = mine if attempt.model == model else self._prefixes(attempt.model, key, tenant, agent)
            if not attempt.leased:
                stands_in = record.fallback_from is not None and attempt.model == model
                for measure, amount in money_of(attempt, stands_in=stands_in).items():
                    self._add(prefixes, measure, amount)
            imputed += self._imputed(attempt, prefixes)
        self._compare(record, attempts, imputed, mine)
        if record.upstream is not None:
            self._note_upstream(record, record.upstream)

    def scored(self, model: str, value: int, weight: int) -> None:
        """What was learnt of an answer's quality: more, or less, evidence in thousandths of answers."""
        self._turn()
        prefix, _ = self._upstream(model.partition("/")[0])
        self._put(prefix + cells.VALUE, value)
        self._put(prefix + cells.WEIGHT, weight)

    def _imputed(self, attempt: Attempt, prefixes: Prefixes) -> int:
        """The price of the machine's time that an attempt took. Where its share is not known, it had all of it."""
        hourly = self._around.hourly.get(attempt.upstream)
        prefix, local = self._upstream(attempt.upstream)
        if not hourly and not local:
            return 0
        seconds = attempt.seconds if attempt.machine_seconds is None else attempt.machine_seconds
        self._put(prefix + cells.WORK, round(seconds * MILLI))
        nano = round(seconds * hourly / HOUR) if hourly else 0
        if nano:
            self._add(prefixes, cells.IMPUTED, nano)
            self._around.imputed(attempt.upstream, nano)
        return nano

    def _compare(self, record: Record, attempts: tuple[Attempt, ...], imputed: int, mine: Prefixes) -> None:
        """What was saved: the dearest capable model's price, less all that was billed and imputed. What came to no
        answer, and what requests cause by themselves, only cost. Where a price is unknown, nothing is claimed."""
        spent = imputed
        for attempt in attempts:
            if attempt.cost_nano is None and attempt.tokens is not None:
                return
            spent += attempt.cost_nano or 0
        saved = -spent
        if record.depth == 0 and record.error_code is None and record.model is not None:
            tokens = record.tokens
            dearest = None if tokens is None else self._around.dearest.cost_nano(record.needs, tokens)
            if dearest is None:
                return
            self._add(mine, cells.COMPARED, 1)
            self._add(mine, cells.DEAREST, dearest)
            saved += dearest
        self._add(mine, cells.SAVED, saved)
        self._tell_saved(saved)

    def _tell_saved(self, nano: int) -> None:
        """A counter only rises, so losses are made up for before it goes on."""
        self._unsaved += nano
        if self._unsaved > 0:
            self._around.saved(self._unsaved)
            self._unsaved = 0

    def _note_upstream(self, record: Record, upstream: str) -> None:
        prefix, _ = self._upstream(upstream)
        for attempt in record.attempts:
            if attempt.blame == Blame.UPSTREAM:
                self._put(self._upstream(attempt.upstream)[0] + cells.FAILED, 1)
        if record.depth == 0 and record.error_code is None:
            self._put(prefix + cells.ANSWERS, 1)
            self._put(f"{prefix}{cells.SECONDS}{bucket(record.seconds)}", 1)
            if record.stream and record.first_token_seconds is not None:
                self._put(f"{prefix}{cells.FIRST}{bucket(record.first_token_seconds)}", 1)

    # --- names --------------------------------------------------------------------------------------------------------

    def _prefixes(self, model: str | None, key: str | None, tenant: str | None, agent: str | None) -> Prefixes:
        return self._names.prefixes(Who(model or "", key or "", tenant or "", agent or ""))

    def _upstream(self, upstream: str) -> tuple[str, bool]:
        """What its fields begin with, and whether it is local."""
        found = self._upstreams.get(upstream)
        if found is None:
            place = self._around.place(upstream)
            if place is None:
                return cells.prefix(cells.UPSTREAM, cells.OTHER, "", ""), False
            where = "local" if place.local else "paid"
            found = cells.prefix(cells.UPSTREAM, upstream, place.kind, where), place.local
            self._upstreams[upstream] = found
        return found

    def _turn(self) -> None:
        """A new day has a table of its own."""
        now = self.clock.now()
        day = int(now // layout.DAY)
        if day != self._day:
            self._day, self._names, self._upstreams = day, Names(), {}
            self._key = layout.key("costs", datetime.fromtimestamp(now, UTC).date().isoformat())

    def _add(self, prefixes: Prefixes, measure: str, amount: int) -> None:
        if amount:
            self._pending[self._key][prefixes.day + measure] += amount
            if measure in cells.EVER:
                self._pending[layout.COSTS_TOTAL][prefixes.ever + measure] += amount

    def _put(self, field: str, amount: int) -> None:
        if amount:
            self._pending[self._key][field] += amount

    # --- sharing ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever: merges what is new, every second."""
        while True:
            try:
                await self.sync()
            except StoreUnavailable:
                pass  # it waits here
            except GatewayError as error:
                log.warning("cost data is not shared: %r", error)
            await asyncio.sleep(SYNC_SECONDS)

    async def aclose(self) -> None:
        """Shares what came since the last time, so that it does not end with the process."""
        with contextlib.suppress(GatewayError):
            await self.sync()

    async def sync(self) -> None:
        """Merges what is new here. Raises `StoreUnavailable`, after which the same sums are sent again under the same
        number, so that they count once."""
        async with self._merging:
            while self._sending is not None or self._pending:
                await self._merge()

    async def _merge(self) -> None:
        if self._sending is None:
            self._merges += 1
            self._sending = (self._merges, self._taken())
        number, sums = self._sending
        arguments: list[str | int] = [number, layout.lifetime("merged")]
        for key, fields in sums.items():
            arguments += [0 if key == layout.COSTS_TOTAL else DAYS_SECONDS, len(fields)]
            arguments += itertools.chain.from_iterable(fields.items())
        sizes = await self.store.run(MERGE, (layout.key("merged", self._process), *sums), arguments, again=True)
        self._sending = None
        size = dict(zip(sums, sizes, strict=True)).get(self._key)
        if size is not None:
            self._names.full = size > FIELDS_MAX

    def _taken(self) -> dict[str, dict[str, int]]:
        """A batch of what waits."""
        taken: dict[str, dict[str, int]] = {}
        room = BATCH
        for key, sums in tuple(self._pending.items()):
            if room <= 0:
                break
            if len(sums) <= room:
                taken[key] = self._pending.pop(key)
            else:
                taken[key] = {field: sums.pop(field) for field in tuple(itertools.islice(sums, room))}
            room -= len(taken[key])
        return taken


def counted(record: Record) -> list[str]:
    """What a finished request counts as."""
    if record.depth:
        return [cells.CAUSED]
    counts = [cells.REQUESTS]
    if record.client_gone:
        counts.append(cells.LEFT)
    elif record.error_code is not None:
        # What is refused with a word to the caller is no failure; a stream that broke has begun with 200.
        if record.status >= 500 or record.status == 200 or record.error_code == "upstream_rate_limited":
            counts.append(cells.FAILED)
    else:
        counts.append(cells.ANSWERS)
        if record.local:
            counts.append(cells.LOCAL)
        if record.fallback_from is not None:
            counts.append(cells.FALLBACKS)
        if record.usage_estimated:
            counts.append(cells.ESTIMATED)
    return counts


def money_of(attempt: Attempt, *, stands_in: bool) -> dict[str, int]:
    """Cost and tokens of an attempt, whichever way they are booked."""
    tokens, cost = attempt.tokens, attempt.cost_nano
    money = {}
    if tokens is not None:
        if tokens.prompt:
            money[cells.IN] = tokens.prompt
        if tokens.completion:
            money[cells.OUT] = tokens.completion
        if cost is None:
            money[cells.UNPRICED] = 1
    if cost:
        money[cells.COST] = cost
        if attempt.outcome not in NOT_LOST:
            money[cells.LOST] = cost
        elif stands_in:
            money[cells.FALLBACK_COST] = cost
    return money


def _sums() -> defaultdict[str, int]:
    return defaultdict(int)


def _with_usage(record: Record) -> tuple[Attempt, ...]:
    """The attempts; the last of them with the record's usage, where nothing was noted of its own."""
    attempts, last = record.attempts, record.attempts[-1] if record.attempts else None
    if last is None or last.leased or last.tokens is not None or last.cost_nano is not None or record.tokens is None:
        return attempts
    return (*attempts[:-1], replace(last, tokens=record.tokens, cost_nano=record.cost_nano))
