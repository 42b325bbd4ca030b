"""Reading the configuration again: what is right counts soon, what is wrong changes nothing and is said."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.config.load import load
from app.config.settings import Settings
from app.core.clock import ManualClock
from app.core.errors import Overloaded
from app.core.tasks import TaskOwner
from app.gateway.audit import Audit
from app.gateway.reloading import FAILED, OK, UNCHANGED, Reloading
from app.gateway.runtime import Runtime
from app.gateway.versions import FILE_BYTES, Filed
from app.store.broadcast import Broadcast
from app.store.client import Store
from tests.store.live import eventually

COST, QUALITY = "routing: {strategy: cost}", "routing: {strategy: quality}"


class Replica:
    """What a gateway has of its file. `counted` are the settings that came to count, one after the other."""

    def __init__(self, store: Store, file: Path | None) -> None:
        self.file = file
        self.runtime = Runtime(store, ManualClock(), load({}).flags, lambda name, share: None)
        self.counted: list[Settings] = []
        self.outcomes: list[str] = []
        self.fault: Exception | None = None
        settings = load({}, config_path=file)
        read = lambda text: load({}, config_path=file, text=text)  # noqa: E731 - as the application hands it in
        versions = self.runtime.versions
        self.reloading = Reloading(settings, read, versions, self.follow, self.outcomes.append)
        self.runtime.file = lambda: self.reloading.file

    async def follow(self, settings: Settings) -> None:
        if self.fault is not None:
            raise self.fault
        self.counted.append(settings)

    async def open(self) -> Replica:
        await self.runtime.open()
        await self.follow(await self.reloading.open())
        return self

    @property
    def strategy(self) -> str:
        return self.counted[-1].routing.strategy

    def write(self, text: str) -> None:
        assert self.file is not None
        self.file.write_text(text)

    async def reload(self) -> str:
        await self.runtime.versions.refresh()
        return (await self.reloading.reload("test")).outcome


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tierway.yaml"
    path.write_text(COST)
    return path


@pytest.fixture
async def replica(store: Store, file: Path) -> Replica:
    return await Replica(store, file).open()


async def test_what_the_file_says_now_counts(replica: Replica) -> None:
    assert replica.strategy == "cost" and await replica.reload() == UNCHANGED and len(replica.counted) == 1
    replica.write(QUALITY)
    outcome = await replica.reloading.reload("test")
    assert (outcome.outcome, outcome.version) == (OK, replica.counted[-1].version)
    (last, *_) = await replica.runtime.versions.list()
    assert (last.action, last.subject) == ("config.load", outcome.version), "by the name that log lines have it by"
    assert replica.strategy == "quality" and replica.outcomes == [UNCHANGED, OK]


async def test_a_bad_file_changes_nothing_and_says_why(replica: Replica) -> None:
    replica.write("routing: {stategy: quality}\nupstream: {}")
    outcome = await replica.reloading.reload("test")
    assert outcome.outcome == FAILED and outcome.version == replica.counted[0].version
    assert (
        any("did you mean routing.strategy" in problem for problem in outcome.problems) and len(outcome.problems) == 2
    )
    assert len(replica.counted) == 1
    replica.write(QUALITY)
    assert await replica.reload() == OK, "and it is not the last word"


@pytest.mark.parametrize("text", ["", "\n \n", "null", "# cut off"])
async def test_a_file_that_is_empty_changes_nothing(replica: Replica, text: str) -> None:
    """A full disk, an editor or a copy that broke off must not take away every upstream and every budget."""
    replica.write(text)
    outcome = await replica.reloading.reload("test")
    assert outcome.outcome == FAILED and "is empty" in outcome.problems[0]
    assert len(replica.counted) == 1 and replica.strategy == "cost"


async def test_a_file_that_is_gone_changes_nothing(replica: Replica, file: Path) -> None:
    file.unlink()
    assert await replica.reload() == FAILED and len(replica.counted) == 1


@pytest.mark.parametrize("fault", [Overloaded("busy", retry_after=1), ValueError("no"), ValueError()])
async def test_a_gateway_that_does_not_start_changes_nothing(replica: Replica, fault: Exception) -> None:
    """A port that is taken, a server that hangs: whatever it is, the old one goes on, and a later try may do."""
    replica.fault = fault
    replica.write(QUALITY)
    outcome = await replica.reloading.reload("test")
    assert outcome.outcome == FAILED and outcome.problems[0] and len(replica.counted) == 1
    replica.fault = None
    assert await replica.reload() == OK


async def test_what_a_process_cannot_change_stays(store: Store, file: Path) -> None:
    replica = Replica(store, file)
    replica.reloading.settings = load({"TIERWAY_PORT": "4711"}, config_path=file)
    await replica.open()
    replica.write(QUALITY)
    await replica.reload()
    assert replica.counted[-1].port == 4711


async def test_without_a_file_there_is_the_environment(store: Store) -> None:
    replica = await Replica(store, None).open()
    assert await replica.reload() == UNCHANGED
    assert replica.runtime.versions.current.number == 0


async def watched(replica: Replica) -> TaskOwner:
    tasks = TaskOwner(lambda name, error: None)
    tasks.spawn(replica.reloading.run(), "file")
    await asyncio.sleep(0.1)
    return tasks


@pytest.fixture
async def tasks(replica: Replica) -> AsyncIterator[TaskOwner]:
    tasks = await watched(replica)
    yield tasks
    await tasks.cancel()


async def test_a_changed_file_is_noticed(replica: Replica, tasks: TaskOwner, file: Path) -> None:
    replica.write(QUALITY)
    await eventually(lambda: replica.strategy == "quality")
    replica.write("nonsense: 1")
    await eventually(lambda: FAILED in replica.outcomes)
    await asyncio.sleep(1.2)
    assert replica.outcomes == [OK, FAILED], "once for each change"


async def test_a_link_that_leads_elsewhere_is_noticed(store: Store, tmp_path: Path) -> None:
    """As Kubernetes changes what it has mounted."""
    (tmp_path / "a").write_text(COST)
    (tmp_path / "b").write_text(QUALITY)
    link = tmp_path / "link"
    link.symlink_to("a")
    replica = await Replica(store, link).open()
    tasks = await watched(replica)
    (tmp_path / "new").symlink_to("b")
    os.replace(tmp_path / "new", link)
    await eventually(lambda: replica.strategy == "quality")
    await tasks.cancel()


async def test_an_operator_reloads_every_gateway(store: Store, file: Path, replica: Replica) -> None:
    other = await Replica(store, file).open()
    broadcast = Broadcast(store, poll=0.1)
    for each in (replica, other):
        each.reloading.follow(broadcast)
    async with broadcast.running():
        await asyncio.sleep(0.3)
        assert not other.outcomes, "to listen is not to be told"
        replica.write(QUALITY)
        assert (await replica.reloading.reload_all("test")).outcome == OK
        await eventually(lambda: other.strategy == "quality")
        assert replica.outcomes == [OK], "who is asked does not read, log and count it twice"
        assert (await other.reloading.reload_all("test")).outcome == UNCHANGED
        await eventually(lambda: replica.outcomes == [OK, UNCHANGED])


async def test_going_back_to_an_earlier_file(store: Store, file: Path, replica: Replica) -> None:
    """The file on the disk is the operator's own; what counted before counts in its place, on every gateway that has
    it, also after a restart, until the file changes."""
    other = await Replica(store, file).open()
    replica.write(QUALITY)
    assert [await replica.reload(), await other.reload()] == [OK, OK]
    versions = await replica.runtime.versions.list()
    assert [(each.number, each.action) for each in versions] == [(2, "config.load"), (1, "config.load")]
    broadcast = Broadcast(store, poll=0.1)
    for each in (replica, other):
        each.runtime.versions.follow(broadcast)
        each.reloading.follow(broadcast)
    tasks = [await watched(each) for each in (replica, other)]
    async with broadcast.running():
        await replica.runtime.restore(1)
        await eventually(lambda: replica.strategy == other.strategy == "cost")
        restarted = await Replica(store, file).open()
        assert restarted.strategy == "cost" and restarted.reloading.settings == restarted.counted[0]
        replica.write(QUALITY + "\nlimits: {messages: 5}")
        await eventually(lambda: replica.strategy == other.strategy == "quality")
        await replica.runtime.restore(2)
        await eventually(lambda: replica.counted[-1].limits.messages != 5 and replica.strategy == "quality")
        await replica.runtime.restore(0)
        await eventually(lambda: replica.counted[-1].limits.messages == 5)
    for watcher in tasks:
        await watcher.cancel()
    audit = await Audit(store, ManualClock()).entries()
    assert {entry["actor"] for entry in audit if entry["action"] == "config.load"} == {"file"}


async def test_a_pinned_file_that_this_release_does_not_take_is_passed_over_at_start(store: Store, file: Path) -> None:
    first = await Replica(store, file).open()
    pinned = {Filed.of(COST.encode()).print: Filed.of(b"later: {}")}
    await first.runtime.versions.change("x", "y", lambda last: last.model_copy(update={"pinned": pinned}))
    assert (await Replica(store, file).open()).strategy == "cost"


async def test_a_file_too_long_to_be_kept_cannot_come_back(store: Store, file: Path, replica: Replica) -> None:
    replica.write(QUALITY + "\n" + "# so long\n" * (FILE_BYTES // 10))
    assert await replica.reload() == OK
    assert replica.reloading.file is not None and replica.reloading.file.text is None
    replica.write(COST + "\n")
    assert await replica.reload() == OK
    with pytest.raises(Exception, match="too long to be kept"):
        await replica.runtime.restore(2)
    assert Filed.of(b"\xff").text is None, "what is no text is not kept either"
