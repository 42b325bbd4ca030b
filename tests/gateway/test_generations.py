"""A gateway follows another without a gap: nobody's answer ends because somebody edited a file."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from app.core.tasks import TaskOwner
from app.gateway.generations import Generations
from tests.store.live import eventually


class Yard:
    """Where gateways are built. `log` says what happened, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.errors: list[BaseException] = []
        self.busy: set[str] = set()
        self.tasks = TaskOwner(lambda name, error: self.errors.append(error))
        self.gateways: Generations[str, str] = Generations(self.build, self.tasks, self.busy.__contains__)

    @contextlib.asynccontextmanager
    async def build(self, settings: str, before: str | None) -> AsyncIterator[str]:
        task = asyncio.current_task()
        if settings == "bad":
            raise ValueError("bad")
        self.log.append(f"{settings} after {before}")
        yield settings
        if settings == "sticky":
            raise RuntimeError("it does not close")
        self.log.append(f"{settings} closed {'where it was opened' if asyncio.current_task() is task else 'elsewhere'}")


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    yard = Yard()
    yield yard
    await yard.gateways.aclose()
    await eventually(lambda: len(yard.tasks) == 0)


async def test_the_old_one_goes_when_its_last_request_is_over(yard: Yard) -> None:
    assert await yard.gateways.follow("a") == "a"
    first = yard.gateways.current
    first.users += 1
    await yard.gateways.follow("b")
    assert yard.gateways.current.value == "b" and yard.log == ["a after None", "b after a"]
    await asyncio.sleep(0.12)
    assert len(yard.log) == 2, "it still has a request"
    first.users -= 1
    await eventually(lambda: yard.log[2:] == ["a closed where it was opened"])


async def test_work_that_no_request_waits_for_is_ended_too(yard: Yard) -> None:
    await yard.gateways.follow("a")
    yard.busy.add("a")
    await yard.gateways.follow("b")
    await asyncio.sleep(0.12)
    assert len(yard.log) == 2
    yard.busy.clear()
    await eventually(lambda: len(yard.log) == 3)


async def test_one_that_cannot_come_to_life_changes_nothing(yard: Yard) -> None:
    await yard.gateways.follow("a")
    with pytest.raises(ValueError, match="bad"):
        await yard.gateways.follow("bad")
    assert yard.gateways.current.value == "a"
    await yard.gateways.follow("b")
    await eventually(lambda: yard.log[1:] == ["b after a", "a closed where it was opened"])
    assert not yard.errors, "who asked for it was told"


async def test_the_first_may_fail_as_well(yard: Yard) -> None:
    with pytest.raises(ValueError, match="bad"):
        await yard.gateways.follow("bad")
    assert await yard.gateways.follow("a") == "a"


async def test_at_the_end_all_close_whoever_uses_them(yard: Yard) -> None:
    await yard.gateways.follow("a")
    yard.gateways.current.users += 1
    await yard.gateways.follow("b")
    yard.gateways.current.users += 1
    await yard.gateways.aclose()
    assert sorted(yard.log[2:]) == ["a closed where it was opened", "b closed where it was opened"]


async def test_a_fault_on_closing_is_told(yard: Yard) -> None:
    await yard.gateways.follow("sticky")
    await yard.gateways.follow("b")
    await eventually(lambda: [str(error) for error in yard.errors] == ["it does not close"])


async def test_whoever_gives_up_waiting_leaves_nothing_behind(yard: Yard) -> None:
    gate = asyncio.Event()

    @contextlib.asynccontextmanager
    async def slow(settings: str, before: str | None) -> AsyncIterator[str]:
        await gate.wait()
        yard.log.append("built")
        yield settings
        yard.log.append("closed")

    gateways: Generations[str, str] = Generations(slow, yard.tasks)
    waiting = asyncio.create_task(gateways.follow("a"))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await eventually(lambda: yard.log == ["built", "closed"])


async def test_one_that_is_cancelled_while_it_is_built(yard: Yard) -> None:
    never = asyncio.Event()

    @contextlib.asynccontextmanager
    async def stuck(settings: str, before: str | None) -> AsyncIterator[str]:
        await never.wait()
        yield settings

    gateways: Generations[str, str] = Generations(stuck, yard.tasks)
    waiting = asyncio.create_task(gateways.follow("a"))
    await asyncio.sleep(0.01)
    await yard.tasks.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
