"""How well each model did, here: sums of evidence per (model, task type, tier), shared by all gateways.

What is learnt counts at once in this process, and within seconds everywhere: increments are merged into the store and
all sums read back. While the store is away they wait here. A cell that saw little leans on how its model did
elsewhere. Numbers are thousandths of answers; a cell that has seen many is halved, so that old days fade.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from pydantic import TypeAdapter, ValidationError

from app.core.card import Card
from app.core.clock import Clock
from app.core.errors import GatewayError, StoreUnavailable, Unprocessable
from app.learning.outcome import NOTHING, Evidence
from app.routing.correction import EXPECTED, Counts
from app.routing.signals import Observed
from app.store import layout
from app.store.client import Store
from app.store.scripts import load

SYNC_SECONDS: Final = 3.0
MILLI: Final = 1_000  # what follows is in thousandths of answers
PRIOR: Final = 5 * MILLI
RECENT: Final = 30 * MILLI
RECENT_LEAST: Final = 10 * MILLI
BASELINE_LEAST: Final = 10 * MILLI
ODDS_LEAST: Final = 0.01  # so that nothing is certain
CELL_MAX: Final = 500 * MILLI
CELLS_MAX: Final = 10_000
NAMELESS: Final = "none"
SEPARATOR: Final = "\x1f"
BASELINE_FIELD: Final = "now"

MERGE: Final = load("success_merge")

Cell = tuple[str, str, str]  # model, task type, tier
Told = Callable[[str, str, float], None]
Learnt = Callable[[str, int, int], None]

log = logging.getLogger("tierway.learning")


@dataclass(frozen=True, slots=True)
class Baseline:
    """The quality of one model when it was made the measure of the others; by task type, "" for all of them."""

    model: str
    at: float
    quality: dict[str, float] = field(default_factory=dict)


_BASELINE: Final = TypeAdapter(Baseline)


class _Sum:
    """Evidence added up, in thousandths of answers."""

    __slots__ = ("value", "weight")

    def __init__(self, value: int = 0, weight: int = 0) -> None:
        self.value = value
        self.weight = weight

    def add(self, value: int, weight: int) -> None:
        self.value += value
        self.weight += weight

    @property
    def mean(self) -> float | None:
        return min(1.0, max(0.0, self.value / self.weight)) if self.weight > 0 else None


class Success:
    """The service. `told` hears the mean of a model on a task type within seconds of a move (for the metric); `learnt`
    what is added here to a model's value and weight, in thousandths of answers (for cost data)."""

    def __init__(self, store: Store, clock: Clock, told: Told = lambda model, task, mean: None) -> None:
        self._store = store
        self._clock = clock
        self._told = told
        self.learnt: Learnt = lambda model, value, weight: None
        self._shared: dict[Cell, tuple[int, int]] = {}
        self._pending: dict[Cell, list[int]] = {}
        self._sums: dict[Cell, _Sum] = {}  # shared and pending; "" stands for all of its kind
        self._recent: dict[str, _Sum] = {}
        self._seen: dict[Cell, Observed | None] = {}
        self._process = secrets.token_hex(8)
        self._merges = 0
        self._sending: tuple[int, dict[Cell, list[int]]] | None = None
        self._merging = asyncio.Lock()
        self.baseline: Baseline | None = None

    # --- asked by plans and people ------------------------------------------------------------------------------------

    def observed(self, card: Card, task_type: str, tier: str) -> Observed | None:
        """`Signals.observed`: one look-up."""
        cell = (card.id, task_type, tier)
        try:
            return self._seen[cell]
        except KeyError:
            found = self._seen[cell] = self._observe(cell)
            return found

    def _observe(self, cell: Cell) -> Observed | None:
        model = self._sums.get((cell[0], "", ""))
        if model is None or (mean := model.mean) is None:
            return None
        own = self._sums.get(cell) or _Sum()
        weight = max(0, own.weight)
        borrowed = min(PRIOR, max(0, model.weight - weight))
        count = (weight + borrowed) // MILLI
        blended = (own.value + PRIOR * mean) / (weight + PRIOR)
        return Observed(min(1.0, max(0.0, blended)), count) if count else None

    def quality(self, model: str, task_type: str = "") -> float | None:
        """The mean of a model on a task type, or on all; None where nothing was scored."""
        found = self._sums.get((model, task_type, ""))
        return None if found is None else found.mean

    def ratio(self, model: str, task_type: str = "") -> float | None:
        """The quality of a model over that of the stored baseline; None where one of the two is unknown."""
        baseline = self.baseline
        mine = self.quality(model, task_type)
        if baseline is None or mine is None:
            return None
        measure = baseline.quality.get(task_type, baseline.quality.get(""))
        return mine / measure if measure else None

    def counts(self, models: Iterable[str], task_type: str, tier: str) -> Counts | None:
        """How these models did with such requests, for `correction`: by as much better or worse than what is expected
        there as they did better or worse than they usually do. None where nothing was scored."""
        own, usual = _Sum(), _Sum()
        for model in models:
            if whole := self._sums.get((model, "", "")):
                usual.add(whole.value, whole.weight)
                if cell := self._sums.get((model, task_type, tier)):
                    own.add(cell.value, cell.weight)
        if (mine := own.mean) is None or (common := usual.mean) is None or tier not in EXPECTED:
            return None
        good = _odds(EXPECTED[tier]) * _odds(mine) / _odds(common)
        share, weight = good / (1 + good), own.weight / MILLI
        return Counts(weight * share, weight * (1 - share))

    def against_own(self, models: Iterable[str]) -> float | None:
        """How these models did lately, here, over how they usually do: below 0.9 they are worse than they were. None
        while there is too little to say."""
        recent, usual = _Sum(), 0.0
        for model in models:
            if (lately := self._recent.get(model)) and (mean := self.quality(model)) is not None:
                recent.add(lately.value, lately.weight)
                usual += mean * lately.weight
        return recent.value / usual if recent.weight >= RECENT_LEAST and usual else None

    async def measured(self, model: str) -> Baseline:
        """What this model achieved so far, as a measure for others. Raises `Unprocessable` where that is too little."""
        await self.sync()
        whole = self._sums.get((model, "", ""))
        if whole is None or whole.weight < BASELINE_LEAST:
            raise Unprocessable(f"Too few answers of {model[:200]!r} were scored to compare with.", param="model")
        quality = {
            task: round(mean, 4)
            for (name, task, tier), total in self._sums.items()
            if name == model and not tier and (not task or total.weight >= BASELINE_LEAST)
            if (mean := total.mean) is not None
        }
        return Baseline(model, self._clock.now(), quality)

    # --- learning -----------------------------------------------------------------------------------------------------

    def learn(
        self, model: str, task_type: str | None, tier: str | None, now: Evidence, before: Evidence = NOTHING
    ) -> None:
        """One answer is worth `now`. `before` is what had already been learnt from it, which this replaces."""
        value, weight = round(now.value * now.weight * MILLI), round(now.weight * MILLI)
        if before is not NOTHING:
            value -= round(before.value * before.weight * MILLI)
            weight -= round(before.weight * MILLI)
        if not value and not weight:
            return
        cell = _cell(model, task_type, tier)
        if (pending := self._pending.get(cell)) is None:
            pending = self._pending[cell] = [0, 0]
        pending[0] += value
        pending[1] += weight
        self._add(cell, value, weight)
        self._seen.pop(cell, None)
        if (lately := self._recent.get(cell[0])) is None:
            lately = self._recent[cell[0]] = _Sum()
        if lately.weight > RECENT:
            lately.value, lately.weight = lately.value * RECENT // lately.weight, RECENT
        lately.add(value, weight)
        self.learnt(cell[0], value, weight)

    def _add(self, cell: Cell, value: int, weight: int) -> None:
        model, task, _ = cell
        for each in (cell, (model, task, ""), (model, "", "")):
            total = self._sums.get(each)
            if total is None:
                total = self._sums[each] = _Sum()
            total.add(value, weight)

    def _tell(self, model: str, task: str) -> None:
        if (mean := self.quality(model, task)) is not None:
            self._told(model, task, mean)

    # --- sharing ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever: merges and reads, every few seconds."""
        while True:
            try:
                await self.sync()
            except StoreUnavailable:
                pass  # what was learnt here waits, and counts here meanwhile
            except GatewayError as error:
                log.warning("learned success is not shared: %r", error)
            await asyncio.sleep(SYNC_SECONDS)

    async def aclose(self) -> None:
        """Shares what was learnt since the last time, so that it does not end with the process."""
        with contextlib.suppress(GatewayError):
            await self.sync()

    async def sync(self) -> None:
        """Merges what is new here, and reads everything. Raises `StoreUnavailable`, after which the same increments
        are sent again under the same number, so that they count once."""
        async with self._merging:
            await self._merge()

    async def _merge(self) -> None:
        for model, task, _ in self._pending:  # also while the store is away
            self._tell(model, task)
        if self._sending is None:
            self._merges += 1
            self._sending = (self._merges, self._pending)
            self._pending = {}
        number, increments = self._sending
        fields, stored = await asyncio.gather(
            self._store.run(
                MERGE,
                (layout.SUCCESS, layout.key("merged", self._process)),
                (
                    number,
                    layout.lifetime("merged"),
                    2 * CELLS_MAX,
                    CELL_MAX,
                    *_flat(increments),
                ),
                again=True,
            ),
            self._store.call("HGET", layout.BASELINE, BASELINE_FIELD, again=True),
        )
        self._sending = None
        self.baseline = _read_baseline(stored) or self.baseline
        self._shared = _cells(fields)
        self._rebuild()

    def _rebuild(self) -> None:
        self._sums = {}
        for cell, (value, weight) in self._shared.items():
            self._add(cell, value, weight)
        for cell, (value, weight) in self._pending.items():
            self._add(cell, value, weight)
        self._seen.clear()
        for model, task, tier in tuple(self._sums):
            if task and not tier:
                self._tell(model, task)


