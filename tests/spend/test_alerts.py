"""Whoever relies on being told at 80 % must be told: once, whatever happens, and without a secret in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from app.core.clock import ManualClock
from app.core.errors import StoreUnavailable
from app.core.spending import Counter
from app.core.tasks import TaskOwner
from app.spend.alerts import Alerts, Post, Reading, said_of, webhook
from app.store import layout
from app.store.client import Store
from tests.store.live import eventually, store, valkey

__all__ = ["store", "valkey"]

NOW = 1_795_186_800.0
STARTS, ENDS = 1_795_132_800_000, 1_795_219_200_000


def counter(limit: int | None = 1_000_000_000, key: str = "{tierway}:spend-day:x:1", ends: int = ENDS) -> Counter:
    return Counter("agent:qe-*:day (qe-1)", "agent", "day", key, limit, STARTS if ends else 0, ends)


def reading(used: int, held: int = 0, refused: bool = False, **more: Any) -> Reading:
    return Reading(counter(**more), used * 1_000_000, held * 1_000_000, refused)


class Desk:
    """One gateway's alerts, and what came of them."""

    def __init__(self, store: Store, post: Post | None = None, levels: tuple[float, ...] = (0.8, 1.0)) -> None:
        self.errors: list[BaseException] = []
        self.tasks = TaskOwner(lambda name, error: self.errors.append(error))
        self.told: list[tuple[str, str]] = []
        self.alerts = Alerts(store, ManualClock(NOW), self.tasks, levels, lambda *told: self.told.append(told), post)

    async def look(self, *readings: Reading) -> list[tuple[str, str]]:
        self.told.clear()
        await self.alerts.look(readings)
        return list(self.told)


async def test_a_level_is_told_once_by_one_gateway(store: Store) -> None:
    here, there = Desk(store), Desk(store)
    assert await here.look(reading(799)) == []
    assert await here.look(reading(800)) == [("agent", "80%")]
    assert await here.look(reading(900)) == await there.look(reading(900)) == []
    assert await there.look(reading(1_000)) == [("agent", "100%")]
    assert await here.look(reading(1_000)) == []
    assert await Desk(store).look(reading(1_000)) == [], "nor after a restart"


async def test_of_many_gateways_at_once_one_tells(store: Store) -> None:
    desks = [Desk(store) for _ in range(5)]
    told = await asyncio.gather(*(desk.look(reading(1_000)) for desk in desks))
    assert sorted(one for each in told for one in each) == [("agent", "100%"), ("agent", "80%")]


async def test_what_is_held_counts_too(store: Store) -> None:
    assert await Desk(store).look(reading(500, 300)) == [("agent", "80%")]


async def test_a_limit_is_reached_when_nothing_fits_any_more(store: Store) -> None:
    """With requests of 0.12 and a limit of 0.45 the last cents are never spent, and still nothing is answered."""
    assert await Desk(store).look(reading(700, refused=True)) == [("agent", "80%"), ("agent", "100%")]


async def test_one_request_that_is_too_large_is_no_alert(store: Store) -> None:
    """Else anybody could ring the bell by asking for a novel."""
    assert await Desk(store, levels=(0.8, 1.0, 1.5)).look(reading(499, refused=True)) == []
    assert await Desk(store, levels=(1.5,)).look(reading(900, refused=True)) == []


async def test_a_limit_of_nothing_is_reached_by_the_first_request(store: Store) -> None:
    desk = Desk(store)
    assert await desk.look(reading(0, limit=0)) == []
    assert await desk.look(reading(0, limit=0, refused=True)) == [("agent", "80%"), ("agent", "100%")]


async def test_the_next_period_and_a_raised_limit_are_told_anew(store: Store) -> None:
    desk = Desk(store, levels=(0.8,))
    for one in (reading(900), reading(900, key="{tierway}:spend-day:x:2"), reading(1_900, limit=2_000_000_000)):
        assert await desk.look(one) == [("agent", "80%")]


async def test_marks_go_with_their_period(store: Store) -> None:
    desk = Desk(store, levels=(0.8,))
    assert await desk.look(reading(900), reading(900, key="t", ends=0), reading(900, key="old", ends=1)) != []
    lives = sorted([await store.call("TTL", key) for key in await store.call("KEYS", "*alert*")])
    left = ENDS // 1_000 - int(NOW)
    assert lives[0] <= 1 and left - 10 <= lives[1] <= left
    assert lives[2] > layout.lifetime("budgets-alert") - 10
    for key in await store.call("KEYS", "*alert*"):
        assert layout.fault_of(key.decode(), await store.call("TTL", key)) is None


