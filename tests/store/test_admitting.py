from __future__ import annotations

from app.core.spending import Counter, Lease, Rate, Seats
from app.store.admitting import LEASE, Admission, asked
from app.store.settling import KEPT_MS

DAY = Counter("d", "global", "day", "day", 10, 1, 2)
TOTAL = Counter("t", "global", "total", "total", None, 0, 0)
RATE = Rate("requests", "rate", 1_000, 60, 1)


def test_what_admissions_have_in_common_is_named_once() -> None:
    keys, args = asked(
        (
            Admission(Lease("1", "r", "m", 3, (DAY, TOTAL), "e"), 3, (RATE,), None, b"{}", 9),
            Admission(None, 0, (RATE,), Seats("seats", 4, "me"), b"", 9),
        ),
        ("epoch",),
        ("constant",),
    )
    assert keys == ["epoch", f"{LEASE}1", "day", "total", "seats", "rate"]
    json = b'[["d","global","day","day",10,1,2,0],["t","global","total","total",null,0,0,0]]'
    assert args == [
        *(2, 2, 1, "constant"),
        *(3, 1, 2, KEPT_MS, 4, 0, 0, 0),
        6,
        *(2, "1", "e", 3, "r", "m", json, b"{}", 0, 0, "", 2, 1, 9, 1, 10, 2, -1, 1, 1_000, 60, 1),
        *(0, "", "", 0, "", "", b"", b"", 5, 4, "me", 0, 1, 9, 1, 1_000, 60, 1),
    ]