def _odds(share: float) -> float:
    share = min(max(share, ODDS_LEAST), 1 - ODDS_LEAST)
    return share / (1 - share)


def _flat(increments: Mapping[Cell, Sequence[int]]) -> Iterator[str | int]:
    for cell, sums in increments.items():
        yield SEPARATOR.join(cell)
        yield from sums


@lru_cache(CELLS_MAX)
def _cell(model: str, task_type: str | None, tier: str | None) -> Cell:
    return _clean(model), _clean(task_type or NAMELESS), _clean(tier or NAMELESS)


def _clean(name: str) -> str:
    """Names come from upstreams; a cell's own separators must not."""
    return name.replace(SEPARATOR, "?").replace("|", "?")[:200].encode("utf-8", "replace").decode()


def _cells(fields: list[bytes]) -> dict[Cell, tuple[int, int]]:
    """The sums as the store has them; what cannot be read is passed over."""
    sums: Mapping[bytes, bytes] = dict(zip(fields[::2], fields[1::2], strict=False))
    cells = {}
    for name, weight in sums.items():
        head, _, kind = name.rpartition(b"|")
        parts = head.decode("utf-8", "replace").split(SEPARATOR)
        value = sums.get(head + b"|v")
        if kind == b"w" and len(parts) == 3 and value is not None and (both := _whole(value, weight)) is not None:
            cells[parts[0], parts[1], parts[2]] = both
    return cells


def _whole(value: bytes, weight: bytes) -> tuple[int, int] | None:
    try:
        return int(value), int(weight)
    except ValueError:
        return None


def _read_baseline(stored: bytes | None) -> Baseline | None:
    if stored is None:
        return None
    try:
        return _BASELINE.validate_json(stored)
    except ValidationError:
        return None
