from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.core.errors import InternalError, InvalidValue, StoreUnavailable
from app.store import layout
from app.store.address import Address
from app.store.client import CALL_SECONDS, PATIENCE_SECONDS, Store
from app.store.errors import StoreUnusable
from app.store.folder import find_server
from app.store.scripts import Script, load
from tests.store.live import Puppet, eventually, ok, puppet

ECHO = Script("echo", "return ARGV[1]", "1" * 40)


@contextlib.asynccontextmanager
async def opened(server: Puppet, timeout: float = 0.5, max_pending: int = 100) -> AsyncIterator[Store]:
    store = Store(server.address, timeout=timeout, max_pending=max_pending)
    await store.open()
    server.heard.clear()
    server.reads = 0
    try:
        yield store
    finally:
        await store.aclose()


# --- calls ------------------------------------------------------------------------------------------------------------


async def test_commands_and_scripts_answer(store: Store) -> None:
    assert await store.call("SET", "k", 5) == b"OK"
    assert await store.call("GET", "k") == b"5"
    assert await store.call("GET", "none") is None
    script = load("changed")
    assert await store.run(script, (layout.VERSIONS,), ("topic", layout.CHANGES)) == 1
    assert await store.run(script, (layout.VERSIONS,), ("topic", layout.CHANGES)) == 2
    await store.ping()
    assert store.healthy


async def test_a_server_that_forgot_its_scripts_gets_them_again(store: Store) -> None:
    """After a restart or a failover every rate limit and budget would be an error."""
    script = load("changed")
    await store.call("SCRIPT", "FLUSH")
    calls = [store.run(script, (layout.VERSIONS,), ("t", layout.CHANGES)) for _ in range(3)]
    plain = store.call("ECHO", "between")
    *versions, echoed = await asyncio.gather(*calls, plain)
    assert sorted(versions) == [1, 2, 3]
    assert echoed == b"between"
    assert await store.call("SCRIPT", "EXISTS", script.sha) == [1]


async def test_calls_of_one_turn_leave_together(tmp_path: Path) -> None:
    """One write each is five times the CPU."""
    async with puppet(tmp_path) as server, opened(server) as store:
        await asyncio.gather(*(store.call("SET", "k", i) for i in range(30)))
        assert [command[2] for command in server.heard] == [str(i).encode() for i in range(30)]
        assert server.reads == 1


async def test_answers_find_their_callers_though_some_have_left(store: Store) -> None:
    """A caller that goes away must not shift everybody else's answers by one."""
    tasks = [asyncio.create_task(store.call("ECHO", str(i))) for i in range(20)]
    await asyncio.sleep(0)
    tasks[3].cancel()  # not sent yet
    await asyncio.sleep(0)
    tasks[7].cancel()  # sent
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for i, answer in enumerate(answers):
        assert isinstance(answer, asyncio.CancelledError) if i in (3, 7) else answer == str(i).encode()
    assert await store.call("ECHO", "after") == b"after"


async def test_timings_are_observed_by_name(valkey: Path) -> None:
    seen: list[tuple[str, float]] = []
    store = Store(Address(path=str(valkey)), observer=lambda name, seconds: seen.append((name, seconds)))
    await store.open()
    seen.clear()
    await store.call("PING")
    await store.run(load("changed"), (layout.VERSIONS,), ("t", layout.CHANGES))
    await store.aclose()
    assert [name for name, _ in seen] == ["PING", "changed"]
    assert all(0 < seconds < 5 for _, seconds in seen)


