from __future__ import annotations

from app.core.spending import CostCell, Counter, Lease
from app.store.settling import KEPT_MS, Settlement, asked, kept_ms

DAY = Counter("d", "global", "day", "day", 10, 1, 2)
TOTAL = Counter("t", "global", "total", "total", None, 0, 0)
REQUEST = Counter("r", "request", "total", "request", 5, 0, 0, 7)


def test_a_counter_is_kept_after_its_end_or_its_last_change() -> None:
    assert [kept_ms(each) for each in (DAY, TOTAL, REQUEST)] == [KEPT_MS, 0, 7]


def test_what_settlements_have_in_common_is_named_once() -> None:
    """A key and a field for each number of each settlement were most of what the store had to read."""
    cells = (CostCell("costs", "a", 1, 60), CostCell("costs", "b", 2, 60))
    one = Settlement("lease:1", Lease("1", "r", "m", 3, (DAY, TOTAL), "e"), 4, "settled", cells)
    two = Settlement("lease:2", Lease("2", "r", "m", 3, (TOTAL,), "e"), "", "expired", cells[1:])
    keys, args = asked((one, two), ("epoch",), ("constant",))
    assert keys == ["epoch", "lease:1", "lease:2", "day", "total", "costs"]
    assert args == [
        *(2, 2, 2, "constant"),
        *(4, 2, KEPT_MS, 5, 0, 0),
        *(6, "a", 60, 6, "b", 60),
        *("e", "1", 4, "settled", 2, 2, 1, 2, 1, 1, 2, 2),
        *("e", "2", "", "expired", 1, 1, 2, 2, 2),
    ]
