"""Without these a settlement that the store could not take would be lost with its gateway, its hold charged in full."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.spend.entries import SETTLED, Entry, encode
from app.spend.lines import OwnedFile
from app.spend.outbox import Outbox, left_in, open_entries
from tests.spend.steps import step
from tests.store.live import eventually


def settled(id: str, amount: int = 5) -> Entry:
    return step(SETTLED, id, amount)


@contextlib.asynccontextmanager
async def opened(folder: Path, *left_over: Entry) -> AsyncIterator[Outbox]:
    outbox = Outbox(folder)
    await outbox.open(left_over)
    try:
        yield outbox
    finally:
        await outbox.aclose()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_what_is_put_is_pending_and_on_the_disk_until_it_is_done(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        assert names(tmp_path) == [] and not outbox.pending()
        assert await outbox.put(settled("a")) and await outbox.put(settled("b"))
        assert [*outbox.pending()] == ["a", "b"] and left_in(tmp_path) == [settled("a"), settled("b")]
        outbox.done("a")
        outbox.done("a")
        outbox.done("never there")
        assert await outbox.put(settled("c")) and [*outbox.pending().values()] == left_in(tmp_path)
        assert [entry.lease for entry in left_in(tmp_path)] == ["b", "c"]


async def test_an_outbox_with_nothing_in_it_takes_no_room(tmp_path: Path) -> None:
    async with opened(tmp_path) as outbox:
        await outbox.put(settled("a"))
        outbox.done("a")
        path = tmp_path / names(tmp_path)[0]
        await eventually(lambda: path.stat().st_size == 0)
        await outbox.put(settled("b"))
        assert left_in(tmp_path) == [settled("b")]
        outbox.done("b")
    assert names(tmp_path) == []


async def test_the_next_gateway_takes_over(tmp_path: Path) -> None:
    async with opened(tmp_path) as first:
        await first.put(settled("a"))
        await first.put(settled("b"))
        first.done("a")
        async with opened(tmp_path) as beside:
            assert not beside.pending()
    (left,) = names(tmp_path)
    async with opened(tmp_path, settled("c")) as second:
        assert {*second.pending()} == {"b", "c"} and left not in names(tmp_path)
        assert {entry.lease for entry in left_in(tmp_path)} == {"b", "c"}


async def test_a_full_disk_does_not_forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = OwnedFile.append

    def cut(file: OwnedFile, data: bytes) -> None:
        real(file, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    async with opened(tmp_path) as outbox:
        await outbox.put(settled("a"))
        monkeypatch.setattr(OwnedFile, "append", cut)
        assert not await outbox.put(settled("b")) and not outbox.healthy
        assert [*outbox.pending()] == ["a", "b"]
        monkeypatch.setattr(OwnedFile, "append", real)
        await eventually(lambda: outbox.healthy)
        assert {entry.lease for entry in left_in(tmp_path)} == {"a", "b"}


async def test_what_could_not_be_taken_over_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outbox-0.jsonl").write_bytes(encode(settled("a")))
    real = OwnedFile.create

    def full(path: Path) -> OwnedFile:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(OwnedFile, "create", full)
    async with opened(tmp_path) as outbox:
        assert [*outbox.pending()] == ["a"] and (tmp_path / "outbox-0.jsonl").exists()
        monkeypatch.setattr(OwnedFile, "create", real)
    async with opened(tmp_path) as outbox:
        assert [*outbox.pending()] == ["a"]


async def test_a_folder_that_cannot_be_read_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "outbox-0.jsonl").mkdir()
    async with opened(tmp_path) as outbox:
        assert not outbox.healthy
        assert not await outbox.put(settled("a")) and [*outbox.pending()] == ["a"]


lines = st.sampled_from([encode(settled(id)) for id in "abc"] + [b'{"done":"%b"}\n' % id for id in (b"a", b"b", b"c")])
garbage = st.sampled_from([b"\n", b"{\n", b"[]\n", b'{"done":7}\n', b'{"done":["a"]}\n', b"\xff\n", b"7\n"])


@given(st.lists(lines | garbage, max_size=12), st.integers(0, 30))
def test_a_torn_file_says_what_its_whole_lines_say(
    tmp_path_factory: pytest.TempPathFactory, written: list[bytes], cut: int
) -> None:
    path = tmp_path_factory.mktemp("outbox") / "outbox-0.jsonl"
    data = b"".join(written)
    path.write_bytes(data[: max(0, len(data) - cut)])
    wanted: dict[str, Entry] = {}
    for line in path.read_bytes().split(b"\n")[:-1]:
        for id in "abc":
            if line + b"\n" == encode(settled(id)):
                wanted[id] = settled(id)
            if line == b'{"done":"%b"}' % id.encode():
                wanted.pop(id, None)
    assert {entry.lease: entry for entry in open_entries(path)} == wanted


def test_one_that_goes_while_it_is_read_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "outbox-0.jsonl").symlink_to(tmp_path / "nowhere")
    assert left_in(tmp_path) == []


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from app.spend.outbox import Outbox
from tests.spend.steps import step

async def main():
    outbox = Outbox(Path(sys.argv[1]))
    await outbox.open()
    for id in "abc":
        assert await outbox.put(step("S", id, 5))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_was_put_survives_a_kill(tmp_path: Path) -> None:
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", KILLED, str(tmp_path)], timeout=30)
    assert ended.returncode == -signal.SIGKILL
    async with opened(tmp_path) as outbox:
        assert [*outbox.pending()] == ["a", "b", "c"]
