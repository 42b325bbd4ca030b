from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from app.store import folder as folders
from app.store import launch
from app.store.errors import StoreUnusable
from app.store.folder import find_server, prepare


def test_the_folder_is_private(tmp_path: Path) -> None:
    """It holds hashes of keys, and its socket takes any command."""
    (tmp_path / "data/store").mkdir(parents=True, mode=0o755)
    folder = prepare(tmp_path / "data")
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert folder.socket == str(tmp_path / "data/store/store.sock")
    assert list(folder.path.iterdir()) == []


def test_a_folder_that_cannot_be_used_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnusable, match=r"file cannot be used: Not a directory.*TIERWAY_DATA_DIR"):
        prepare(tmp_path / "file")


def test_a_deep_folder_has_its_socket_elsewhere_and_everybody_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Unix socket's name has at most 108 bytes; a longer one would not even start."""
    deep = tmp_path / ("x" * 110)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(folders, "LONGEST_SOCKET", len(str(deep)))
    first = prepare(deep)
    assert Path(first.socket).parent.parent == tmp_path
    assert stat.S_IMODE(Path(first.socket).parent.stat().st_mode) == 0o700
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/elsewhere")  # another process, another TMPDIR
    assert prepare(deep).socket == first.socket
    Path(first.socket).parent.rmdir()  # the system tidied up
    assert Path(prepare(deep).socket).parent.is_dir()
    Path(first.socket).parent.chmod(0o755)
    with pytest.raises(StoreUnusable, match="somebody else"):
        prepare(deep)
    Path(first.socket).parent.rmdir()
    Path(first.socket).parent.symlink_to(tmp_path)
    with pytest.raises(StoreUnusable, match="somebody else"):
        prepare(deep)


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    lock = folder.lock("holder.lock")
    assert lock is not None
    assert folder.lock("holder.lock") is None
    assert folder.lock("server.lock") is not None
    os.close(lock)
    assert folder.lock("holder.lock") is not None


def test_a_folder_that_knows_no_locks_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for whoever holds a lock that cannot exist would never end."""

    def flock(file: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="No locks"):
        prepare(tmp_path).lock("holder.lock")


def test_a_survivor_is_ended_with_all_its_forks(tmp_path: Path) -> None:
    """A server that rewrites its file has a fork; both hold the lock."""
    folder = prepare(tmp_path)
    lock = folder.lock("server.lock")
    assert lock is not None
    with subprocess.Popen(["/bin/sh", "-c", "sleep 60 & wait"], pass_fds=(lock,), start_new_session=True) as process:
        (folder.path / "server.lock").write_text(f"{process.pid} another-container")
        folder.kill_survivors()  # the same number there is somebody else here
        (folder.path / "server.lock").write_text(f"{process.pid} {launch.namespace()}")
        os.close(lock)
        assert process.poll() is None
        assert folder.lock("server.lock") is None
        folder.kill_survivors()
        assert process.wait(10) == -signal.SIGKILL
    folder.kill_survivors()  # nobody left
    (folder.path / "server.lock").write_text("no number")
    folder.kill_survivors()


def test_the_log_of_the_run_before_is_kept_and_told_apart(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    assert folder.explain() == "it left no log"
    for text in (b"Bad file format reading the append only file\n", b"first\nlast words\n"):
        log = folder.open_log()
        os.write(log, text)
        os.close(log)
    assert folder.explain() == "its log ends with: last words"
    assert b"Bad file" in (folder.path / "server.log.old").read_bytes()
    os.close(folder.open_log())
    assert folder.explain() == "it left no log"


@pytest.mark.parametrize(("sign", "advice"), folders.ADVICE)
def test_known_failures_come_with_advice(tmp_path: Path, sign: str, advice: str) -> None:
    folder = prepare(tmp_path)
    folder.log.write_text(f"noise\n1:M # {sign}, and so on\nnoise\n")
    assert folder.explain() == advice


def test_every_write_is_synced_once_somebody_asked_for_it(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    assert folder.command()[-2:] == ["--appendfsync", "no"]
    folder.set_always()
    folder.set_always()
    assert prepare(tmp_path).command()[-2:] == ["--appendfsync", "always"]


def test_a_server_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bundled = find_server()
    assert os.access(bundled, os.X_OK)
    for name in ("redis-server", "valkey-server"):
        shutil.copy(sys.executable, tmp_path / name)
        assert find_server() == str(tmp_path / name)


def test_no_server_at_all_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(folders, "BUNDLE", "no_such_package_here")
    with pytest.raises(StoreUnusable, match="REDIS_URL"):
        find_server()
