"""Without this conversations get lost, mixed up, or shown to others; on a real store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.caller import ANONYMOUS, Caller
from app.core.clock import ManualClock
from app.core.errors import StoreUnavailable
from app.core.tasks import TaskOwner
from app.sessions.said import NOTHING, Kept, Said, said
from app.sessions.sessions import DROP, LATE_MAX, Sessions, Turn, new_id, place_of
from app.store import layout
from app.store.client import Store
from tests.sessions.talk import Json, says, system, user
from tests.store.live import eventually, puppet

PLACE = "00"


class House:
    """Sessions on one store."""

    def __init__(self, store: Store, **options: int) -> None:
        self.errors: list[str] = []
        self.clock = ManualClock()
        self.tasks = TaskOwner(self._failed)
        self.sessions = Sessions(store, self.clock, self.tasks, self._failed, sleep=self._sleep, **options)
        self.slept = 0.0

    def _failed(self, where: str, error: BaseException) -> None:
        self.errors.append(where)

    async def _sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.slept += seconds
        await asyncio.sleep(0)

    async def load(self, place: str = PLACE) -> Kept:
        return await self.sessions.load(place)

    async def turn(self, ask: str, answer: str, kept: Kept | None = None, place: str = PLACE, **more: object) -> Kept:
        """A turn after what is `kept` (what there is, else), and the session after it."""
        before = await self.load(place) if kept is None else kept
        about = {"stays": len(before.said), "said": two(ask, answer), "system": (), "model": "gpu/m", **more}
        await self.sessions.keep(place, before, Turn(**about))  # type: ignore[arg-type]
        return await self.load(place)


def two(ask: str, answer: str) -> tuple[Said, Said]:
    return said(user(ask), None, 1.0), said(says(answer), "gpu/m", 2.0)


def talk(*words: str) -> list[Json]:
    return [says(word) if at % 2 else user(word) for at, word in enumerate(words)]


@pytest.fixture
async def house(store: Store) -> AsyncIterator[House]:
    house = House(store)
    yield house
    assert not await house.tasks.drain(5)
    await whole(store)


async def whole(store: Store) -> None:
    """Every key belongs somewhere and ends, and the sizes of the index are those of the sessions."""
    keys = [key.decode() for key in await store.call("KEYS", "*")]
    assert [layout.fault_of(key, await store.call("TTL", key)) for key in keys] == [None] * len(keys)
    flat = await store.call("HGETALL", layout.SESSIONS_BYTES)
    sizes = {name.decode(): int(size) for name, size in zip(flat[::2], flat[1::2], strict=True)}
    total = sizes.pop("#", 0)
    assert total == sum(sizes.values())
    names = {name.decode() for name in await store.call("ZRANGE", layout.SESSIONS, 0, -1)}
    kept = {key.rpartition(":")[2] for key in keys if layout.PARTITIONS["session"].holds(key)}
    assert names == sizes.keys() == kept


async def test_turn_by_turn(house: House) -> None:
    assert await house.load() == NOTHING
    first = await house.turn("a", "b", system=(system(),))
    assert (first.messages, first.system, first.model, first.turns) == (talk("a", "b"), (system(),), "gpu/m", 1)
    house.clock.advance(10)
    second = await house.turn("c", "d", system=(system("New."),), model="gpu/n")
    assert second.messages == talk("a", "b", "c", "d") and second.system == (system("New."),)
    assert (second.model, second.turns, second.said[3].by) == ("gpu/n", 2, "gpu/m")
    assert second.created_at == first.created_at == second.updated_at - 10
    assert second.born == first.born and second.version > first.version


async def test_every_gateway_sees_it(house: House, store: Store) -> None:
    await house.turn("a", "b")
    assert (await House(store).load()).messages == talk("a", "b")


async def test_a_branch_replaces_what_came_after(house: House) -> None:
    await house.turn("a", "b")
    kept = await house.turn("c", "d")
    branch = await house.turn("other", "way", kept, stays=2, hidden=frozenset({0, 3}))
    assert branch.messages == talk("a", "b", "other", "way") and branch.hidden == {0}
    assert (await house.turn("all", "new", branch, stays=0)).messages == talk("all", "new")


async def test_two_turns_at_the_same_time_are_kept_as_they_end(house: House) -> None:
    """Also two first turns. Neither overwrites the other."""
    await house.turn("a", "b", NOTHING)
    kept = await house.turn("c", "d", NOTHING)
    assert kept.messages == talk("a", "b", "c", "d")
    await house.turn("e", "f", kept)
    assert (await house.turn("g", "h", kept)).messages == talk("a", "b", "c", "d", "e", "f", "g", "h")


async def test_of_two_that_rewrite_the_last_stands(house: House) -> None:
    """Never a mixture of both."""
    await house.turn("a", "b")
    kept = await house.turn("c", "d")
    await house.turn("x", "y", kept, stays=0)
    assert (await house.turn("e", "f", kept)).messages == talk("a", "b", "c", "d", "e", "f"), "it knew all of that"
    kept = await house.load()
    await house.turn("g", "h", kept)
    assert (await house.turn("i", "j", kept, stays=2)).messages == talk("a", "b", "i", "j")


async def test_what_was_deleted_stays_deleted(house: House) -> None:
    """A turn that was running when its owner deleted the session brings nothing back."""
    kept = await house.turn("a", "b")
    assert await house.sessions.delete(PLACE) and not await house.sessions.delete(PLACE)
    assert await house.turn("c", "d", kept) == NOTHING
    again = await house.turn("e", "f")
    assert await house.turn("g", "h", kept) == again, "nor into a new one of the same name"


async def test_sessions_end_with_their_time(house: House, store: Store) -> None:
    """Thirty days after the last turn, or as early as the key says; an end frees its room."""
    await house.turn("a", "b")
    assert 29 * layout.DAY < await store.call("TTL", layout.key("session", PLACE)) <= 30 * layout.DAY
    await house.turn("c", "d", days=2)
    for partition in ("session", "session-said"):
        assert layout.DAY < await store.call("TTL", layout.key(partition, PLACE)) <= 2 * layout.DAY
    await house.turn("e", "f", days=90)
    assert await store.call("TTL", layout.key("session", PLACE)) <= 30 * layout.DAY
    await store.call("DEL", layout.key("session", PLACE), layout.key("session-said", PLACE))
    await store.call("ZADD", layout.SESSIONS, 1, PLACE)
    await house.turn("x", "y", place="11")


async def test_a_session_that_grew_too_large_loses_its_oldest_turns(store: Store) -> None:
    house = House(store, max_bytes=2_000)
    for number in range(20):
        kept = await house.turn(f"ask {number} {'x' * 40}", f"answer {number} {'y' * 40}", system=(system(),))
        assert sum(len(each.data) for each in kept.said) <= 2_000
        assert len(kept.said) + kept.dropped == 2 * (number + 1) and len(kept.said) % 2 == 0
        assert kept.messages[-1]["content"].startswith(f"answer {number} ")
    assert kept.dropped == 20 and kept.turns == 20 and kept.system == (system(),)
    hidden = await house.turn("a", "b", kept, hidden=frozenset({0, 1, 2}))
    assert hidden.hidden == {0, 1, 2}
    await whole(store)


async def test_hidden_messages_are_still_those_after_a_cut(store: Store) -> None:
    house = House(store, max_bytes=800)
    kept = await house.turn("x" * 150, "y" * 150)
    kept = await house.turn("x" * 50, "y" * 50, kept)
    kept = await house.turn("z" * 150, "z" * 150, kept, hidden=frozenset({0, 1, 2}))
    assert kept.dropped == 2 and kept.hidden == {0} and len(kept.said) == 4


async def test_a_turn_larger_than_a_session_may_be(store: Store) -> None:
    """It is not kept, and neither is what it no longer belongs to; that is remembered."""
    house = House(store, max_bytes=500)
    await house.turn("a", "b")
    kept = await house.turn("c", "x" * 900)
    assert kept.said == () and kept.dropped == 4 and kept.turns == 2
    assert (await house.turn("d", "e", kept)).messages == talk("d", "e")


async def test_many_pieces_count_too(store: Store) -> None:
    """A conversation of more parts than a request may have could never go on."""
    house = House(store, max_bytes=40_000)
    parts = {"role": "user", "content": [{"type": "text", "text": "x"}] * 1_500}
    kept = NOTHING
    for _ in range(4):
        turn = Turn(len(kept.said), (said(parts, None, 1.0), said(says("b"), "m", 1.0)), (), "m")
        await house.sessions.keep(PLACE, kept, turn)
        kept = await house.load()
        assert sum(each.pieces for each in kept.said) < 4_000


async def test_all_together_have_their_room(store: Store) -> None:
    """When it is full those go that would end first, and never the one that is written."""
    house = House(store, max_bytes=1_000, room=4_000)
    for number in range(30):
        await house.turn("a", "b" * 300, place=f"{number:02}", days=1 + number % 3)
        assert (await house.load(f"{number:02}")).turns == 1
    left = [number for number in range(30) if (await house.load(f"{number:02}")).said]
    assert 3 <= len(left) < 10 and 29 in left
    assert {number % 3 for number in left[:-1]} == {2}
    await whole(store)


async def test_one_that_came_back_is_not_dropped(store: Store) -> None:
    """Room is made in two steps; a session that is used between them stays."""
    house = House(store)
    await house.turn("a", "b")
    keys = [layout.key(each, PLACE) for each in ("session", "session-said")]
    assert await store.run(DROP, (*keys, layout.SESSIONS, layout.SESSIONS_BYTES), (PLACE, "1")) == 0
    assert (await house.load()).turns == 1


async def test_a_write_that_was_sent_twice_counts_once(house: House, store: Store) -> None:
    """The store may have taken a turn whose acknowledgement was lost."""
    run, lost = store.run, [True]

    async def forgetful(script: object, *args: object, **more: object) -> object:
        answer = await run(script, *args, **more)  # type: ignore[arg-type]
        if getattr(script, "name", "") == "session_put" and lost and lost.pop():
            raise StoreUnavailable("gone")
        return answer

    store.run = forgetful  # type: ignore[method-assign,assignment]  # a coroutine will do
    await house.sessions.keep(PLACE, NOTHING, Turn(0, two("a", "b"), (), "m"))
    await house.tasks.drain(5)
    assert (await house.load()).messages == talk("a", "b") and not house.errors


# --- a store that is away ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def away(folder: Path) -> AsyncIterator[House]:
    """A store that was there once."""
    async with puppet(folder) as server:
        store = Store(server.address, timeout=0.05)
        await store.open()
        await server.stop()
        await eventually(lambda: not store.healthy)
        house = House(store)
        yield house
        await house.tasks.cancel()
        await store.aclose()


async def test_a_store_that_is_away(tmp_path: Path) -> None:
    """Nobody gets an answer to half of a conversation. A finished turn waits a while for the store, and until then
    the next turn waits too."""
    async with away(tmp_path) as house:
        with pytest.raises(StoreUnavailable):
            await house.load()
        await house.sessions.keep(PLACE, NOTHING, Turn(0, two("a", "b"), (), "m"))
        with pytest.raises(StoreUnavailable, match="still to be written"):
            await house.load()
        await house.tasks.drain(5)
        assert house.errors == ["a turn of a session was lost"] and 59 < house.slept < 61
        with pytest.raises(StoreUnavailable, match="away"):
            await house.load()


async def test_only_so_many_turns_wait(tmp_path: Path) -> None:
    async with away(tmp_path) as house:
        house.sessions._late.update({"x": LATE_MAX})
        await house.sessions.keep(PLACE, NOTHING, Turn(0, two("a", "b"), (), "m"))
        assert house.errors and not len(house.tasks)


# --- whose it is --------------------------------------------------------------------------------------------------


def test_whose_a_session_is() -> None:
    """A tenant's keys share its sessions; nobody else ever finds them."""
    one, two = Caller("k1", tenant="acme"), Caller("k2", tenant="acme")
    assert place_of(one, "s") == place_of(two, "s")
    others = [one, Caller("k1"), Caller("k2"), Caller("acme"), Caller("k3", tenant="k1"), ANONYMOUS]
    others += [replace(one, tenant="anybody"), Caller("anybody")]
    places = {place_of(caller, session) for caller in others for session in ("s", "t", "", "acme", "é")}
    assert len(places) == 5 * len(others)
    assert new_id() != new_id() and new_id().startswith("sess_")
