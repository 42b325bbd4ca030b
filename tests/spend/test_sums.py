"""Without these the sums that were written are not the ones that are read."""

from __future__ import annotations

from datetime import date

import pytest

from app.spend import sums
from app.spend.cells import TRAFFIC, prefix
from app.spend.span import Span
from app.spend.sums import GROUPS, ever, grouped, rows
from app.store import layout
from app.store.client import Store

DAYS = Span(date(2024, 10, 1), date(2024, 10, 3))


async def put(store: Store, day: str, *names: str, measure: str = "requests", amount: object = 1) -> None:
    await store.call("HSET", layout.key("costs", day), prefix(TRAFFIC, *names) + measure, str(amount))


@pytest.mark.parametrize(
    ("group", "found"),
    [
        ("day", {"2024-10-01": 3, "2024-10-03": 4}),
        ("model", {"gpu/qwen": 1, "gpu/rnj": 2, "": 4}),
        ("upstream", {"gpu": 3, "": 4}),
        ("key", {"k1": 1, "k2": 2, "": 4}),
        ("tenant", {"t1": 3, "": 4}),
        ("agent", {"a": 1, "": 6}),
    ],
)
async def test_sums_by_each_of_their_names(store: Store, group: str, found: dict[str, int]) -> None:
    await put(store, "2024-10-01", "gpu/qwen", "k1", "t1", "a", amount=1)
    await put(store, "2024-10-01", "gpu/rnj", "k2", "t1", "", amount=2)
    await put(store, "2024-10-03", "", "", "", "", amount=4)
    await put(store, "2024-10-04", "gpu/qwen", "k1", "t1", "a", amount=9)
    made = await grouped(store, DAYS, group)
    assert {name: each["requests"] for name, each in made.items()} == found
    assert group in GROUPS


async def test_a_table_of_many_pieces_is_read_whole_and_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "CHUNK", 10)
    for number in range(700):
        await put(store, "2024-10-02", "gpu/qwen", f"k{number}", "", "", amount=3)
    found = [row.amount async for _, row in rows(store, DAYS)]
    assert (len(found), sum(found)) == (700, 2_100)


async def test_damaged_sums_are_passed_over(store: Store) -> None:
    await put(store, "2024-10-01", "gpu/qwen", "k", "", "", amount="x")
    await store.call("HSET", layout.key("costs", "2024-10-01"), b"\xff", "1", "u\x1fgpu\x1fvllm\x1flocal\x1fs5", "2")
    await store.call("HSET", layout.COSTS_TOTAL, "gpu/qwen\x1fcost", "x", "gpu/qwen\x1fin", "5", "odd", "1")
    assert [row.names async for _, row in rows(store, DAYS)] == [("gpu", "vllm", "local")]
    assert await grouped(store, DAYS, "day") == {}
    assert await ever(store) == {"gpu/qwen": {"in": 5}, "odd": {"": 1}}
