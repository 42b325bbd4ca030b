from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.core.leaving import CancelledBy
from app.core.tasks import TaskOwner, Watched


class Door:
    """Tells whoever asked last that they left."""

    def __init__(self, *, left: bool = False) -> None:
        self.call: Callable[[], None] | None = None
        self.left = left

    def notice(self, call: Callable[[], None] | None) -> None:
        self.call = call
        if self.left and call is not None:
            call()


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def test_who_leaves_cancels_the_body() -> None:
    """A client that leaves must stop the model at once, and everything must be closed on the way."""
    door, cleaned = Door(), []
    with pytest.raises(Watched, match="client"):
        async with CancelledBy(door.notice, "client"):
            assert door.call is not None
            asyncio.get_running_loop().call_soon(door.call)
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                cleaned.append(True)
    assert (cleaned, cancelling(), door.call) == ([True], 0, None)


async def test_who_has_left_already_cancels_at_the_first_wait() -> None:
    """Between the last byte of a request and its answer a client may be gone: nothing would ever tell again."""
    with pytest.raises(Watched):
        async with CancelledBy(Door(left=True).notice, "client"):
            await asyncio.Event().wait()
    assert cancelling() == 0


async def test_a_body_that_ends_first_is_not_told_any_more() -> None:
    door = Door()
    async with CancelledBy(door.notice, "client"):
        pass
    assert door.call is None
    await asyncio.sleep(0)


async def test_a_bodys_error_stays_its_own() -> None:
    """An upstream's error must reach whoever accounts for it, also when the client leaves at that moment."""
    door = Door()
    with pytest.raises(KeyError):
        async with CancelledBy(door.notice, "client"):
            assert door.call is not None
            asyncio.get_running_loop().call_soon(door.call)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise KeyError("mine") from None
    assert cancelling() == 0


@pytest.mark.parametrize("left", [False, True])
async def test_a_cancellation_from_outside_stays_one(left: bool) -> None:
    """A shutdown that is taken for a client that left would be swallowed, and the task would run on."""
    door = Door()

    async def request() -> None:
        async with CancelledBy(door.notice, "client"):
            await asyncio.Event().wait()

    tasks = TaskOwner(lambda name, error: None)
    task = tasks.spawn(request(), "request")
    await asyncio.sleep(0)
    if left:
        assert door.call is not None
        door.call()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
