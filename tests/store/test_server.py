"""The embedded server under everything that kills: itself, its keeper, the machine's habits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from app.core.errors import StoreUnavailable
from app.store import disk, launch
from app.store import server as servers
from app.store.address import Address
from app.store.client import Store
from app.store.errors import StoreUnusable
from app.store.folder import prepare
from app.store.server import EmbeddedServer
from tests.store.live import eventually, puppet, until
from tests.store.test_launch import alive

SOON = 15.0  # a twentieth of a second where the machine has nothing else to do

KEEPER = """
import asyncio, sys
from pathlib import Path
from app.store.server import EmbeddedServer

async def main():
    server = EmbeddedServer(Path(sys.argv[1]))
    await server.start()
    print("holds" if server.holds else "follows", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.aclose()

asyncio.run(main())
"""


def server_pid(data: Path) -> int:
    return int(((data / "store/server.lock").read_text() or "0").split()[0])


@contextlib.asynccontextmanager
async def serving(data: Path, *, always: bool = False) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(data, always=always)
    await server.start()
    try:
        yield server
    finally:
        await server.aclose()


@contextlib.asynccontextmanager
async def storing(data: Path) -> AsyncIterator[Store]:
    store = Store(Address(path=prepare(data).socket), timeout=5)
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


@contextlib.contextmanager
def keeper(data: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that shares the folder; it stops cleanly when its input is closed."""
    command = [sys.executable, "-c", KEEPER, str(data)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def word(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


async def count(store: Store, under_way: asyncio.Event, stop: asyncio.Event) -> int:
    """Writes as fast as it goes, until it fails or is stopped; the last number that was acknowledged."""
    acknowledged = 0
    with contextlib.suppress(StoreUnavailable):
        while not stop.is_set():
            await store.call("SET", "count", acknowledged + 1)
            acknowledged += 1
            if acknowledged == 50:
                under_way.set()
    return acknowledged


async def lose_nothing(data: Path, store: Store, kill: Callable[[], None]) -> None:
    """What was acknowledged before a kill in the middle of writing is there right after it."""
    under_way, stop = asyncio.Event(), asyncio.Event()
    writing = asyncio.create_task(count(store, under_way, stop))
    await under_way.wait()
    pid = server_pid(data)
    kill()
    async with asyncio.timeout(SOON):
        await eventually(lambda: server_pid(data) not in (0, pid))
        found = int(await store.call("GET", "count", again=True))
        stop.set()
        acknowledged = await writing
    last = int(await store.call("GET", "count", again=True))
    assert found <= last
    assert acknowledged <= last <= acknowledged + 1
    assert not alive(pid)


async def test_it_serves_a_private_socket_and_no_port(tmp_path: Path) -> None:
    """Anybody on the machine could otherwise read hashes and change budgets."""
    async with serving(tmp_path) as server, storing(tmp_path) as store:
        assert server.holds
        assert os.stat(server.socket).st_mode & 0o077 == 0
        settings = await store.call("CONFIG", "GET", "port", "maxmemory-policy", "appendonly", "appendfsync")
        pairs = dict(zip(settings[::2], settings[1::2], strict=True))
        assert pairs == {
            b"port": b"0",
            b"maxmemory-policy": b"noeviction",
            b"appendonly": b"yes",
            b"appendfsync": b"no",
        }
        environment = Path(f"/proc/{server_pid(tmp_path)}/environ")
        if environment.exists():
            assert environment.read_bytes().strip(b"\0") == b"LC_ALL=C"


async def test_closing_stops_it_and_the_next_one_finds_everything(tmp_path: Path) -> None:
    async with serving(tmp_path), storing(tmp_path) as store:
        await store.call("SET", "k", "v")
        pid = server_pid(tmp_path)
    assert not alive(pid)
    async with serving(tmp_path), storing(tmp_path) as store:
        assert await store.call("GET", "k") == b"v"


@pytest.mark.parametrize("always", [True, False])
async def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path, always: bool) -> None:
    """And it is back before most callers notice."""
    async with serving(tmp_path, always=always), storing(tmp_path) as store:
        for _ in range(3):
            await lose_nothing(tmp_path, store, lambda: os.kill(server_pid(tmp_path), signal.SIGKILL))


async def test_several_processes_share_one_server_and_the_next_one_takes_over(tmp_path: Path) -> None:
    """Workers each with a server of their own would each grant the whole budget."""
    with keeper(tmp_path) as first:
        assert word(first) == "holds"
        async with serving(tmp_path) as mine, storing(tmp_path) as store:
            assert not mine.holds
            with keeper(tmp_path) as third:
                assert word(third) == "follows"
                await lose_nothing(tmp_path, store, first.kill)


async def test_a_keeper_that_leaves_in_order_is_replaced(tmp_path: Path) -> None:
    with keeper(tmp_path) as first:
        assert word(first) == "holds"
        async with serving(tmp_path) as mine, storing(tmp_path) as store:
            assert await store.call("SET", "k", "v") == b"OK"
            assert first.stdin is not None
            first.stdin.close()
            await eventually(lambda: mine.holds)
            await eventually(lambda: store.healthy)
            assert await store.call("GET", "k", again=True) == b"v"
            assert first.wait(10) == 0


async def test_a_server_that_outlived_its_keeper_is_replaced_without_loss(tmp_path: Path) -> None:
    """Two servers that append to one file destroy it."""
    folder = prepare(tmp_path)
    lock = folder.lock("server.lock")
    assert lock is not None
    with subprocess.Popen(
        folder.command(), stdout=subprocess.DEVNULL, pass_fds=(lock,), start_new_session=True
    ) as orphan:
        os.pwrite(lock, f"{orphan.pid} {launch.namespace()}".encode(), 0)
        os.close(lock)
        async with storing(tmp_path) as store:
            await store.call("SET", "k", "v")
        orphan.send_signal(signal.SIGSTOP)  # not even in a state to answer
        async with serving(tmp_path), storing(tmp_path) as store:
            assert orphan.wait(10) == -signal.SIGKILL
            assert await store.call("GET", "k") == b"v"


async def test_a_lock_that_cannot_be_freed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "START_SECONDS", 0.02)
    folder = prepare(tmp_path)
    lock = folder.lock("server.lock")
    assert lock is not None
    with pytest.raises(StoreUnusable, match="cannot be stopped"):
        await EmbeddedServer(tmp_path).start()
    os.close(lock)


async def test_a_file_cut_short_by_a_crash_loads(tmp_path: Path) -> None:
    async with serving(tmp_path), storing(tmp_path) as store:
        await store.call("SET", "k", "v")
    tail = next((tmp_path / "store/appendonlydir").glob("*.incr.aof"))
    with open(tail, "ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nha")
    async with serving(tmp_path), storing(tmp_path) as store:
        assert await store.call("GET", "k") == b"v"


async def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    """Starting empty instead would forget every budget."""
    async with serving(tmp_path), storing(tmp_path) as store:
        await store.call("SET", "k", "v")
    tail = next((tmp_path / "store/appendonlydir").glob("*.incr.aof"))
    tail.write_bytes(b"rubbish" + tail.read_bytes())
    with pytest.raises(StoreUnusable, match="valkey-check-aof --fix"):
        await EmbeddedServer(tmp_path).start()
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnusable, match="move the folder away"):
            await EmbeddedServer(tmp_path).start()


