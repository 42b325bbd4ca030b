"""One attempt from request to events, over a real socket with a codec of one-line JSON events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import orjson
import pytest

from app.core.card import Ability, Card
from app.core.errors import BadReply, Blame, GatewayError, Incomplete, OutOfTime, Rejected, ServerFault, TimedOut
from app.core.events import Event, Finish, Start, Text, Usage
from app.core.money import Tokens
from app.core.request import Request, Terms
from app.upstreams.converse import converse, fetch, streamed
from app.upstreams.http import Call, Clocks, Transport
from app.wire.codec import Outgoing, Reader
from app.wire.lines import LineSplitter
from tests.upstreams.sockets import Handler, hangs_after, says, server

CLOCKS = Clocks(first_token=5.0, idle=5.0, total=10.0)
SOON = 0.1
CARD = Card("up/m", "m", "up", "openai", True, frozenset({Ability.CHAT}))
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\n\r\n"


def asked(*, stream: bool = True, deadline: float | None = None) -> Request:
    terms = Terms("r1", "r1", deadline=deadline)
    return Request("m", (), terms, "lines", {}, stream=stream)


class LinesReader:
    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._finished = False
        self.over = False

    def feed(self, data: bytes) -> list[Event]:
        return [self._event(line) for line in self._lines.feed(data)]

    def _event(self, line: bytes) -> Event:
        match line:
            case b"start":
                return Start("1", "m", 0, "lines")
            case b"finish" | b"last":
                self._finished, self.over = True, line == b"last"
                return Finish("stop")
        return Text(line.decode())

    def end(self) -> list[Event]:
        if not self._finished:
            raise Incomplete("no finish")
        return [Usage(Tokens(1, 1))]


class LinesCodec:
    """A dialect of one word per line; enough to see what `converse` itself does."""

    def write_request(self, request: Request, card: Card) -> Outgoing:
        return Outgoing(b'{"ask":1}', {"x-codec": "lines"}, ignored=("seed",))

    def reader(self, request: Request, card: Card, outgoing: Outgoing) -> Reader:
        return LinesReader()

    def read_reply(self, body: bytes, request: Request, card: Card, outgoing: Outgoing) -> list[Event]:
        text = orjson.loads(body)["text"]
        return [Start("1", "m", 0, "lines"), Text(text), Finish("stop"), Usage(Tokens(1, 1))]

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        if status >= 500:
            return ServerFault("x")
        return Rejected(f"{headers['x-why']} {len(body)}", status=status)


async def answered(transport: Transport, url: str, request: Request, clocks: Clocks = CLOCKS) -> list[Event]:
    events = converse(transport, LinesCodec(), request, CARD, url=url, headers={"x-ours": "yes"}, clocks=clocks)
    return [event async for event in events]


def text_of(events: list[Event]) -> str:
    return " ".join(event.text for event in events if isinstance(event, Text))


async def test_a_stream_becomes_events_with_what_was_ignored_on_the_first(transport: Transport) -> None:
    async with server(says(STREAM_HEAD + b"start\na", b"b\nc\nfinish\n")) as url:
        events = await answered(transport, url, asked())
    assert text_of(events) == "ab c"
    assert isinstance(events[0], Start) and events[0].ignored == ("seed",)
    assert isinstance(events[-1], Usage)


async def test_the_request_carries_all_headers_and_the_codecs_body(transport: Transport) -> None:
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(9))
        await says(JSON_HEAD + b'{"text":"hi"}')(reader, writer)

    async with server(handle, read_head=False) as url:
        await answered(transport, f"{url}/chat", asked(stream=False))
    head, _, body = heads[0].partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"post /chat http/1.1"
    assert {b"x-ours: yes", b"x-codec: lines", b"content-type: application/json"} <= set(lines)
    assert b"accept-encoding: identity" in lines
    assert body == b'{"ask":1}'


async def test_a_whole_reply_becomes_the_same_events(transport: Transport) -> None:
    async with server(says(JSON_HEAD + b'{"text":"hi"}')) as url:
        for stream in (True, False):  # a server that cannot stream still answers
            events = await answered(transport, url, asked(stream=stream))
            assert text_of(events) == "hi"
            assert isinstance(events[0], Start) and events[0].ignored == ("seed",)


async def test_a_stream_that_nobody_asked_for_is_read_as_one(transport: Transport) -> None:
    async with server(says(STREAM_HEAD + b"start\nab\nfinish\n")) as url:
        assert text_of(await answered(transport, url, asked(stream=False))) == "ab"


async def test_an_answer_cut_off_is_incomplete(transport: Transport) -> None:
    async with server(says(STREAM_HEAD + b"start\nab\n")) as url:
        with pytest.raises(Incomplete):
            await answered(transport, url, asked())


@pytest.mark.parametrize("then", ["hang", "reset", "close"])
async def test_an_answer_that_is_complete_does_not_fail_for_how_its_body_ends(
    transport: Transport, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers say `[DONE]` and leave the connection open, or throw it away."""
    monkeypatch.setattr("app.upstreams.converse.ENDING_SECONDS", SOON)
    async with server(says(STREAM_HEAD + b"start\nab\nlast\n", then=then)) as url:
        assert text_of(await answered(transport, url, asked())) == "ab"