async def test_text_that_cannot_be_written_harms_nobody_else(store: Store) -> None:
    with pytest.raises(InvalidValue):
        await store.call("SET", "k", "\udfff")
    assert await store.call("ECHO", "x") == b"x"


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["OOM", "LOADING", "MISCONF", "READONLY", "BUSY", "MASTERDOWN", "NOAUTH"])
async def test_a_server_that_cannot_serve_now_is_unavailable(tmp_path: Path, kind: str) -> None:
    async with puppet(tmp_path) as server, opened(server) as store:
        server.answer = lambda command: f"-{kind} cannot\r\n".encode() if command[0] == b"SET" else ok(command)
        with pytest.raises(StoreUnavailable, match=kind) as caught:
            await store.call("SET", "k", "v")
        assert caught.value.retry_after is not None
        await eventually(lambda: store.healthy)
        await store.ping()  # on a new connection, where the old one led to a replica


async def test_a_command_the_server_refuses_is_our_fault(store: Store) -> None:
    await store.call("SET", "k", "text")
    with pytest.raises(InternalError) as caught:
        await store.call("INCR", "k")
    assert "integer" in str(caught.value.__cause__)
    assert "integer" not in caught.value.message


async def test_a_server_that_never_takes_a_script_does_not_loop(tmp_path: Path) -> None:
    async with puppet(tmp_path) as server, opened(server) as store:
        server.answer = lambda _: b"-NOSCRIPT never\r\n"
        with pytest.raises(InternalError):
            await store.run(ECHO, (), ("x",))
        assert [command[0] for command in server.heard] == [b"EVALSHA", b"EVAL"]


async def test_what_waits_is_bounded(tmp_path: Path) -> None:
    """A slow server must not fill the memory."""
    async with puppet(tmp_path) as server, opened(server, timeout=0.05, max_pending=5) as store:
        server.answer = lambda _: None
        answers = await asyncio.gather(*(store.call("PING") for _ in range(7)), return_exceptions=True)
        assert [str(answer) for answer in answers[5:]] == ["The store has too much to do."] * 2
        assert all("in time" in str(answer) for answer in answers[:5])


# --- time -------------------------------------------------------------------------------------------------------------


async def test_each_call_has_its_own_time(tmp_path: Path) -> None:
    """One slow moment must not fail the calls that came late into it."""
    async with puppet(tmp_path) as server, opened(server, timeout=0.2) as store:
        server.answer = lambda _: None
        first = asyncio.create_task(store.call("ECHO", "1"))
        await asyncio.sleep(0.12)
        second = asyncio.create_task(store.call("ECHO", "2"))
        with pytest.raises(StoreUnavailable, match="in time"):
            await first
        server.say(b"+1\r\n+2\r\n")
        assert await second == b"2"


async def test_our_own_lateness_is_not_the_stores(store: Store) -> None:
    """While this process was busy with something else the reply has come: to refuse a paid request then is to waste
    what was done for it, when there is too much to do already."""
    asked = asyncio.ensure_future(store.call("PING"))
    await asyncio.sleep(0)
    time.sleep(2 * CALL_SECONDS)
    assert await asked == b"PONG"


async def test_a_link_that_is_silent_for_long_is_given_up_and_replaced(tmp_path: Path) -> None:
    """A dropped route never says that it is gone; waiting for TCP would take a quarter of an hour."""
    async with puppet(tmp_path) as server, opened(server, timeout=0.05) as store:
        server.answer = lambda command: None if command[0] == b"ECHO" else ok(command)
        with pytest.raises(StoreUnavailable):
            await store.call("ECHO", "1")
        await eventually(lambda: [b"PING"] in server.heard)  # the greeting of the next link
        await eventually(lambda: store.healthy)
        await store.ping()