async def test_a_program_that_is_no_server_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin/valkey-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho I am no server\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    with pytest.raises(StoreUnusable, match="I am no server"):
        await EmbeddedServer(tmp_path).start()


async def test_a_keeper_without_a_server_does_not_make_us_wait_for_ever(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    lock = folder.lock("holder.lock")
    assert lock is not None
    with pytest.raises(StoreUnusable, match="does not answer"):
        await EmbeddedServer(tmp_path).start(timeout=0.1)
    os.close(lock)


async def test_trouble_at_a_restart_is_no_end_of_keeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A moment without free files must not leave the gateway without a store until somebody restarts it."""
    monkeypatch.setattr(servers, "LONGEST_PAUSE", 0.01)
    async with serving(tmp_path), storing(tmp_path) as store:
        pid = server_pid(tmp_path)
        log = tmp_path / "store/server.log.old"
        log.mkdir()
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: "Is a directory" in caplog.text)
        log.rmdir()
        await eventually(lambda: store.healthy and server_pid(tmp_path) != pid)
        await eventually(lambda: store.healthy)
        await store.ping()
    assert any(record.levelno == logging.ERROR for record in caplog.records)


async def test_a_connection_that_ends_is_not_a_server_that_ended(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, storing(tmp_path) as store:
        pid = server_pid(tmp_path)
        await store.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await store.ping()
        assert server.holds
        assert server_pid(tmp_path) == pid


async def test_a_server_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "STOP_SECONDS", 0.05)
    async with serving(tmp_path):
        pid = server_pid(tmp_path)
        os.kill(pid, signal.SIGSTOP)
    assert not alive(pid)


async def test_durability_can_be_asked_for_while_it_runs_and_stays(tmp_path: Path) -> None:
    """Without it a loss of power forgets the last second of spending."""
    async with serving(tmp_path) as server, storing(tmp_path) as store:
        await server.make_durable()
        assert await store.call("CONFIG", "GET", "appendfsync") == [b"appendfsync", b"always"]
    async with serving(tmp_path), storing(tmp_path) as store:
        assert await store.call("CONFIG", "GET", "appendfsync") == [b"appendfsync", b"always"]


async def test_durability_that_cannot_be_had_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "DURABLE_SECONDS", 0.05)
    with pytest.raises(StoreUnavailable):
        await EmbeddedServer(tmp_path).make_durable()


async def test_a_server_that_loads_is_waited_for(tmp_path: Path) -> None:
    def loads(command: list[bytes]) -> bytes | None:
        return b"-LOADING data\r\n" if len(server.heard) < 3 else b"+PONG\r\n"

    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with puppet(tmp_path, loads) as server:
        assert server.address.path is not None
        watching = asyncio.create_task(servers._watch(server.address.path, ready))
        await ready
        assert len(server.heard) == 3
        server.hang_up()
        with contextlib.suppress(servers.Gone):
            await watching


def test_the_last_one_out_leaves_nothing_running(tmp_path: Path) -> None:
    with keeper(tmp_path) as only:
        assert word(only) == "holds"
        pid = server_pid(tmp_path)
        assert only.stdin is not None
        only.stdin.close()
        assert only.wait(10) == 0
    until(lambda: not alive(pid))


async def test_a_disk_that_fills_up_stops_writes_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys must still be readable, and all must be well once there is room."""
    monkeypatch.setattr(disk.keep_safe, "__defaults__", (0.01,))
    async with serving(tmp_path), storing(tmp_path) as store:
        await store.call("SET", "k", "v")
        room, disk_usage = False, shutil.disk_usage
        monkeypatch.setattr(shutil, "disk_usage", lambda path: disk_usage(path)._replace(free=1 << 40 if room else 0))

        async def written() -> bool:
            with contextlib.suppress(StoreUnavailable):
                return bool(await store.call("SET", "k", "w") == b"OK")
            return False

        async def refused() -> bool:
            return not await written()

        await eventually(refused)
        assert await store.call("GET", "k") in (b"v", b"w")
        with pytest.raises(StoreUnusable, match="No space left"):
            EmbeddedServer(tmp_path)
        room = True
        await eventually(written)
