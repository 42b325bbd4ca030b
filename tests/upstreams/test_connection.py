"""One connection, told by hand what the event loop would tell it: any split of a reply's bytes gives the same answer, a
reader that is slow stops the socket, and nothing a server does goes unnoticed."""

from __future__ import annotations

import asyncio
import gc
import gzip
import itertools
import random
import weakref
import zlib
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.buffers import Buffers
from app.core.errors import BadReply, Broken, GatewayError
from app.upstreams.connection import HEAD_BYTES_MAX, UNPACKED_BYTES, Connection

MOST = Buffers().body
HEAD = b"HTTP/1.1 200 OK\r\n"
PLAIN = HEAD + b"content-length: 5\r\n\r\nhello"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


class Socket:
    """What a connection is given to write to and to stop."""

    def __init__(self) -> None:
        self.written = b""
        self.reading = True
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.aborted = True


def connected(held: Callable[[int], None] = lambda change: None) -> tuple[Connection, Any]:
    connection, socket = Connection(Buffers(), held), Socket()
    connection.connection_made(socket)  # type: ignore[arg-type]  # all of a transport that is used
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    return connection, socket


async def whole(connection: Connection) -> bytes:
    await connection.head()
    found = b""
    while piece := await connection.more():
        found += piece
    return found


@given(st.sampled_from([PLAIN, CHUNKED]), st.data())
def test_any_split_of_a_reply_gives_the_same(reply: bytes, data: st.DataObject) -> None:
    """Packets fall as they like; an answer must not depend on that."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(reply)), max_size=8)))

    async def read() -> None:
        connection, _ = connected()
        for start, end in zip([0, *cuts], [*cuts, len(reply)], strict=True):
            if piece := reply[start:end]:
                connection.data_received(piece)
        assert await whole(connection) == b"hello"
        assert connection.status == 200 and connection.reusable

    asyncio.run(read())


@given(st.binary(max_size=400))
def test_no_bytes_whatever_break_the_gateway(noise: bytes) -> None:
    async def read() -> None:
        connection, _ = connected()
        connection.data_received(HEAD + noise)
        connection.connection_lost(None)
        with pytest.raises(GatewayError):
            await whole(connection)
            raise Broken("it was a reply after all")

    asyncio.run(read())


async def test_a_slow_reader_stops_the_socket_and_nobody_else() -> None:
    """Otherwise one client that reads nothing would fill this machine's memory with its answer. Nothing more is read
    before all that was taken is dealt with."""
    held: list[int] = []
    connection, socket = connected(held.append)
    connection.data_received(HEAD + b"content-length: 1000000\r\n\r\n" + b"x" * MOST)
    assert socket.reading and held == []
    connection.data_received(b"x")
    assert not socket.reading and held == [MOST + 1]
    await connection.head()
    assert len(await connection.more()) == MOST + 1
    assert not socket.reading, "what was taken is still in somebody's hands"
    more = asyncio.ensure_future(connection.more())
    while not socket.reading:
        await asyncio.sleep(0)
    assert held == [MOST + 1, -MOST - 1]
    connection.data_received(b"y")
    assert await more == b"y"


async def test_the_last_of_a_reply_lets_the_socket_be_read_again() -> None:
    """A kept connection that is not read would not be seen to close."""
    held: list[int] = []
    connection, socket = connected(held.append)
    connection.data_received(HEAD + b"content-length: %d\r\n\r\n" % (MOST + 1) + b"x" * (MOST + 1))
    assert not socket.reading
    await connection.more()
    assert socket.reading and connection.reusable and sum(held) == 0


@pytest.mark.parametrize("by", ["us", "the server"])
async def test_what_waits_is_counted_no_more_once_the_connection_is_gone(by: str) -> None:
    held: list[int] = []
    connection, _ = connected(held.append)
    connection.data_received(HEAD + b"content-length: 1000000\r\n\r\n" + b"x" * (MOST + 1))
    if by == "us":
        connection.close()
    connection.connection_lost(None)
    assert held == [MOST + 1, -MOST - 1]


async def test_what_tls_leaves_undecrypted_is_bounded_too() -> None:
    bounds: list[int] = []
    socket: Any = Socket()
    socket.set_read_buffer_limits = bounds.append
    Connection().connection_made(socket)
    assert bounds == [MOST]


async def test_an_interim_reply_is_not_the_reply() -> None:
    connection, _ = connected()
    connection.data_received(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + PLAIN)
    assert await whole(connection) == b"hello"
    assert (connection.status, connection.headers) == (200, {"content-length": "5"})


async def test_repeated_headers_are_one() -> None:
    connection, _ = connected()
    connection.data_received(HEAD + b"x-a: 1\r\nX-A: 2\r\ncontent-length: 0\r\n\r\n")
    await connection.head()
    assert connection.headers["x-a"] == "1, 2"


@pytest.mark.parametrize("length", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n"])
async def test_a_reply_without_a_body_ends_with_its_head(length: bytes) -> None:
    connection, _ = connected()
    connection.data_received(length)
    assert await whole(connection) == b""


async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    connection, _ = connected()
    connection.data_received(HEAD + b"\r\nhello")
    connection.connection_lost(None)
    assert await whole(connection) == b"hello"
    assert not connection.reusable


async def test_a_reset_is_no_end() -> None:
    """A cut answer must not look whole."""
    connection, _ = connected()
    connection.data_received(HEAD + b"\r\nhel")
    connection.connection_lost(ConnectionResetError())
    await connection.head()
    assert await connection.more() == b"hel"
    with pytest.raises(Broken):
        await connection.more()


@pytest.mark.parametrize("rest", [PLAIN, b"x"], ids=["a second reply", "a byte"])
async def test_what_nobody_asked_for_closes_the_connection(rest: bytes) -> None:
    """It would be read as the answer to somebody else's request."""
    connection, socket = connected()
    connection.data_received(PLAIN)
    assert await whole(connection) == b"hello"
    connection.data_received(rest)
    assert socket.aborted and not connection.usable


