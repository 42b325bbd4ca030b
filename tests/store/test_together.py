from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import hiredis
import pytest

from app.core.errors import InternalError, StoreUnavailable
from app.store.together import AT_ONCE, Places, Together


class Server:
    """Doubles numbers; what it does not like it refuses whole, as a store does."""

    def __init__(self) -> None:
        self.asked: list[list[Any]] = []

    def ask(self, items: Sequence[Any]) -> asyncio.Future[Any]:
        self.asked.append(list(items))
        if "raises" in items:
            raise TypeError("no number")
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if "refused" in items:
            reply.set_exception(InternalError("no"))
        elif "away" in items:
            reply.set_exception(StoreUnavailable("away"))
        elif "odd" in items:
            reply.set_result(b"odd")
        else:
            reply.set_result([hiredis.ReplyError("no") if each == "bad" else each * 2 for each in items])
        return reply


async def answers(server: Server, *items: Any) -> list[Any]:
    together: Together[Any] = Together(server.ask)
    async with asyncio.timeout(10):
        return await asyncio.gather(*map(together.ask, items), return_exceptions=True)


async def test_one_turn_is_one_call_and_each_gets_its_own_answer() -> None:
    server = Server()
    assert await answers(server, *range(AT_ONCE + 2)) == [2 * each for each in range(AT_ONCE + 2)]
    assert [len(each) for each in server.asked] == [AT_ONCE, 2], "no script keeps others waiting for long"


async def test_one_that_is_refused_by_itself_is_no_affair_of_the_others() -> None:
    server = Server()
    one, bad, two = await answers(server, 1, "bad", 2)
    assert (one, two) == (2, 4) and isinstance(bad, InternalError)


@pytest.mark.parametrize(("what", "kind"), [("raises", TypeError), ("refused", InternalError), ("odd", InternalError)])
async def test_one_that_spoils_the_call_is_asked_for_alone(what: str, kind: type[Exception]) -> None:
    """Else a single broken row keeps the payments of everybody else, each time."""
    server = Server()
    one, spoilt, two = await answers(server, 1, what, 2)
    assert (one, two) == (2, 4) and isinstance(spoilt, kind)
    assert server.asked == [[1, what, 2], [1], [what], [2]]


async def test_a_store_that_is_away_is_not_asked_again_by_each() -> None:
    server = Server()
    assert all(isinstance(each, StoreUnavailable) for each in await answers(server, 1, "away", 2))
    assert len(server.asked) == 1


async def test_who_left_meanwhile_is_no_affair_of_the_others() -> None:
    server = Server()
    together: Together[Any] = Together(server.ask)
    left, stays = together.ask(1), together.ask(2)
    left.cancel()
    async with asyncio.timeout(10):
        assert await stays == 4
    assert server.asked == [[2]], "nobody waits for the other"


async def test_who_left_while_the_whole_was_refused_is_not_asked_for_again() -> None:
    """What is admitted for nobody holds a seat until it is due."""
    asked: list[list[Any]] = []
    first: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def send(items: Sequence[Any]) -> asyncio.Future[Any]:
        asked.append([*items])
        return first

    together: Together[Any] = Together(send)
    left, stays = together.ask(1), together.ask(2)
    await asyncio.sleep(0)
    left.cancel()
    first.set_exception(InternalError("no"))
    with pytest.raises(InternalError):
        await stays
    assert asked == [[1, 2], [2]]


def test_places_are_counted_as_scripts_count_and_named_once() -> None:
    keys = ["epoch"]
    places = Places(keys)
    assert [places["a"], places["b"], places["a"]] == [2, 3, 2] and keys == ["epoch", "a", "b"]
