from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidValue
from app.store.address import Address
from app.store.link import Link, Unreachable, open_link, pack
from tests.store.live import eventually, ok, puppet

REPLIES = b"+OK\r\n:5\r\n$-1\r\n$3\r\nabc\r\n*2\r\n$1\r\na\r\n:1\r\n-ERR no\r\n"


def nothing(*_: Any) -> None:
    pass


@given(st.lists(st.integers(0, len(REPLIES)), max_size=8))
def test_replies_are_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    got: list[Any] = []
    link = Link(got.append, nothing)
    edges = [0, *sorted(cuts), len(REPLIES)]
    for start, end in itertools.pairwise(edges):
        link.data_received(REPLIES[start:end])
    assert got[:5] == [b"OK", 5, None, b"abc", [b"a", 1]]
    assert isinstance(got[5], hiredis.ReplyError)
    assert len(got) == 6


@given(st.binary(max_size=200))
def test_any_bytes_are_replies_or_the_end_of_the_link(data: bytes) -> None:
    """Something that is no Redis at that address must not crash the gateway."""
    Link(nothing, nothing).data_received(data)


def test_text_that_cannot_be_written_is_the_callers_fault() -> None:
    with pytest.raises(InvalidValue):
        pack(("SET", "k", "\ud800"))


async def test_it_is_let_in_with_password_and_database(tmp_path: Path) -> None:
    async with puppet(tmp_path) as server:
        address = Address(path=server.address.path, username="u", password="p", db=2)
        link = await open_link(address, nothing, nothing)
        assert server.heard == [[b"AUTH", b"u", b"p"], [b"SELECT", b"2"], [b"PING"]]
        await link.aclose()


async def test_over_tcp_too() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"+PONG\r\n")
        await reader.read(100)
        writer.close()
        served.set()

    served = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    link = await open_link(Address(host="127.0.0.1", port=port), nothing, nothing)
    assert not link.lost
    await link.aclose()
    server.close()
    await served.wait()


@pytest.mark.parametrize(
    ("answer", "refused", "says"),
    [
        (b"-WRONGPASS no\r\n", True, "WRONGPASS"),
        (b"-NOAUTH Authentication required.\r\n", True, "NOAUTH"),
        (b"-LOADING it\r\n", False, "LOADING"),
        (b"HTTP/1.1 400 Bad Request\r\n", False, "not the Redis protocol"),
        (b"HANG UP", False, "closed"),
        (None, False, "in time"),
    ],
)
async def test_what_went_wrong_at_the_door_is_said(
    tmp_path: Path, answer: bytes | None, refused: bool, says: str
) -> None:
    """Waiting for a server with another password would only hide the mistake."""
    async with puppet(tmp_path, lambda _: answer) as server:
        with pytest.raises(Unreachable, match=says) as caught:
            await open_link(Address(path=server.address.path, password="p"), nothing, nothing, timeout=0.1)
    assert caught.value.refused is refused


@pytest.mark.parametrize("address", [Address(path="/nowhere/s"), Address(host="x" * 300), Address(port=1)])
async def test_nobody_there_is_unreachable(address: Address) -> None:
    with pytest.raises(Unreachable):
        await open_link(address, nothing, nothing)


async def test_the_end_is_told_once_and_writing_after_it_does_nothing(tmp_path: Path) -> None:
    lost: list[int] = []
    async with puppet(tmp_path) as server:
        link = await open_link(server.address, nothing, lambda: lost.append(1))
        server.hang_up()
        await eventually(lambda: bool(lost))
        link.write(b"x")
        await link.aclose()
        assert lost == [1]
        assert link.lost


async def test_cancelling_while_connecting_leaves_nothing_open(tmp_path: Path) -> None:
    async with puppet(tmp_path, lambda _: None) as server:
        task = asyncio.create_task(open_link(server.address, nothing, nothing, timeout=9))
        await eventually(lambda: bool(server.heard))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("turns", range(12))
async def test_cancelling_at_any_turn_of_the_loop_comes_to_an_end(tmp_path: Path, turns: int) -> None:
    """Else a gateway that is stopped while it connects again never stops."""
    async with puppet(tmp_path, lambda _: None) as server:
        task = asyncio.create_task(open_link(Address(path=server.address.path, db=1), nothing, nothing, timeout=9))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        assert await asyncio.wait([task], timeout=5) == ({task}, set())
        assert task.cancelled()


async def test_an_error_that_follows_an_error_at_the_door_is_passed_over(tmp_path: Path) -> None:
    async with puppet(tmp_path, lambda command: b"-NOAUTH x\r\n-NOAUTH y\r\n") as server:
        with pytest.raises(Unreachable, match="NOAUTH"):
            await open_link(Address(path=server.address.path, db=1), nothing, nothing)


async def test_rubbish_ends_the_link(tmp_path: Path) -> None:
    lost: list[int] = []
    async with puppet(tmp_path, ok) as server:
        await open_link(server.address, nothing, lambda: lost.append(1))
        server.say(b"rubbish\r\n")
        await eventually(lambda: bool(lost))
