"""What is asked in one moment, and goes to the server as one script, against the same asked one after the other: the
same answers, and the same left in the store, whatever it is and whatever it meets there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import InternalError
from app.core.spending import CostCell, Counter, Lease, Rate, Seats
from app.store import layout
from app.store.address import Address
from app.store.client import Store
from app.store.ledger import ADMIT, MOST_NANO, SETTLE, Admitted, LedgerStore, Limited, Replayed, Seen, WrongPeriod

HOUR_US = 3_600_000_000  # so slow that nothing flows back during a test
LONG_MS = 3_600_000
SLACK = 60.0  # seconds that the two may be apart
BURST = 6
MUCH = 2**44
NEAR = (0, 1, 40, 60, 100)
LARGE = (MUCH - 1, MUCH, 2**52, MOST_NANO - 1)
BAD = layout.key("spend", "bad")


class Row(NamedTuple):
    """A counter, whose end is so many milliseconds away (0: never)."""

    name: str
    limits: tuple[int | None, ...]
    ends: int = 0
    keep_ms: int = 0


ROWS = (
    Row("total", (100, None, 2**53 - 1)),
    Row("day", (100, 150), 10**7),
    Row("yesterday", (None,), -(10**7)),
    Row("session", (60, None), 0, 10**7),
    Row("bad", (100, None)),
)


@dataclass(frozen=True)
class Admit:
    id: str | None
    nano: int
    epoch: str
    counters: tuple[tuple[Row, int | None], ...]
    rates: tuple[tuple[str, int], ...]
    seat: tuple[str, int] | None
    lease_ms: int


@dataclass(frozen=True)
class Settle:
    id: str
    nano: int | None
    epoch: str
    counters: tuple[tuple[Row, int | None], ...]
    final: str
    cells: tuple[CostCell, ...]


IDS = st.sampled_from((*"abcdefghi", "bad"))
EPOCHS = st.sampled_from(("e1",) * 9 + ("e0",))
TOTAL, DAY, YESTERDAY, SESSION, BROKEN = ROWS
COUNTERS = st.sampled_from(
    (
        *(((TOTAL, 100),), ((TOTAL, 100), (DAY, 150)), ((DAY, 100), (SESSION, 60)), ((TOTAL, None), (SESSION, None)))
        * 4,
        *(((TOTAL, 2**53 - 1), (DAY, 100)), (), ((SESSION, 60), (YESTERDAY, None)), ((TOTAL, 100), (BROKEN, None))),
        *(((BROKEN, 100),), ((YESTERDAY, None),)),
    )
)
CELLS = st.lists(
    st.builds(
        lambda day, field, amount: CostCell(layout.key("costs", day), field, amount, {"e": 0, "d": 600}.get(day, 60)),
        st.sampled_from(("d", "d", "e", "bad")),
        st.sampled_from(("cost", "requests")),
        st.sampled_from((1, 7, -3, 0, MUCH - 1, MUCH, -MUCH, 10**30, 10**30)),
    ),
    min_size=1,
    max_size=4,
).map(tuple)
ADMISSIONS = st.builds(
    Admit,
    IDS | st.none(),
    st.sampled_from((*NEAR * 4, *LARGE, -1)),
    EPOCHS,
    COUNTERS,
    st.lists(
        st.tuples(st.sampled_from(("r", "t")), st.sampled_from((0, 1, 2, 4, BURST + 1))),
        max_size=2,
        unique_by=lambda each: each[0],
    ).map(tuple),
    st.none() | st.tuples(st.sampled_from(("x", "y", "z")), st.integers(1, 2)),
    st.sampled_from((0, LONG_MS)),
)
SETTLEMENTS = st.builds(
    Settle,
    IDS,
    st.sampled_from((None, *NEAR * 4, *LARGE)),
    EPOCHS,
    COUNTERS,
    st.sampled_from(("settled", "settled", "recorded", "recorded", "recorded", "expired", "released")),
    CELLS,
)
Ask = Admit | Settle
TURNS = st.lists(st.lists(ADMISSIONS | SETTLEMENTS, min_size=6, max_size=12), min_size=1, max_size=3)


def queue(ask: Ask) -> str:
    """What goes together with it."""
    return "settle" if isinstance(ask, Settle) else "admit" if ask.id else "enter"


def in_order(turn: Sequence[Ask]) -> list[Ask]:
    """As they reach the server: what goes together goes when its first one does."""
    queues = list(dict.fromkeys(map(queue, turn)))
    return sorted(turn, key=lambda ask: queues.index(queue(ask)))


class Bench:
    """A store, and the two ways to ask it."""

    def __init__(self, store: Store, known: int, counted: int, now_ms: int) -> None:
        self.store, self.known, self.counted, self.now_ms = store, known, counted, now_ms
        self.ledger = LedgerStore(store)

    async def prepare(self) -> None:
        await self.store.call("FLUSHALL")
        for script in (ADMIT, SETTLE):  # what the server does not know is sent again, and comes later
            await self.store.call("SCRIPT", "LOAD", script.source)
        self.ledger = LedgerStore(self.store)
        await self.ledger.begin("e1")
        await self.ledger.make_durable()
        self.ledger.seen = Seen("n", self.known)
        for key in (BAD, layout.key("lease", "bad"), layout.key("costs", "bad")):
            await self.store.call("SET", key, "what is no hash")
        await self.store.call("SET", layout.key("acknowledged", "n"), self.counted)

    async def ask(self, ask: Ask) -> Any:
        counters = tuple(self.counter(row, limit) for row, limit in ask.counters)
        if isinstance(ask, Settle):
            lease = Lease(ask.id, "r", "m", 0, counters, ask.epoch)
            return await self.ledger.settle(lease, ask.nano, ask.final, ask.cells)
        wanted = Lease(ask.id, "r", "m", ask.nano, counters, ask.epoch) if ask.id else None
        rates = [Rate("tokens", layout.key("rate", name), HOUR_US, BURST, cost) for name, cost in ask.rates]
        seats = None if ask.seat is None else Seats(layout.key("seats", "k"), ask.seat[1], ask.seat[0])
        said = await self.ledger.admit(wanted, rates, seats, lease_ms=ask.lease_ms, note=b"{}")
        match said:  # how long a rate needs to be full again depends on the moment
            case Admitted(states) | Limited(rates=states) | Replayed(rates=states):
                return type(said), getattr(said, "state", None), [each.remaining for each in states]
        return type(said) if isinstance(said, WrongPeriod) else said

    def counter(self, row: Row, limit: int | None) -> Counter:
        ends = row.ends and self.now_ms + row.ends
        starts = ends and min(self.now_ms, ends) - 10**7
        return Counter(row.name, "global", "p", layout.key("spend", row.name), limit, starts, ends, row.keep_ms)

    async def left(self) -> dict[str, tuple[Any, float]]:
        """What stands in the store, without what depends on the moment, and for how many seconds each key lives."""
        found = {}
        for key in sorted(await self.store.call("KEYS", "*")):
            kind = await self.store.call("TYPE", key)
            value: Any
            match bytes(kind, "ascii") if isinstance(kind, str) else kind:
                case b"hash":
                    row = await self.store.call("HGETALL", key)
                    value = {name: each for name, each in zip(row[::2], row[1::2], strict=True) if each != b"0"}
                    value.pop(b"t", None)
                    if b":costs:" in key and not value:  # what was added and taken off again at once
                        continue
                case b"zset":
                    value = set(await self.store.call("ZRANGE", key, 0, -1))
                case _:
                    value = await self.store.call("GET", key)
                    if b":rate:" in key:
                        value = round((int(value) / 1_000 - self.now_ms) * 1_000 / HOUR_US)
            found[key.decode()] = value, await self.store.call("PTTL", key) / 1_000
        return found


def said(asked: Iterable[Any]) -> list[Any]:
    return [type(each) if isinstance(each, InternalError) else each for each in asked]


async def compare(socket: Path, turns: Sequence[Sequence[Ask]], known: int, counted: int) -> None:
    store = Store(Address(path=str(socket)), timeout=10.0)
    await store.open()
    try:
        seconds, micros = await store.call("TIME")
        bench = Bench(store, known, counted, int(seconds) * 1_000 + int(micros) // 1_000)
        await bench.prepare()
        together: list[Any] = []
        for turn in turns:
            together += said(await asyncio.gather(*map(bench.ask, in_order(turn)), return_exceptions=True))
        left, seen = await bench.left(), bench.ledger.seen.number
        await bench.prepare()
        singly: list[Any] = []
        for turn in turns:
            for ask in in_order(turn):
                singly += said(await asyncio.gather(bench.ask(ask), return_exceptions=True))
        assert together == singly
        alone = await bench.left()
        assert {key: value for key, (value, _) in left.items()} == {key: value for key, (value, _) in alone.items()}
        for key, (_, lives) in left.items():
            assert abs(lives - alone[key][1]) < SLACK, f"{key} lives for {lives} and for {alone[key][1]} seconds"
        assert seen == bench.ledger.seen.number
    finally:
        await store.aclose()


@settings(max_examples=150, deadline=None)
@given(turns=TURNS, known=st.sampled_from((0, 0, 3)), counted=st.sampled_from((0, 3)))
def test_what_is_asked_at_once_is_booked_as_if_one_after_the_other(
    valkey: Path, turns: list[list[Ask]], known: int, counted: int
) -> None:
    """Else a limit is lent twice, or money is booked twice or not at all, as soon as there is much to do."""
    uvloop.run(compare(valkey, turns, known, counted))