async def test_a_connection_whose_body_ends_after_the_last_word_is_used_again(transport: Transport) -> None:
    connections: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(STREAM_HEAD[:-2] + b"transfer-encoding: chunked\r\n\r\nd\r\nstart\na\nlast\n\r\n")
            await asyncio.sleep(0.02)
            writer.write(b"0\r\n\r\n")

    async with server(handle, read_head=False) as url:
        for _ in range(2):
            assert text_of(await answered(transport, url, asked())) == "a"
        assert len(connections) == 1


async def test_a_refusal_is_read_by_the_codec(transport: Transport) -> None:
    async with server(says(b"HTTP/1.1 400 no\r\nX-Why: because\r\ncontent-length: 2\r\n\r\n{}")) as url:
        with pytest.raises(Rejected, match="because 2"):
            await answered(transport, url, asked())


async def test_a_refusal_that_repeats_the_request_keeps_its_status(transport: Transport) -> None:
    """Else a caller's mistake would be counted against the upstream, and sent to the next one."""
    head = b"HTTP/1.1 422 no\r\nx-why: long\r\n\r\n"
    async with server(says(head + b"x" * 300_000)) as url:
        with pytest.raises(Rejected, match="long 65536"):
            await answered(transport, url, asked())
        status, _, body = await fetch(transport, Call("GET", url, {}), CLOCKS)
        assert (status, len(body)) == (422, 65_536)


