"""Without these a cent is booked twice or never, or what a request cost is booked on another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.config.settings import UpstreamSettings
from app.core.clock import ManualClock
from app.core.errors import StoreUnavailable
from app.core.money import Tokens
from app.spend import cells, costs
from app.spend.cells import ROOMS
from app.spend.costs import Costs, hourly_of
from app.spend.histogram import bucket
from app.spend.span import span_of
from app.spend.sums import Sums, ever, grouped, rows
from app.store import layout
from app.store.address import Address
from app.store.client import Store
from tests.core.nouns import card
from tests.spend.worth import DAY, NOON, ON_OPUS, attempt, bought, costs_on, record
from tests.store.live import eventually, ok, puppet


@pytest.fixture
async def other(valkey: Path, store: Store) -> AsyncIterator[Costs]:
    """Another gateway on the same store."""
    elsewhere = Store(Address(path=str(valkey)), timeout=10.0)
    await elsewhere.open()
    yield costs_on(elsewhere)
    await elsewhere.aclose()


async def by(service: Costs, group: str, now: float = NOON) -> dict[str, dict[str, int]]:
    await service.sync()
    found = await grouped(service.store, span_of(now), group)
    return {name: {measure: amount for measure, amount in sums.items() if amount} for name, sums in found.items()}


async def whole(service: Costs) -> Sums:
    total = Sums()
    for sums in (await by(service, "day")).values():
        total.update(sums)
    return total


async def upstreams(service: Costs) -> dict[tuple[str, ...], Sums]:
    await service.sync()
    found: dict[tuple[str, ...], Sums] = {}
    async for _, row in rows(service.store, span_of(NOON)):
        if row.family == cells.UPSTREAM:
            found.setdefault(row.names, Sums())[row.measure] += row.amount
    return found


async def settle(service: Costs, *asked: Any, **more: Any) -> None:
    """As the settlement of a lease does it."""
    for cell in service.cells_of(*asked, **more):
        await service.store.call("HINCRBY", cell.key, cell.field, cell.amount)
        if cell.seconds:
            await service.store.call("EXPIRE", cell.key, cell.seconds)


# --- each number takes one way ----------------------------------------------------------------------------------------


async def test_a_local_answer_is_told_by_its_record(store: Store) -> None:
    service = costs_on(store)
    service.note(record())
    assert await by(service, "model") == {
        "gpu/qwen": {
            "requests": 1,
            "answers": 1,
            "local": 1,
            "in": 1_000,
            "out": 100,
            "imputed": 2_000_000,
            "compared": 1,
            "dearest": ON_OPUS,
            "saved": ON_OPUS - 2_000_000,
        }
    }


async def test_what_a_lease_cost_is_booked_with_its_settlement_and_only_there(store: Store) -> None:
    """The record of a paid answer and the settlement of its lease both know the cost; it must count once."""
    service = costs_on(store)
    paid = bought()
    await settle(service, paid.attempts[0], "key-a", "acme", "coder")
    assert await by(service, "key") == {"key-a": {"cost": ON_OPUS, "in": 1_000, "out": 100}}
    service.note(paid)
    assert await by(service, "key") == {
        "key-a": {
            "cost": ON_OPUS,
            "in": 1_000,
            "out": 100,
            "requests": 1,
            "answers": 1,
            "compared": 1,
            "dearest": ON_OPUS,
        }
    }
    assert set(await by(service, "agent")) == {"coder"} and set(await by(service, "tenant")) == {"acme"}


async def test_what_was_paid_without_a_lease_is_booked_by_its_record(store: Store) -> None:
    service = costs_on(store)
    service.note(record("claude/opus", attempts=(attempt("claude/opus", cost_nano=ON_OPUS),)))
    assert (await by(service, "upstream"))["claude"]["cost"] == ON_OPUS


async def test_usage_that_no_attempt_has_is_the_records(store: Store) -> None:
    service = costs_on(store)
    service.note(record(attempts=(attempt(tokens=None, cost_nano=None),), cost_nano=5))
    total = await whole(service)
    assert (total["in"], total["out"], total["cost"], total["unpriced"]) == (1_000, 100, 5, 0)


@pytest.mark.parametrize("tokens", [None, Tokens()])
async def test_a_settlement_that_cost_nothing_says_so(store: Store, tokens: Tokens | None) -> None:
    """Where its lease had expired, it was charged in full, and the settlement corrects what it names."""
    made = costs_on(store).cells_of(attempt(cost_nano=0, tokens=tokens), None, None, None)
    assert [(cell.field.rpartition("\x1f")[2], cell.amount) for cell in made] == [("cost", 0), ("cost", 0)]
    assert [cell.seconds for cell in made] == [layout.lifetime("costs"), 0]


async def test_what_an_expiry_books_is_corrected_by_a_late_settlement(store: Store) -> None:
    """So it names nothing that the settlement might not name."""
    service = costs_on(store)
    expiry = service.cells_of(attempt("claude/opus", "expired", cost_nano=9_000, tokens=None), "k", "t", "a")
    for outcome in ("ok", "broken"):
        late = service.cells_of(attempt("claude/opus", outcome, cost_nano=5), "k", "t", "a", stands_in=True)
        assert {(cell.key, cell.field) for cell in expiry} < {(cell.key, cell.field) for cell in late}


async def test_totals_per_model_are_kept_for_ever(store: Store) -> None:
    service = costs_on(store)
    await settle(service, bought().attempts[0], "key-a", None, None)
    service.note(bought())
    service.note(record())
    await service.sync()
    assert await ever(store) == {
        "claude/opus": {"cost": ON_OPUS, "in": 1_000, "out": 100, "answers": 1},
        "gpu/qwen": {"in": 1_000, "out": 100, "answers": 1},
    }
    found = await store.call("KEYS", "*")
    faults = [layout.fault_of(key.decode(), await store.call("TTL", key)) for key in found]
    assert len(faults) == 4 and faults == [None] * 4


# --- what a request counts as -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "counts"),
    [
        ({"status": 502, "error_code": "upstream_failed"}, {"failed"}),
        ({"status": 200, "error_code": "upstream_failed"}, {"failed"}),
        ({"status": 429, "error_code": "upstream_rate_limited"}, {"failed"}),
        ({"status": 429, "error_code": "budget_exceeded"}, set()),
        ({"status": 400, "error_code": "invalid_value"}, set()),
        ({"status": 499, "error_code": "client_gone", "client_gone": True}, {"left"}),
        ({"usage_estimated": True}, {"answers", "local", "estimated"}),
        ({"fallback_from": "claude/opus"}, {"answers", "local", "fallbacks"}),
    ],
)
async def test_what_a_request_counts_as(store: Store, more: dict[str, Any], counts: set[str]) -> None:
    """Who was refused for a fault of its own is no outage."""
    service = costs_on(store)
    service.note(record(attempts=(), tokens=None, **more))
    measures = {measure for measure, amount in (await whole(service)).items() if amount}
    assert measures == {"requests"} | counts


async def test_what_was_refused_before_any_model_counts_as_nobodys(store: Store) -> None:
    service = costs_on(store)
    service.note(record(None, key_id=None, tenant=None, agent=None, status=401, error_code="invalid_api_key"))
    for group in ("model", "upstream", "key", "tenant", "agent"):
        assert await by(service, group) == {"": {"requests": 1}}
    assert await upstreams(service) == {}


async def test_what_a_request_causes_costs_and_is_no_traffic(store: Store) -> None:
    """A shadow doubles the spend of a request; if it counted as one, it would double the savings too."""
    service = costs_on(store)
    service.note(record(depth=1))
    assert (await by(service, "model"))["gpu/qwen"] == {
        "caused": 1,
        "in": 1_000,
        "out": 100,
        "imputed": 2_000_000,
        "saved": -2_000_000,
    }
    assert set((await upstreams(service))["gpu", "vllm", "local"]) == {"work"}


async def test_a_fallback_is_booked_on_who_answered_and_what_came_to_nothing_on_who_did_not(store: Store) -> None:
    service = costs_on(store)
    failed = attempt("acme/free", "broken", blame="upstream", cost_nano=300, tokens=Tokens(10, 1))
    paid = attempt("claude/opus", cost_nano=ON_OPUS)
    service.note(record("claude/opus", attempts=(failed, paid), fallback_from="acme/free"))
    found = await by(service, "model")
    assert found["acme/free"] == {"in": 10, "out": 1, "cost": 300, "lost": 300}
    assert (found["claude/opus"]["cost"], found["claude/opus"]["fallback_cost"]) == (ON_OPUS, ON_OPUS)
    assert (found["claude/opus"]["fallbacks"], found["claude/opus"]["saved"]) == (1, -300)
    assert (await upstreams(service))["acme", "openai", "paid"] == {"failed": 1}
    await settle(service, paid, None, None, None, stands_in=True)
    await settle(service, failed, None, None, None, stands_in=True)
    unkeyed = (await by(service, "key"))[""]
    assert (unkeyed["fallback_cost"], unkeyed["lost"]) == (ON_OPUS, 300)


async def test_an_answer_that_the_budget_ended_was_not_for_nothing(store: Store) -> None:
    service = costs_on(store)
    service.note(record("claude/opus", attempts=(attempt("claude/opus", "stopped", cost_nano=700),)))
    total = await whole(service)
    assert (total["cost"], total["lost"]) == (700, 0)


async def test_an_answer_whose_reader_left_was_not_for_nothing(store: Store) -> None:
    service = costs_on(store)
    left = attempt("claude/opus", "left", cost_nano=700)
    service.note(record("claude/opus", attempts=(left,), client_gone=True, status=499, error_code="client_gone"))
    total = await whole(service)
    assert (total["cost"], total["lost"], total["saved"]) == (700, 0, -700)


# --- what is compared -------------------------------------------------------------------------------------------------


async def test_where_a_price_is_unknown_nothing_is_claimed(store: Store) -> None:
    """Unknown is not zero: an answer of a model without a price would be the greatest saving of all."""
    service = costs_on(store)
    service.note(record("acme/free", attempts=(attempt("acme/free", cost_nano=None),)))
    total = await whole(service)
    assert (total["unpriced"], total["answers"]) == (1, 1)
    assert total["compared"] == total["saved"] == total["dearest"] == 0


async def test_where_no_capable_model_has_a_price_nothing_is_claimed(store: Store) -> None:
    service = costs_on(store, cards=(card("gpu/qwen"),))
    service.note(record())
    service.note(record(tokens=None, attempts=(attempt(tokens=None),)))
    total = await whole(service)
    assert total["answers"] == 2 and total["compared"] == total["saved"] == 0


async def test_what_came_to_no_answer_lessens_what_was_saved(store: Store) -> None:
    service = costs_on(store)
    failed = attempt("claude/opus", "timeout", blame="upstream", cost_nano=500)
    service.note(record("claude/opus", attempts=(failed,), status=504, error_code="upstream_timeout"))
    assert (await whole(service))["saved"] == -500


async def test_the_savings_metric_only_rises_and_makes_up_for_losses_first(store: Store) -> None:
    told: list[int] = []
    machines: list[tuple[str, int]] = []
    service = costs_on(store, saved=told.append, imputed=lambda *what: machines.append(what))
    quick = attempt(machine_seconds=0.000001)
    service.note(record(attempts=(quick,)))
    assert (told, machines) == ([ON_OPUS - 1], [("gpu", 1)])
    service.note(record(depth=1, attempts=(attempt("claude/opus", cost_nano=ON_OPUS),)))
    service.note(record(attempts=(quick,)))
    assert told == [ON_OPUS - 1]
    service.note(record(attempts=(quick,)))
    assert sum(told) == 2 * ON_OPUS - 3


async def test_a_machine_is_charged_for_the_share_an_attempt_had_of_it(store: Store) -> None:
    service = costs_on(store)
    service.note(record(attempts=(attempt(machine_seconds=0.25),)))
    service.note(record("claude/opus", attempts=(attempt("claude/opus", machine_seconds=9.0),)))
    assert (await by(service, "upstream"))["gpu"]["imputed"] == 250_000
    found = await upstreams(service)
    assert found["gpu", "vllm", "local"]["work"] == 250
    assert "work" not in found["claude", "anthropic", "paid"]


def test_only_machines_with_a_price_have_one() -> None:
    gpu, free = (UpstreamSettings("gpu", "vllm", ("http://h",), cost_per_hour=Decimal(cost)) for cost in ("1.25", "0"))
    assert hourly_of({"gpu": gpu, "free": free}) == {"gpu": 1_250_000_000}


# --- upstreams --------------------------------------------------------------------------------------------------------


async def test_latency_and_quality_are_by_upstream(store: Store) -> None:
    service = costs_on(store)
    service.note(record(seconds=2.0, first_token_seconds=0.5))
    service.note(record(seconds=2.0, stream=False))
    service.scored("gpu/qwen", 800, 1_000)
    service.scored("gpu/qwen", -300, -500)
    service.scored("gone/model", 5, 5)
    found = await upstreams(service)
    gpu = found["gpu", "vllm", "local"]
    assert (gpu["answers"], gpu["value"], gpu["weight"]) == (2, 500, 500)
    assert gpu[f"s{bucket(2.0)}"] == 2 and gpu[f"f{bucket(0.5)}"] == 1
    assert found["other", "", ""] == {"value": 5, "weight": 5}


# --- sharing ----------------------------------------------------------------------------------------------------------


async def test_gateways_add_up(store: Store, other: Costs) -> None:
    mine = costs_on(store)
    for service in (mine, other, mine):
        service.note(record())
        await service.sync()
    assert (await whole(mine))["requests"] == 3


async def test_a_new_day_has_its_own_sums(store: Store) -> None:
    clock = ManualClock(NOON)
    service = costs_on(store, clock)
    service.note(record())
    clock.advance(DAY)
    service.note(record())
    found = await by(service, "day", NOON + DAY)
    assert {day: sums["requests"] for day, sums in found.items()} == {"2024-10-04": 1, "2024-10-05": 1}


async def test_much_is_sent_in_pieces_that_keep_no_payment_waiting(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "BATCH", 7)
    service = costs_on(store)
    for number in range(9):
        service.note(record(agent=f"a{number}"))
    assert len(await by(service, "agent")) == 9
    assert service._merges > 9 and (await whole(service))["requests"] == 9


async def test_an_answer_of_the_store_that_was_lost_counts_once(tmp_path: Path) -> None:
    """The merge may have been done although nobody heard of it; sent again, it must carry the same number."""
    heard: list[list[bytes]] = []
    silent = True

    def answer(command: list[bytes]) -> bytes | None:
        if command[0] in (b"EVALSHA", b"EVAL"):
            heard.append(command)
            return b"HANG UP" if silent else b"*" + str(int(command[2]) - 1).encode() + b"\r\n" + b":1\r\n" * 2
        return ok(command)

    async with puppet(tmp_path, answer) as server:
        store = Store(server.address, timeout=0.05)
        await store.open()
        service = costs_on(store)
        service.note(record())
        with pytest.raises(StoreUnavailable):
            await service.sync()
        service.note(record())
        silent = False
        await eventually(lambda: store.healthy)
        await service.sync()
        await store.aclose()
    sent = [command[3 + int(command[2]) :] for command in heard]
    assert sent[0] == sent[-2] and sent[0][0] == b"1"
    assert sent[-1][0] == b"2" and sent[-1][1:] == sent[0][1:]


async def test_the_script_counts_a_merge_once(store: Store) -> None:
    keys = (layout.key("merged", "p"), layout.key("costs", "2024-10-04"), layout.COSTS_TOTAL)
    for _ in range(3):
        sizes = await store.run(costs.MERGE, keys, (1, 60, 90, 1, "f", 5, 0, 2, "g", 1, "h", -2))
        assert sizes == [1, 2]
    assert await store.call("HGETALL", keys[1]) == [b"f", b"5"]
    assert await store.call("HGETALL", keys[2]) == [b"g", b"1", b"h", b"-2"]
    assert await store.call("TTL", keys[1]) == 90 and await store.call("TTL", keys[2]) == -1


async def test_a_table_that_is_full_takes_no_more_agents(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many gateways there are, and however often they restart."""
    monkeypatch.setattr(costs, "FIELDS_MAX", 5)
    service = costs_on(store)
    service.note(record())
    await service.sync()
    service.note(record(agent="new"))
    service.note(record())
    assert {agent: sums["requests"] for agent, sums in (await by(service, "agent")).items()} == {"coder": 2, "other": 1}