async def test_a_stopped_server_costs_a_bounded_time_and_is_found_again(tmp_path: Path) -> None:
    """A hung server must become a 503, not a hung gateway."""
    command = [find_server(), "--port", "0", "--unixsocket", str(tmp_path / "s"), "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        store = Store(Address(path=str(tmp_path / "s")), timeout=0.1)
        try:
            await store.open()
            os.kill(process.pid, signal.SIGSTOP)
            loop = asyncio.get_running_loop()
            began = loop.time()
            with pytest.raises(StoreUnavailable, match="in time"):
                await store.call("PING")
            assert loop.time() - began < 1
            await eventually(lambda: not store.healthy)
            with pytest.raises(StoreUnavailable, match="away"):
                await store.call("PING")
            os.kill(process.pid, signal.SIGCONT)
            await eventually(lambda: store.healthy)
            await store.ping()
        finally:
            await store.aclose()
            process.kill()


# --- loss -------------------------------------------------------------------------------------------------------------


async def test_only_a_call_that_may_be_repeated_is(tmp_path: Path) -> None:
    """Sent twice, a charge would be made twice; not sent again, a read would fail without need."""

    def die_once(command: list[bytes]) -> bytes | None:
        if command[0] == b"ECHO" and server.heard.count(command) == 1:
            return b"HANG UP"
        return ok(command)

    async with puppet(tmp_path, die_once) as server, opened(server) as store:
        calls = (store.call("ECHO", "safe", again=True), store.call("ECHO", "unsafe"))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert answers[0] == b"OK"
        assert isinstance(answers[1], StoreUnavailable)
        assert server.heard.count([b"ECHO", b"unsafe"]) <= 1


async def test_a_call_is_repeated_once_only(tmp_path: Path) -> None:
    def die(command: list[bytes]) -> bytes | None:
        return b"HANG UP" if command[0] == b"ECHO" else ok(command)

    async with puppet(tmp_path, die) as server, opened(server) as store:
        with pytest.raises(StoreUnavailable, match="before it answered"):
            await store.call("ECHO", "x", again=True)
        assert server.heard.count([b"ECHO", b"x"]) == 2


async def test_a_short_restart_is_waited_for(tmp_path: Path) -> None:
    """The embedded server is back in a twentieth of a second; no request needs to notice."""
    async with puppet(tmp_path) as server, opened(server) as store:
        await server.stop()
        await asyncio.sleep(0.02)
        call = asyncio.create_task(store.call("ECHO", "x"))
        await asyncio.sleep(0.05)
        await server.start()
        assert await call == b"OK"


async def test_while_the_server_is_away_calls_fail_at_once_and_its_return_is_found(tmp_path: Path) -> None:
    """Free local traffic goes on without the store; it must not wait for it each time."""
    async with puppet(tmp_path) as server, opened(server) as store:
        await server.stop()
        await asyncio.sleep(0.02)
        with pytest.raises(StoreUnavailable):
            await store.call("ECHO", "waited")
        assert PATIENCE_SECONDS < 0.5
        await eventually(lambda: not store.healthy)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(StoreUnavailable, match="away"):
            await store.call("ECHO", "at once")
        assert loop.time() - began < 0.1
        await server.start()
        await eventually(lambda: store.healthy)
        assert await store.call("ECHO", "x") == b"OK"


async def test_words_that_nobody_asked_for_end_the_link(tmp_path: Path) -> None:
    """From then on every answer could go to the wrong caller."""
    async with puppet(tmp_path) as server, opened(server) as store:
        server.say(b"+surprise\r\n")
        await eventually(lambda: [b"PING"] in server.heard)
        await eventually(lambda: store.healthy)
        await store.ping()


async def test_closing_fails_what_waits(tmp_path: Path) -> None:
    async with puppet(tmp_path) as server, opened(server) as store:
        server.answer = lambda _: None
        waiting = asyncio.create_task(store.call("PING"))
        await asyncio.sleep(0.01)
        await store.aclose()
        with pytest.raises(StoreUnavailable, match="closed"):
            await waiting
        with pytest.raises(StoreUnavailable):
            await store.call("PING")


async def test_on_a_cluster_the_node_that_holds_our_keys_is_found(tmp_path: Path) -> None:
    """REDIS_URL names any node; all keys are on one of them, and after a failover on another."""
    held: list[bytes] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            held.append(data)
            writer.write(b"+PONG\r\n" if b"PING" in data else b"+HELD\r\n" * data.count(b"ECHO"))
        writer.close()

    holder = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = holder.sockets[0].getsockname()[1]

    def elsewhere(command: list[bytes]) -> bytes | None:
        return f"-MOVED 7 127.0.0.1:{port}\r\n".encode() if command[0] == b"ECHO" else ok(command)

    async with puppet(tmp_path, elsewhere) as server:
        async with opened(server) as store:
            assert await asyncio.gather(*(store.call("ECHO", str(i)) for i in range(3))) == [b"HELD"] * 3
            assert await store.call("ECHO", "x") == b"HELD"
            assert len(server.heard) == 3
            holder.close()
            server.answer = ok
            assert store._link is not None
            store._link.abort()  # the node dies: back to the one that was named
            assert await store.call("ECHO", "x", again=True) == b"OK"
        await asyncio.sleep(0)


@pytest.mark.parametrize("where", ["", "nowhere", "127.0.0.1:port", "127.0.0.1:0", "127.0.0.1:99999"])
async def test_a_redirection_that_makes_no_sense_is_unavailable(tmp_path: Path, where: str) -> None:
    async with puppet(tmp_path) as server, opened(server) as store:
        server.answer = lambda _: f"-MOVED 7 {where}\r\n".encode()
        with pytest.raises(StoreUnavailable, match="MOVED"):
            await store.call("PING")


# --- opening ----------------------------------------------------------------------------------------------------------


async def test_opening_marks_the_store_with_the_layout(store: Store) -> None:
    assert await store.call("GET", layout.LAYOUT) == str(layout.VERSION).encode()


@pytest.mark.parametrize("found", [b"$2\r\n99\r\n", b"$4\r\nnone\r\n", b"$-1\r\n"])
async def test_a_store_of_another_release_is_refused(tmp_path: Path, found: bytes) -> None:
    """Reading keys in a layout we do not know could let callers in or spend money twice."""
    async with puppet(tmp_path, lambda command: found if command[0] == b"GET" else ok(command)) as server:
        with pytest.raises(StoreUnusable, match="another release"):
            await Store(server.address).open()


async def test_a_wrong_password_is_said_at_once(tmp_path: Path) -> None:
    async with puppet(tmp_path, lambda _: b"-WRONGPASS no\r\n") as server:
        with pytest.raises(StoreUnusable, match="WRONGPASS"):
            await Store(server.address).open(timeout=60)


async def test_a_server_that_is_still_starting_is_waited_for(tmp_path: Path) -> None:
    async with puppet(tmp_path, lambda _: b"-LOADING data\r\n") as server:
        store = Store(server.address)
        opening = asyncio.create_task(store.open())
        await eventually(lambda: len(server.heard) > 2)
        server.answer = ok
        await opening
        await store.aclose()


async def test_nobody_there_is_said_after_a_while(tmp_path: Path) -> None:
    """And where: who has several, or mistyped one, knows which."""
    with pytest.raises(StoreUnusable, match=r"the store at .*/none cannot be used"):
        await Store(Address(path=str(tmp_path / "none"))).open(timeout=0.05)
    assert Address(host="redis", password="hunter2").where == "redis:6379"


async def test_durability_is_left_to_whoever_runs_an_outside_server(valkey: Path) -> None:
    await Store(Address(path=str(valkey))).make_durable()


# --- listening --------------------------------------------------------------------------------------------------------


async def test_listening_hears_the_subscription_messages_and_the_end(store: Store, valkey: Path) -> None:
    heard = asyncio.Event()
    listener = asyncio.create_task(store.listen("news", heard.set))
    await asyncio.wait_for(heard.wait(), 5)
    heard.clear()
    assert await store.call("PUBLISH", "news", "x") == 1
    await asyncio.wait_for(heard.wait(), 5)
    await store.call("CLIENT", "KILL", "TYPE", "pubsub")
    await asyncio.wait_for(listener, 5)


async def test_listening_to_nobody_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        await Store(Address(path=str(tmp_path / "none"))).listen("news", lambda: None)
