"""Without these a client that stalls, drips, lies about its length or leaves ties a request up, or brings it down."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api import inbound as module
from app.core.errors import ClientGone, InvalidValue, RequestTimeout, RequestTooLarge
from tests.api.wire import LEAVE, Wire, soon

LIMIT = 10


async def body(wire: Wire, limit: int = LIMIT) -> bytes:
    async with asyncio.timeout(2):
        return await wire.inbound().body(limit)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 0.1)
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.1)


@pytest.mark.parametrize("sent", ["müller", "müller".encode("latin-1"), " müller "])
async def test_a_name_in_a_header_is_the_one_that_was_typed(sent: str | bytes) -> None:
    """Else a budget for `müller` never counts, and a session is not found under its own name."""
    inbound = Wire().inbound()
    inbound.headers = {b"x-tierway-agent": sent.encode() if isinstance(sent, str) else sent}
    assert inbound.header(b"x-tierway-agent") == "müller"


@given(st.binary())
def test_any_bytes_in_a_header_are_text(sent: bytes) -> None:
    async def check() -> None:
        inbound = Wire().inbound()
        inbound.headers = {b"x": sent}
        assert isinstance(inbound.header(b"x"), str)

    asyncio.run(check())


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=6))
def test_a_body_arrives_as_it_was_sent_however_it_was_cut(pieces: list[bytes]) -> None:
    async def check() -> None:
        assert await body(Wire(*pieces), limit=100) == b"".join(pieces)

    asyncio.run(check())


@pytest.mark.parametrize("pieces", [[b"0123456789"], [b"01234", b"56789"], [b"0123456789", b""]])
async def test_a_body_of_exactly_the_limit_is_taken(pieces: list[bytes]) -> None:
    """Off by one, and a client that was told the limit is refused at it."""
    assert await body(Wire(*pieces, headers={"content-length": "10"})) == b"0123456789"


@pytest.mark.parametrize("pieces", [[b"0123456789x"], [b"01234", b"56789x"], [b"x" * 11, b""], [b"x" * 11, b"y", b"z"]])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_larger_body_is_refused_once_it_was_sent(pieces: list[bytes], declared: bool) -> None:
    """Refused at once, a client that is still sending sees a broken connection instead of the 413."""
    wire = Wire(*pieces, headers={"content-length": "11"} if declared else {})
    with pytest.raises(RequestTooLarge):
        await body(wire)
    assert wire.received == len(pieces)


async def test_who_waits_for_a_word_before_sending_is_refused_at_once() -> None:
    """curl asks before it sends a large body; without this it would send it all for nothing."""
    wire = Wire(b"x" * 11, headers={"content-length": "11", "expect": "100-continue"})
    with pytest.raises(RequestTooLarge):
        await body(wire)
    assert wire.received == 0


async def test_an_endless_body_is_not_read_for_ever() -> None:
    wire = Wire(*[b"x" * LIMIT] * 100)
    with pytest.raises(RequestTooLarge):
        await body(wire)
    assert wire.received < 10


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("sent", [LIMIT + 1, 0])
async def test_a_body_too_large_that_stalls_is_refused_in_the_end(sent: int) -> None:
    with pytest.raises(RequestTooLarge):
        await body(Wire(b"x" * sent, headers={"content-length": "11"}, open_end=True))


@pytest.mark.parametrize("pieces", [[], [b"01"], [b"", b"", b"0"]])
async def test_a_client_that_leaves_while_sending_ends_the_request(pieces: list[bytes]) -> None:
    """Nobody is there to be told, and half a body must not be taken for a whole one."""
    with pytest.raises(ClientGone):
        await body(Wire(*pieces, LEAVE, open_end=True))


async def test_a_client_that_leaves_while_a_body_too_large_is_read_ends_that() -> None:
    with pytest.raises(RequestTooLarge):
        await body(Wire(b"x", LEAVE, headers={"content-length": "11"}, open_end=True))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("pieces", [[], [b"0"], [b"0", b"1"]])
async def test_a_body_that_stalls_is_given_up(pieces: list[bytes]) -> None:
    """Also when not even its first byte came: else heads without bodies fill all the places there are."""
    with pytest.raises(RequestTimeout):
        await body(Wire(*pieces, open_end=True))


@pytest.mark.usefixtures("quick")
async def test_a_body_that_drips_is_given_up() -> None:
    """A byte now and then never stalls, and would hold its place for hours."""

    class Dripping(Wire):
        async def receive(self) -> module.Message:
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b"x", "more_body": True}

    with pytest.raises(RequestTimeout):
        await body(Dripping(), limit=10_000)


@pytest.mark.usefixtures("quick")
async def test_a_slow_body_that_goes_on_is_taken() -> None:
    """A large body over a slow line takes longer than any single wait."""

    class Slow(Wire):
        async def receive(self) -> module.Message:
            await asyncio.sleep(0.05)
            return await super().receive()

    assert len(await body(Slow(*[b"x" * 8_192] * 5), limit=100_000)) == 5 * 8_192


async def test_a_compressed_body_is_refused_by_name() -> None:
    """Parsed as it is, it would be reported as broken JSON."""
    with pytest.raises(InvalidValue, match="gzip"):
        await body(Wire(b"x", headers={"content-encoding": "gzip"}))
    assert await body(Wire(b"x", headers={"content-encoding": "identity"})) == b"x"


@pytest.mark.parametrize("length", ["", "-1", "1e9", "²", "x"])
async def test_a_length_that_is_no_number_says_nothing(length: str) -> None:
    assert await body(Wire(b"x", headers={"content-length": length})) == b"x"


@pytest.mark.parametrize("length", ["9" * 19, "1" * 5000, "0" * 5000 + "1"])
async def test_an_absurd_length_is_too_large(length: str) -> None:
    """Python refuses to read numbers of thousands of digits, which would be a fault of ours."""
    with pytest.raises(RequestTooLarge):
        await body(Wire(b"x", headers={"content-length": length}))


@pytest.mark.parametrize("given", ["a", "req_1.2:3-4", "x" * 128])
async def test_a_sound_request_id_is_kept(given: str) -> None:
    """It is what ties the caller's log to ours."""
    assert Wire(headers={"x-request-id": given}).inbound().request_id == given


@pytest.mark.parametrize("given", ["", " ", "x" * 129, "a b", "a\r\nx: y", "\x1b[31m", "ä", "a\x00", "a\n"])
async def test_an_unsound_request_id_is_replaced(given: str) -> None:
    """It goes into headers, logs and terminals."""
    found = {Wire(headers={"x-request-id": given}).inbound().request_id for _ in range(2)}
    assert len(found) == 2 and all(re.fullmatch(r"req_[0-9a-f]{32}", each) for each in found)


async def test_headers_are_text_without_their_blanks() -> None:
    wire = Wire(headers={"a": " é ", "b": ""}).inbound()
    assert (wire.header(b"a"), wire.header(b"b"), wire.header(b"c")) == ("é", "", None)


async def test_gone_comes_when_the_client_has_left_and_not_before() -> None:
    """Too early, and answers are cut; never, and upstreams work for nobody."""
    wire = Wire(b"late")
    task = asyncio.create_task(wire.inbound().gone())
    await soon(lambda: wire.received == 1)
    await asyncio.sleep(0.01)
    assert not task.done()
    wire.leave()
    await asyncio.wait_for(task, 1)


async def test_abort_cuts_where_the_server_offers_it() -> None:
    wire = Wire()
    wire.inbound().abort()
    assert wire.aborted
    del wire.scope["extensions"]
    wire.inbound().abort()