async def test_a_flood_of_agents_is_bounded_both_ways(store: Store) -> None:
    service = costs_on(store)
    made = {
        cell.field for n in range(2 * ROOMS[0]) for cell in service.cells_of(bought().attempts[0], "k", "t", f"a{n}")
    }
    assert len(made) == 3 * (ROOMS[0] + 1) + 3


async def test_what_came_last_outlives_the_process_and_waits_while_the_store_is_away(
    store: Store, other: Costs
) -> None:
    service = costs_on(store)
    service.note(record())
    await service.aclose()
    assert (await whole(other))["requests"] == 1
    service.note(record())
    await store.aclose()
    await service.aclose()
    assert service._sending is not None


async def test_it_shares_by_itself_whatever_the_store_does(
    store: Store, other: Costs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(costs, "SYNC_SECONDS", 0.01)
    service = costs_on(store)
    key = layout.key("costs", "2024-10-04")
    await store.call("SET", key, "not a hash")
    service.note(record())
    task = asyncio.create_task(service.run())
    await eventually(lambda: "not shared" in caplog.text)
    await store.call("DEL", key)
    service.note(record())

    async def shared() -> bool:
        return (await whole(other))["requests"] >= 1

    await eventually(shared)
    await store.aclose()
    service.note(record())
    await asyncio.sleep(0.03)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