async def test_a_page_of_html_is_no_answer(transport: Transport) -> None:
    async with server(says(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>")) as url:
        with pytest.raises(BadReply, match="text/html"):
            await answered(transport, url, asked())


@pytest.mark.parametrize(
    ("content_type", "asked_for", "expected"),
    [
        ("text/event-stream", False, True),
        ("application/x-ndjson", False, True),
        ("application/json", True, False),
        ("", True, True),
        ("", False, False),
    ],
)
def test_the_content_type_decides_how_a_reply_is_read(content_type: str, asked_for: bool, expected: bool) -> None:
    assert streamed(content_type, asked_for) is expected


async def test_closing_the_generator_closes_the_connection(transport: Transport) -> None:
    """When the client leaves, the upstream must stop within a moment."""
    closed = asyncio.Event()
    async with server(hangs_after(STREAM_HEAD + b"start\nab\n", closed)) as url:
        events = converse(transport, LinesCodec(), asked(), CARD, url=url, headers={}, clocks=CLOCKS)
        async with contextlib.aclosing(events):
            assert isinstance(await anext(events), Start)
        async with asyncio.timeout(5):
            await closed.wait()


def slowly(*pieces: bytes, pause: float) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(pause)
        writer.close()

    return handle


async def test_a_stream_without_content_runs_out_of_its_first_token_clock(transport: Transport) -> None:
    async with server(says(STREAM_HEAD + b"start\n", then="hang")) as url:
        with pytest.raises(TimedOut) as caught:
            await answered(transport, url, asked(), CLOCKS._replace(first_token=SOON))
    assert (caught.value.phase, caught.value.blame) == ("first_token", Blame.UPSTREAM)


async def test_content_switches_to_the_idle_clock(transport: Transport) -> None:
    handler = slowly(STREAM_HEAD + b"start\nab\n", b"cd\n", b"finish\n", pause=2 * SOON)
    async with server(handler) as url:
        events = await answered(transport, url, asked(), CLOCKS._replace(first_token=4 * SOON))
    assert text_of(events) == "ab cd"


async def test_a_whole_answer_has_no_first_token_clock(transport: Transport) -> None:
    """Its head comes when the last token is there, however long that takes."""
    async with server(slowly(b"", JSON_HEAD + b'{"text":"hi"}', pause=2 * SOON)) as url:
        assert text_of(await answered(transport, url, asked(stream=False), CLOCKS._replace(first_token=SOON))) == "hi"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("head", [b"", STREAM_HEAD + b"start\nab\n"], ids=["head", "body"])
async def test_the_requests_own_deadline_is_not_held_against_the_upstream(
    transport: Transport, head: bytes, stream: bool
) -> None:
    """Else a caller with a short `x-tierway-timeout` could open the breakers of everybody's models."""
    deadline = asyncio.get_running_loop().time() + 5 * SOON  # enough to connect and to ask
    async with server(says(head, then="hang")) as url:
        with pytest.raises(OutOfTime) as caught:
            await answered(transport, url, asked(stream=stream, deadline=deadline))
    assert caught.value.blame is Blame.CALLER and caught.value.billed


async def test_a_deadline_while_connecting_is_the_callers_too(transport: Transport) -> None:
    """One refused connection opens the breaker of a model, for everybody; and what was not sent costs nothing."""
    deadline = asyncio.get_running_loop().time() + SOON
    async with server(says(then="hang"), read_head=False) as url:  # which never answers the handshake
        with pytest.raises(OutOfTime) as caught:
            await answered(transport, url.replace("http", "https"), asked(deadline=deadline))
    assert caught.value.blame is Blame.CALLER and not caught.value.billed


async def test_the_upstreams_own_total_is_held_against_it(transport: Transport) -> None:
    deadline = asyncio.get_running_loop().time() + 60
    async with server(says(STREAM_HEAD + b"start\nab\n", then="hang")) as url:
        with pytest.raises(TimedOut) as caught:
            await answered(transport, url, asked(deadline=deadline), CLOCKS._replace(total=SOON))
    assert (caught.value.phase, caught.value.blame) == ("total", Blame.UPSTREAM)


async def test_a_deadline_that_is_over_asks_nobody(transport: Transport) -> None:
    """And so nothing is charged for it."""
    with pytest.raises(OutOfTime) as caught:
        await answered(transport, "http://127.0.0.1:1", asked(deadline=0.0))  # else it would be Refused
    assert not caught.value.billed


async def test_fetch_gives_status_headers_and_body(transport: Transport) -> None:
    async with server(says(b"HTTP/1.1 200 OK\r\nX-A: b\r\n\r\nhello")) as url:
        status, headers, body = await fetch(transport, Call("GET", url, {}), CLOCKS)
        assert (status, headers["x-a"], body) == (200, "b", b"hello")
        with pytest.raises(BadReply, match="larger"):
            await fetch(transport, Call("GET", url, {}), CLOCKS, limit=4)


async def test_pieces_of_one_read_know_of_each_other(transport: Transport) -> None:
    """The last of them must not wait for one that nobody sent yet."""
    async with server(says(STREAM_HEAD + b"start\na\nb\nc\nfinish\n")) as url:
        events = await answered(transport, url, asked())
    assert [event.more for event in events if isinstance(event, Text)] == [True, True, False]
