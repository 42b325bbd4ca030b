from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from app.store.sync import keep_synced
from tests.store.live import eventually


async def test_what_changed_is_written_to_the_disk_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A loss of power may cost a second, not what was written since the start."""
    synced: list[str] = []

    def fsync(file: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        if synced[-1] == "b.aof":
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    files = tmp_path / "appendonlydir"
    files.mkdir()
    (files / "a.aof").write_bytes(b"1")
    (files / "manifest").write_bytes(b"1")
    task = asyncio.create_task(keep_synced(tmp_path, every=0.01))
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
