"""Tasks have owners: none is lost, none outlives its purpose, and nobody is cancelled by accident."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from app.core.tasks import TaskOwner, Watched, cancel_if

Errors = list[tuple[str, BaseException]]


def owner() -> tuple[TaskOwner, Errors]:
    errors: Errors = []
    return TaskOwner(lambda name, error: errors.append((name, error))), errors


async def nothing() -> None: ...


async def forever() -> None:
    await asyncio.Event().wait()


async def fails(error: BaseException, after: int = 0) -> None:
    for _ in range(after):
        await asyncio.sleep(0)
    raise error


async def others() -> set[asyncio.Task[object]]:
    """Tasks that still run beside this one, once everything that was about to end has ended."""
    for _ in range(3):
        await asyncio.sleep(0)
    return asyncio.all_tasks() - {asyncio.current_task()}


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


# --- the owner ------------------------------------------------------------------------------------------------------


async def test_a_task_has_a_name_and_is_remembered_until_it_ends() -> None:
    """asyncio itself forgets running tasks; a settlement would vanish half-way."""
    tasks, errors = owner()
    task = tasks.spawn(nothing(), "settle 1")
    assert (task.get_name(), len(tasks)) == ("settle 1", 1)
    await task
    assert not await others()
    assert (len(tasks), errors) == (0, [])


async def test_an_error_is_told_with_the_tasks_name() -> None:
    """Nobody awaits these tasks, so an error that is not told is lost."""
    tasks, errors = owner()
    broken = ValueError("broken")
    tasks.spawn(fails(broken), "probe gpu")
    await others()
    assert errors == [("probe gpu", broken)]
    assert len(tasks) == 0


async def test_a_cancelled_task_is_no_error() -> None:
    tasks, errors = owner()
    tasks.spawn(forever(), "probe")
    await tasks.cancel()
    assert (len(tasks), errors) == (0, [])


async def test_draining_waits_for_what_is_running() -> None:
    """A shutdown that does not wait loses ledger entries."""
    tasks, _ = owner()
    done: list[int] = []

    async def settle(number: int) -> None:
        await asyncio.sleep(0.001 * number)
        done.append(number)

    for number in range(5):
        tasks.spawn(settle(number), f"settle {number}")
    assert await tasks.drain(5.0) == 0
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert len(tasks) == 0


async def test_draining_gives_up_in_time_and_says_how_many_it_cancelled() -> None:
    """A task that hangs must not keep a gateway from stopping."""
    tasks, errors = owner()
    tasks.spawn(forever(), "hangs")
    tasks.spawn(nothing(), "ends")
    assert await tasks.drain(0.01) == 1
    assert (len(tasks), errors, await others()) == (0, [], set())


async def test_an_idle_owner_drains_and_cancels_at_once() -> None:
    tasks, _ = owner()
    assert await tasks.drain(0.0) == 0
    await tasks.cancel()


async def test_cancelling_waits_for_the_clean_up() -> None:
    """What a task closes on its way out (a connection, a file) is closed when `cancel` returns."""
    tasks, _ = owner()
    closed: list[bool] = []

    async def careful() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    tasks.spawn(careful(), "careful")
    await asyncio.sleep(0)
    await tasks.cancel()
    assert closed == [True]


async def test_errors_on_the_way_out_are_told_too() -> None:
    tasks, errors = owner()
    late = RuntimeError("late")

    async def clumsy() -> None:
        try:
            await forever()
        finally:
            raise late

    tasks.spawn(clumsy(), "clumsy")
    await asyncio.sleep(0)
    assert await tasks.drain(0.0) == 1
    await others()
    assert errors == [("clumsy", late)]


# --- cancel_if ------------------------------------------------------------------------------------------------------


async def test_a_watcher_that_ends_first_cancels_the_body() -> None:
    """A client that leaves must stop the model at once."""
    cleaned: list[bool] = []
    with pytest.raises(Watched, match="client"):
        async with cancel_if(nothing(), "client"):
            try:
                await forever()
            finally:
                await asyncio.sleep(0)
                cleaned.append(True)
    assert (cleaned, cancelling(), await others()) == ([True], 0, set())


async def test_a_body_that_ends_first_ends_the_watcher() -> None:
    """A watcher left behind would hold the connection of a request that is over."""
    cleaned: list[bool] = []

    async def watcher() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async with cancel_if(watcher(), "client"):
        await asyncio.sleep(0)
    assert cleaned == [True], "it is gone when the body is left"
    assert (cleaned, cancelling(), await others()) == ([True], 0, set())


async def test_a_body_that_never_waits_ends_a_watcher_that_never_began() -> None:
    async with cancel_if(forever(), "client"):
        pass
    assert not await others()


@pytest.mark.parametrize("after", range(4))
async def test_a_watchers_error_is_the_bodys(after: int) -> None:
    """A client that takes nothing is an error the watcher finds, and the request must end with it."""
    broken = ValueError("broken")
    with pytest.raises(ValueError, match="broken") as raised:
        async with cancel_if(fails(broken, after), "client"):
            await forever()
    assert raised.value is broken
    assert (cancelling(), await others()) == (0, set())


async def test_a_bodys_error_stays_its_own() -> None:
    with pytest.raises(KeyError):
        async with cancel_if(forever(), "client"):
            raise KeyError("mine")
    assert (cancelling(), await others()) == (0, set())


async def test_a_cancellation_from_outside_stays_one() -> None:
    """A shutdown that is taken for a client that left would be swallowed, and the task would run on."""
    seen: list[BaseException] = []

    async def request() -> None:
        try:
            async with cancel_if(forever(), "client"):
                await forever()
        except BaseException as error:
            seen.append(error)
            raise

    tasks, _ = owner()
    task = tasks.spawn(request(), "request")
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert isinstance(seen[0], asyncio.CancelledError)
    assert not await others()


@pytest.mark.parametrize("first", ["watcher", "outside"])
async def test_when_both_cancel_at_once_the_outside_wins(first: str) -> None:
    gone = asyncio.Event()

    async def watcher() -> None:
        await gone.wait()

    async def request() -> None:
        async with cancel_if(watcher(), "client"):
            await forever()

    tasks, _ = owner()
    task = tasks.spawn(request(), "request")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if first == "watcher":
        gone.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    task.cancel()
    gone.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert not await others()


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("broken", [False, True])
async def test_body_and_watcher_ending_at_once_never_cancel_what_comes_after(turns: int, broken: bool) -> None:
    """Whoever wins, the task goes on unharmed: a cancellation that arrives late would end another request."""

    async def watcher() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        if broken:
            raise ValueError("broken")

    with contextlib.suppress(Watched, ValueError):
        async with cancel_if(watcher(), "client"):
            for _ in range(turns):
                await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert (cancelling(), await others()) == (0, set())


async def test_a_body_that_ends_with_the_watcher_in_the_same_turn_is_not_cancelled_later() -> None:
    """The watcher is done, but nobody has been told yet when the body leaves."""
    go = asyncio.Event()

    async def watcher() -> None:
        await go.wait()

    async with cancel_if(watcher(), "client"):
        await asyncio.sleep(0)
        go.set()
        await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0)
    assert (cancelling(), await others()) == (0, set())


async def test_a_body_that_swallows_its_cancellation_keeps_its_result() -> None:
    """And the task is not left half cancelled, which would break every timeout after it."""
    async with cancel_if(nothing(), "client"):
        with contextlib.suppress(asyncio.CancelledError):
            await forever()
    assert cancelling() == 0


async def test_an_error_of_the_clean_up_counts_more_than_the_watcher() -> None:
    with pytest.raises(KeyError):
        async with cancel_if(nothing(), "client"):
            try:
                await forever()
            finally:
                raise KeyError("clean-up")
    assert (cancelling(), await others()) == (0, set())


@pytest.mark.parametrize(("outer", "inner", "name"), [(0, 9, "outer"), (9, 0, "inner"), (2, 2, "outer")])
async def test_nested_watchers_are_told_apart(outer: int, inner: int, name: str) -> None:
    """A timeout within a request that a client leaves: each is taken for itself, the outer one first."""

    async def after(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    with pytest.raises(Watched, match=name):
        async with cancel_if(after(outer), "outer"):
            async with cancel_if(after(inner), "inner"):
                await forever()
    assert (cancelling(), await others()) == (0, set())


async def test_it_goes_together_with_timeouts() -> None:
    """Both count cancellations of the same task."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), cancel_if(forever(), "client"):
            await forever()
    with pytest.raises(Watched):
        async with cancel_if(nothing(), "client"), asyncio.timeout(5):
            await forever()
    assert (cancelling(), await others()) == (0, set())


async def test_it_works_in_a_task_that_is_being_cancelled() -> None:
    """Clean-up after a cancellation may watch for something too."""
    ended: list[str] = []

    async def request() -> None:
        try:
            await forever()
        finally:
            try:
                async with cancel_if(nothing(), "clean-up"):
                    await forever()
            except Watched as watched:
                ended.append(str(watched))

    tasks, _ = owner()
    task = tasks.spawn(request(), "request")
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert ended == ["clean-up"]
    assert task.cancelled()


async def test_a_watchers_error_on_its_way_out_is_not_reported_as_lost() -> None:
    """It came after the body was done: nobody waits for it, and it must not disturb the log either."""
    lost: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: lost.append(context))

    async def clumsy() -> None:
        try:
            await forever()
        finally:
            raise ValueError("too late")

    async with cancel_if(clumsy(), "client"):
        await asyncio.sleep(0)
    assert not await others()
    assert lost == []
