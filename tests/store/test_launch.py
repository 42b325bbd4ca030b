from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.store import launch
from tests.store.live import until

PARENT = """
import os, subprocess, sys
lock = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
child = subprocess.Popen([sys.executable, "-I", "-S", sys.argv[1], str(os.getpid()), str(lock), "/bin/sleep", "60"],
                         pass_fds=(lock,))
print(child.pid, flush=True)
child.wait()
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_the_server_dies_with_its_parent(tmp_path: Path) -> None:
    """A server that stays behind keeps the data folder locked."""
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", PARENT, launch.__file__, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        until(lambda: lock.read_text().split() == [str(child), launch.namespace()])
        assert alive(child)
        parent.kill()
    until(lambda: not alive(child))


def test_it_leaves_when_the_parent_was_gone_before_it_asked() -> None:
    asked: list[tuple[int, int]] = []

    def prctl(option: int, value: int) -> int:
        asked.append((option, value))
        return 0

    launch.die_with_parent(7, prctl, lambda: 7)
    with pytest.raises(SystemExit):
        launch.die_with_parent(7, prctl, lambda: 1)
    assert asked == [(1, signal.SIGKILL)] * 2


def test_it_signs_the_lock_and_becomes_the_server(tmp_path: Path) -> None:
    """The number in the lock is whom a successor ends; a longer one from before must not shine through."""
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    os.write(lock, b"99999999999")
    with subprocess.Popen(
        [sys.executable, launch.__file__, str(os.getpid()), str(lock), "/bin/echo", "served"],
        stdout=subprocess.PIPE,
        pass_fds=(lock,),
    ) as process:
        output, _ = process.communicate(timeout=20)
    assert output == b"served\n"
    assert os.pread(lock, 100, 0).decode() == f"{process.pid} {launch.namespace()}"
    os.close(lock)


@pytest.mark.parametrize("knows", [True, False])
def test_a_system_without_parent_death_signals_serves_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows: bool
) -> None:
    class Libc:
        if knows:

            @staticmethod
            def prctl(option: int, value: int) -> int:
                return 0

    ran: list[list[str]] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Libc())
    monkeypatch.setattr(os, "execv", lambda _, command: ran.append(command))
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    launch.main([str(os.getppid()), str(lock), "/bin/server", "--port", "0"])
    assert ran == [["/bin/server", "--port", "0"]]
    assert (tmp_path / "lock").read_text() == f"{os.getpid()} {launch.namespace()}"
    os.close(lock)


def test_a_system_without_namespaces_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def readlink(path: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "readlink", readlink)
    assert launch.namespace() == "-"
