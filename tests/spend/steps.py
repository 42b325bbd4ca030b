"""Leases and what is written of them, for the tests of journals."""

from __future__ import annotations

from app.core.spending import CostCell, Counter, Lease
from app.spend.entries import RESERVED, Entry, entry_of
from app.store import layout

NOW_MS = 1_700_000_000_000  # a Tuesday, 22:13 UTC
ENDS_MS = 1_700_006_400_000

DAY = Counter("global:*:day", "global", "day", layout.key("spend-day", "global"), 10**10, ENDS_MS - 86_400_000, ENDS_MS)
TOTAL = Counter("key:k:total", "key", "total", layout.key("spend", "key"), None, 0, 0)
REQUEST = Counter("request", "request", "total", layout.key("spend-request", "r"), 10**9, 0, 0, 172_800_000)
CELL = CostCell(layout.key("costs", "2023-11-14"), "claude/x|n", 1, 30 * 86_400)


def lease(
    id: str = "a", held: int = 700, epoch: str = "begun-1", counters: tuple[Counter, ...] = (DAY, TOTAL)
) -> Lease:
    return Lease(id, f"root-{id}", "claude/x", held, counters, epoch)


def step(
    op: str = RESERVED,
    id: str = "a",
    amount: int = 0,
    *,
    held: int = 700,
    at_ms: int = NOW_MS,
    epoch: str = "begun-1",
    final: str = "",
    cells: tuple[CostCell, ...] = (),
    counters: tuple[Counter, ...] = (DAY, TOTAL),
) -> Entry:
    return entry_of(op, lease(id, held, epoch, counters), at_ms, amount, final, cells)