async def test_what_could_not_be_told_for_want_of_the_store_is_told_later(store: Store) -> None:
    class Away:
        answers = 0

        async def call(self, *command: Any, again: bool = False) -> Any:
            self.answers += 1
            if self.answers == 1:
                await store.call(*command, again=again)  # done, and the answer is lost
                raise StoreUnavailable("It is away.")
            return await store.call(*command, again=again)

    desk = Desk(Away(), levels=(0.8,))  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable):
        await desk.look(reading(900))
    assert await desk.look(reading(900)) == [("agent", "80%")]


async def test_what_was_told_is_not_remembered_without_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.spend.alerts.TOLD_AT_MOST", 3)
    desk = Desk(store, levels=(0.8,))
    for number in range(9):
        assert len(await desk.look(reading(900, key=f"k{number}"))) == 1
    assert len(desk.alerts._told) == 3
    assert await desk.look(reading(900, key="k0")) == [], "the store remembers longer"


def test_what_is_said() -> None:
    assert said_of(reading(800, 25, refused=True), 0.8, NOW) == {
        "event": "budget_alert",
        "text": "Tierway: the budget agent:qe-*:day (qe-1) has reached 80%: 0.80 of 1.00 USD are used, 0.025 USD held,"
        " and requests are refused.",
        "budget": "agent:qe-*:day (qe-1)",
        "scope": "agent",
        "period": "day",
        "level": "80%",
        "share": 0.825,
        "limit_usd": 1.0,
        "used_usd": 0.8,
        "held_usd": 0.025,
        "refused": True,
        "starts_at": STARTS / 1_000,
        "ends_at": ENDS / 1_000,
        "at": NOW,
    }
    total = said_of(reading(1_000, ends=0), 1.25, NOW)
    assert (total["starts_at"], total["ends_at"], total["level"]) == (None, None, "125%")


async def test_the_log_says_it(store: Store) -> None:
    with capture_logs() as lines:
        await Desk(store, levels=(0.8,)).look(reading(800))
    (line,) = lines
    assert (line["event"], line["log_level"], line["reached"]) == ("budget", "warning", "80%")
    assert "level" not in line, "else a log that is filtered by level loses the alert"
    assert line["budget"] == "agent:qe-*:day (qe-1)" and line["used_usd"] == 0.8


class Hook:
    """A server that answers each post with the next of its statuses; 0 hangs up."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.bodies: list[dict[str, Any]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        self.bodies.append(json.loads(await reader.readexactly(length)))
        status = self.statuses.pop(0)
        if status:
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        writer.close()


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    made = Hook(204)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/secret-path"
    yield made
    server.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.spend.alerts.PAUSES", (0.0, 0.0, 0.0))


async def test_the_webhook_gets_it_as_json(store: Store, hook: Hook) -> None:
    desk = Desk(store, webhook(SecretStr(hook.url)), levels=(0.8,))
    await desk.look(reading(800))
    await eventually(lambda: not len(desk.tasks))
    assert hook.bodies == [json.loads(json.dumps(said_of(reading(800), 0.8, NOW)))]


@pytest.mark.parametrize("failure", [500, 404, 302, 0])
async def test_a_webhook_that_stumbles_is_asked_again(store: Store, hook: Hook, at_once: None, failure: int) -> None:
    hook.statuses[:0] = [failure, failure]
    desk = Desk(store, webhook(SecretStr(hook.url)), levels=(0.8,))
    await desk.look(reading(800))
    await eventually(lambda: not len(desk.tasks))
    assert len(hook.bodies) == 3 and not desk.errors


async def test_a_webhook_that_never_takes_it_is_given_up_and_its_address_kept(
    store: Store, hook: Hook, at_once: None
) -> None:
    """Its path is often a token."""
    hook.statuses[:] = [500] * 3
    desk = Desk(store, webhook(SecretStr(hook.url)), levels=(0.8,))
    with capture_logs() as lines:
        await desk.look(reading(800))
        await eventually(lambda: not len(desk.tasks))
    assert lines[-1]["log_level"] == "error" and not desk.errors
    assert "secret-path" not in repr(lines)


async def test_nobody_waits_for_a_webhook(store: Store) -> None:
    async def never(said: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    desk = Desk(store, never)
    assert len(await desk.look(reading(1_000))) == 2
    assert len(desk.tasks) == 2
    await desk.tasks.cancel()
