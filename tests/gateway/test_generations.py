"""A gateway follows another without a gap: nobody's answer ends because somebody edited a file."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from app.gateway import generations
from app.gateway.generations import Generations, Living
from tests.store.live import eventually

Build = Callable[[str, str | None], AbstractAsyncContextManager[str]]


class Yard:
    """Where gateways are built. `log` says what happened, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.errors: list[BaseException] = []
        self.busy: set[str] = set()
        self.gateways: Generations[str, str] = self.of(self.build)

    def of(self, build: Build) -> Generations[str, str]:
        return Generations(build, lambda name, error: self.errors.append(error), self.busy.__contains__)

    @property
    def current(self) -> Living[str]:
        assert self.gateways.current is not None
        return self.gateways.current

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


async def test_the_old_one_goes_when_its_last_request_is_over(yard: Yard) -> None:
    assert await yard.gateways.follow("a") == "a"
    first = yard.current
    first.users += 1
    await yard.gateways.follow("b")
    assert yard.current.value == "b" and yard.log == ["a after None", "b after a"]
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
    assert yard.current.value == "a"
    await yard.gateways.follow("b")
    await eventually(lambda: yard.log[1:] == ["b after a", "a closed where it was opened"])
    assert not yard.errors, "who asked for it was told"


async def test_the_first_may_fail_as_well(yard: Yard) -> None:
    with pytest.raises(ValueError, match="bad"):
        await yard.gateways.follow("bad")
    assert await yard.gateways.follow("a") == "a"


async def test_at_the_end_all_close_whoever_uses_them(yard: Yard) -> None:
    await yard.gateways.follow("a")
    yard.current.users += 1
    await yard.gateways.follow("b")
    yard.current.users += 1
    await yard.gateways.aclose()
    assert sorted(yard.log[2:]) == ["a closed where it was opened", "b closed where it was opened"]


async def test_a_fault_on_closing_is_told(yard: Yard) -> None:
    await yard.gateways.follow("sticky")
    await yard.gateways.follow("b")
    await eventually(lambda: [str(error) for error in yard.errors] == ["it does not close"])


async def test_one_that_is_closing_already_is_not_cut_by_the_end(yard: Yard) -> None:
    """What it still owes is written down while it closes."""
    closing, go = asyncio.Event(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def slow(settings: str, before: str | None) -> AsyncIterator[str]:
        yield settings
        closing.set()
        await go.wait()
        yard.log.append(f"{settings} closed")

    gateways = yard.of(slow)
    await gateways.follow("a")
    await gateways.follow("b")
    await closing.wait()
    ending = asyncio.create_task(gateways.aclose())
    await asyncio.sleep(0.01)
    assert not ending.done()
    go.set()
    await asyncio.wait_for(ending, 10)
    assert sorted(yard.log) == ["a closed", "b closed"]


async def test_one_that_does_not_close_does_not_keep_the_process(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "CLOSE_SECONDS", 0.05)

    @contextlib.asynccontextmanager
    async def stuck(settings: str, before: str | None) -> AsyncIterator[str]:
        yield settings
        await asyncio.Event().wait()

    gateways = yard.of(stuck)
    await gateways.follow("a")
    await asyncio.wait_for(gateways.aclose(), 10)


async def test_one_that_comes_to_life_after_the_end_closes_at_once(yard: Yard) -> None:
    gate = asyncio.Event()

    @contextlib.asynccontextmanager
    async def slow(settings: str, before: str | None) -> AsyncIterator[str]:
        await gate.wait()
        yield settings
        yard.log.append(f"{settings} closed")

    gateways = yard.of(slow)
    waiting = asyncio.create_task(gateways.follow("a"))
    await asyncio.sleep(0.01)
    ending = asyncio.create_task(gateways.aclose())
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.wait_for(ending, 10)
    assert yard.log == ["a closed"] and gateways.current is None
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_whoever_gives_up_waiting_leaves_nothing_behind(yard: Yard) -> None:
    @contextlib.asynccontextmanager
    async def slow(settings: str, before: str | None) -> AsyncIterator[str]:
        try:
            await asyncio.Event().wait()
        finally:
            yard.log.append("given up")
        yield settings

    gateways = yard.of(slow)
    waiting = asyncio.create_task(gateways.follow("a"))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await eventually(lambda: yard.log == ["given up"])
    assert gateways.current is None


@pytest.mark.parametrize("steps", range(6))
async def test_whoever_gives_up_at_any_moment_leaves_one_that_counts(yard: Yard, steps: int) -> None:
    """Also in the very moment of a birth: the new one is either current, and the one before goes, or it goes itself."""
    await yard.gateways.follow("a")
    waiting = asyncio.create_task(yard.gateways.follow("b"))
    for _ in range(steps):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    await yard.gateways.follow("c")
    made = {line[0] for line in yard.log if "after" in line}
    await eventually(lambda: {line[0] for line in yard.log if "closed" in line} == made - {"c"})
    assert yard.current.value == "c" and not yard.errors


async def test_one_that_is_cancelled_while_it_is_built(yard: Yard) -> None:
    @contextlib.asynccontextmanager
    async def cancelled(settings: str, before: str | None) -> AsyncIterator[str]:
        if settings == "a":
            raise asyncio.CancelledError
        yield settings

    with pytest.raises(asyncio.CancelledError):
        await yard.of(cancelled).follow("a")
