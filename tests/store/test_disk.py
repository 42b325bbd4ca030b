from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.store import disk
from tests.store.live import eventually


async def test_what_changed_is_written_to_the_disk_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A loss of power may cost a second, not what was written since the start."""
    synced: list[str] = []

    async def accept(_: bool) -> bool:
        raise AssertionError

    def fsync(file: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        if synced[-1] == "b.aof":
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    files = tmp_path / "appendonlydir"
    files.mkdir()
    (files / "a.aof").write_bytes(b"1")
    (files / "manifest").write_bytes(b"1")
    task = asyncio.create_task(disk.keep_safe(tmp_path, accept, every=0.01))
    await eventually(lambda: synced == ["a.aof"])
    await asyncio.sleep(0.05)
    assert synced == ["a.aof"]
    (files / "a.aof").write_bytes(b"12")
    await eventually(lambda: synced == ["a.aof"] * 2)
    (files / "b.aof").write_bytes(b"1")
    await eventually(lambda: "Input/output error" in caplog.text)
    (files / "gone.aof").symlink_to(files / "nowhere")
    (files / "a.aof").write_bytes(b"123")
    await eventually(lambda: synced.count("a.aof") == 3)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()


async def test_writes_are_refused_while_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Running into the end of the disk would leave a file that does not load: all keys and budgets gone."""
    free = 1 << 40
    works = False
    asked: list[bool] = []

    async def refuse(on: bool) -> bool:
        asked.append(on)
        return works

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    task = asyncio.create_task(disk.keep_safe(tmp_path, refuse, every=0.01))
    await asyncio.sleep(0.05)
    assert asked == []
    free = disk.ROOM_BYTES - 1
    await eventually(lambda: len(asked) > 2)  # as long as the server does not take it
    works = True
    await eventually(lambda: "no more writes" in caplog.text)
    assert set(asked) == {True}
    asked.clear()
    free = disk.ROOM_BYTES
    await eventually(lambda: "free again" in caplog.text)
    await asyncio.sleep(0.05)
    assert asked == [False]
    task.cancel()
    await asyncio.wait((task,))