@pytest.mark.parametrize(
    "rest", [PLAIN, HEAD + b"content-length: 4\r\n\r\nevil", CHUNKED, b"HTTP/1.1 100 x\r\n\r\n", b"x"]
)
@pytest.mark.parametrize("reply", [PLAIN, CHUNKED])
async def test_what_comes_in_one_packet_with_a_reply_is_no_part_of_it(reply: bytes, rest: bytes) -> None:
    """Its head would replace the reply's own, and its body be read as the end of the answer."""
    connection, socket = connected()
    connection.data_received(reply.replace(b"200 OK", b"201 Created") + rest)
    assert await whole(connection) == b"hello"
    assert connection.status == 201 and len(connection.headers) == 1
    assert socket.aborted and not connection.reusable


async def test_what_follows_the_body_does_not_change_the_head() -> None:
    """Whoever reads the reply has acted on its head by then."""
    connection, _ = connected()
    trailers = b"0\r\ncontent-type: text/html\r\nx-sum: 1\r\n\r\n"
    connection.data_received(CHUNKED.replace(b"0\r\n\r\n", trailers))
    assert await whole(connection) == b"hello"
    assert connection.headers == {"transfer-encoding": "chunked"} and connection.reusable


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (HEAD, b"a:\r\n"),
        (HEAD, b"a: b\r\nc-d: e\r\n"),
        (CHUNKED.removesuffix(b"\r\n") + b"x: ", b"y" * 100),
        (CHUNKED.removesuffix(b"\r\n"), b"a: b\r\n"),
        (CHUNKED.removesuffix(b"0\r\n\r\n") + b"5;", b"x" * 100),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"\r\n"),
    ],
    ids=["tiny headers", "headers", "a trailer without end", "trailers", "an extension", "interim replies", "lines"],
)
@pytest.mark.parametrize("size", [1_000, 250_000])
async def test_what_is_no_body_does_not_go_on_for_ever(start: bytes, more: bytes, size: int) -> None:
    """It is held, or at least read, by us, and no buffer of ours bounds it."""
    connection, socket = connected()
    if start:
        connection.data_received(start)
    sent = 0
    while not socket.aborted:
        connection.data_received(more * (size // len(more)))
        sent += size
        assert sent < 500_000
    with pytest.raises(BadReply):
        await whole(connection)


async def test_a_server_that_wants_to_close_is_not_asked_again() -> None:
    connection, _ = connected()
    connection.data_received(HEAD + b"connection: close\r\ncontent-length: 0\r\n\r\n")
    assert await whole(connection) == b""
    assert not connection.reusable


@pytest.mark.parametrize(
    "head",
    [
        b"x" * 9 + b": " + b"y" * HEAD_BYTES_MAX + b"\r\n\r\n",
        b"x: " + b"y" * HEAD_BYTES_MAX,
        b"connection: upgrade\r\nupgrade: websocket\r\n\r\n".join([b"", b"x"]),
    ],
    ids=["a head beyond all bounds", "one that does not end", "another protocol"],
)
async def test_a_head_that_is_none(head: bytes) -> None:
    connection, _ = connected()
    start = b"HTTP/1.1 101 Switching Protocols\r\n" if b"websocket" in head else HEAD
    for at in range(0, len(head), 30_000):
        connection.data_received(start + head[:30_000] if at == 0 else head[at : at + 30_000])
        if not connection.usable:
            break
    with pytest.raises(BadReply):
        await connection.head()


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
async def test_what_was_compressed_unasked_is_read(pack: Any) -> None:
    body = b"hello" * 400_000  # more than one piece of output
    packed = pack(body)
    connection, _ = connected()
    encoding = b"gzip" if pack is gzip.compress else b"deflate"
    connection.data_received(HEAD + b"content-encoding: %s\r\ncontent-length: %d\r\n\r\n" % (encoding, len(packed)))
    connection.data_received(packed)
    await connection.head()
    pieces = []
    while piece := await connection.more():
        assert len(piece) <= UNPACKED_BYTES, "a bomb is handed out in pieces"
        pieces.append(piece)
    assert b"".join(pieces) == body


WORDS: Final = b"".join(b"word%d " % (number * number % 997) for number in range(20_000))
"""Half of it packed is still more than one piece of output."""


@given(st.sampled_from([zlib.MAX_WBITS, zlib.MAX_WBITS | 16]), st.data())
def test_what_comes_while_a_reader_is_busy_unpacking_is_not_mixed_up(wbits: int, data: st.DataObject) -> None:
    """A reader that awaits anything between two pieces lets the event loop feed the next bytes in."""
    packed = zlib.compress(WORDS, wbits=wbits)
    cuts = sorted(data.draw(st.lists(st.integers(1, len(packed) - 1), min_size=1, max_size=8, unique=True)))
    parts = [packed[start:end] for start, end in itertools.pairwise((0, *cuts, len(packed)))]
    soon = data.draw(st.integers(1, 8))

    async def read() -> bytes:
        connection, _ = connected()
        connection.data_received(HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed))
        found = b""
        for part in parts:
            connection.data_received(part)
            for _ in range(soon):  # of more pieces than that, the rest is still to be unpacked when the next part comes
                if not connection._waiting_bytes:
                    break
                reading = asyncio.ensure_future(connection.more())
                await asyncio.sleep(0)
                await asyncio.sleep(0)  # a turn of the others may come first
                if not reading.done():  # not enough for a piece: it waits for the next part
                    reading.cancel()
                    break
                found += reading.result()
        while piece := await connection.more():
            found += piece
        return found

    assert asyncio.run(read()) == WORDS


async def test_what_waits_to_be_unpacked_stops_the_socket_too() -> None:
    """A reader that is slow about a compressed answer must not make us hold all of it, packed or not."""
    held: list[int] = []
    waited: list[int] = []
    body = b"".join(b"%c" % byte * 4 for byte in random.Random(1).randbytes(8 * MOST))  # packs evenly
    packed = gzip.compress(body)
    connection, socket = connected(held.append)
    connection.data_received(HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed))
    fed, found = 0, b""

    async def feed() -> None:
        nonlocal fed
        while fed < len(packed):
            if socket.reading:
                connection.data_received(packed[fed : fed + 1_000])
                fed += 1_000
                waited.append(fed - len(found) * len(packed) // len(body))
            await asyncio.sleep(0)

    feeding = asyncio.ensure_future(feed())
    while piece := await connection.more():
        found += piece
        for _ in range(14):  # less than what stops the socket; with what is still packed it is more
            await asyncio.sleep(0)
    await feeding
    assert found == body
    assert max(waited) < MOST + 2_000
    assert sum(held) == 0 and max(held) < MOST + 1_001


@pytest.mark.parametrize(
    ("encoding", "body", "fault"),
    [
        (b"gzip", b"nope", BadReply),
        (b"br", b"nope", BadReply),
        (b"gzip", gzip.compress(b"hello")[:-9], Broken),
        (b"gzip", gzip.compress(b"hello") + b"more", BadReply),
    ],
    ids=["no gzip", "brotli", "cut", "too long"],
)
async def test_a_body_nobody_can_unpack(encoding: bytes, body: bytes, fault: type[GatewayError]) -> None:
    connection, _ = connected()
    connection.data_received(
        HEAD + b"content-encoding: %s\r\ncontent-length: %d\r\n\r\n" % (encoding, len(body)) + body
    )
    with pytest.raises(fault):
        await whole(connection)


async def test_a_body_that_never_has_to_be_waited_for_leaves_others_their_turns() -> None:
    """One large answer must not hold up every other client's; on whatever event loop."""
    packed = gzip.compress(bytes(50_000_000))
    connection, _ = connected()
    connection.data_received(HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed) + packed)
    over, turns = False, 0

    async def other() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.ensure_future(other())
    while await connection.more():
        pass
    over = True
    await beside
    assert turns > 1


async def test_an_alarm_wakes_who_waits_and_spoils_the_connection() -> None:
    connection, _ = connected()
    waiting = asyncio.ensure_future(connection.head())
    await asyncio.sleep(0)
    connection.set_exception(Broken("too late"))
    connection.set_exception(Broken("and again"))
    with pytest.raises(Broken, match="too late"):
        await waiting
    assert not connection.usable
    with pytest.raises(Broken, match="too late"):
        await connection.head()


async def test_a_closed_connection_says_so() -> None:
    connection, socket = connected()
    connection.close()
    assert socket.aborted
    with pytest.raises(Broken):
        await connection.head()
    Connection().close()  # one that never was connected: nothing to do


async def test_a_lost_connection_is_forgotten_at_once() -> None:
    """The collector of cycles comes seldom here, and thousands of clients leave in the time."""
    connection, _ = connected()
    connection.data_received(HEAD + b"content-length: 100\r\n\r\nhel")
    connection.connection_lost(ConnectionResetError())
    gone = weakref.ref(connection)
    gc.disable()
    try:
        del connection
        assert gone() is None
    finally:
        gc.enable()
