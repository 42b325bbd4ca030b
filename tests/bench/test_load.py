"""The load generator counts what it is given, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import orjson
import pytest

from bench.load import Ask, address, measure, quantile, request_bytes
from bench.upstream import serve_mock
from bench.workloads import QUICK, SLOW, STREAM, Workload


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with contextlib.AsyncExitStack() as stack:
        yield (await serve_mock(stack, 0))["openai"] + "/v1"


def short(model: str, *, stream: bool = False, tokens: int = 5) -> Workload:
    return Workload("short", "", model, 4, tokens, stream=stream, seconds=0.2)


def test_quantiles_are_values_that_occurred() -> None:
    assert quantile([1.0], 0.99) == 1.0
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0
    assert quantile([1.0, 2.0], 1.0) == 2.0


@pytest.mark.parametrize("away", ["http://example.com:80/v1", "http://127.0.0.1/v1", "http://10.0.0.1:8080/v1"])
def test_load_is_put_on_this_machine_alone(away: str) -> None:
    with pytest.raises(ValueError, match="no port of this machine"):
        address(away)


def test_a_request_says_how_long_it_is_and_asks_for_usage_on_streams() -> None:
    ask = Ask("http://127.0.0.1:1/v1", "m", ("X-One: 1",))
    head, _, body = request_bytes(ask, short(QUICK, stream=True)).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head and head.endswith(b"X-One: 1")
    assert orjson.loads(body)["stream_options"] == {"include_usage": True}
    assert "stream" not in orjson.loads(request_bytes(ask, short(QUICK)).partition(b"\r\n\r\n")[2])


async def test_requests_are_counted_and_timed(url: str) -> None:
    seen = await measure(Ask(url, QUICK), short(QUICK))
    assert seen["requests"] > 10 and seen["errors"] == {}
    assert 0 < seen["whole_ms_p50"] <= seen["whole_ms_p99"]
    assert seen["events"] == 0 and "cpu_s" not in seen


async def test_events_of_streams_are_counted(url: str) -> None:
    seen = await measure(Ask(url, STREAM), short(STREAM, stream=True))
    assert seen["events"] >= seen["requests"] * 5 > 0
    assert 0 < seen["first_ms_p50"] <= seen["whole_ms_p50"]


async def test_open_streams_are_counted(url: str) -> None:
    """Memory per 1,000 streams means nothing unless 1,000 are open."""
    seen = await measure(Ask(url, SLOW), short(SLOW, stream=True, tokens=9))
    assert seen["streams_open"] == 4


async def test_a_slow_gateway_gets_time_until_all_its_streams_are_open(url: str) -> None:
    late = replace(short(SLOW, stream=True, tokens=9), ramp=0.2, patience=5.0)
    assert (await measure(Ask(url, SLOW), late))["streams_open"] == 4
    never = replace(short(SLOW, stream=False, tokens=9), patience=0.1)
    assert (await measure(Ask(url, SLOW), never))["streams_open"] == 0


async def test_refusals_are_errors_and_end_in_bounded_time(url: str) -> None:
    """A gateway that refuses fast must not look fast."""
    seen = await measure(Ask(url.removesuffix("/v1") + "/nowhere", QUICK), short(QUICK))
    assert seen["requests"] == 0 and seen["errors"]["status 404"] >= 4


async def test_a_port_where_nobody_listens_is_an_error() -> None:
    seen = await measure(Ask("http://127.0.0.1:9/v1", QUICK), short(QUICK))
    assert seen["requests"] == 0 and seen["errors"]["ConnectionRefusedError"] >= 4


async def test_a_stream_with_too_few_events_is_cut_short(url: str) -> None:
    workload = short(QUICK, stream=True, tokens=50)
    cheat = Ask(url, QUICK)
    asked = request_bytes(cheat, workload).replace(b"sim:tokens=50", b"sim:tokens=04")
    seen = await measure(cheat, workload, asked)
    assert seen["requests"] == 0 and set(seen["errors"]) == {"cut short"}


async def test_no_request_asks_what_another_has_asked() -> None:
    """Else a gateway that remembers what it has read looks cheaper than it is with real traffic."""
    sent: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
                sent.append(orjson.loads(await reader.readexactly(length))["messages"][0]["content"].encode())
                body = b'{"choices":[{"message":{"content":"yes"}}]}'
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        await measure(Ask(f"http://127.0.0.1:{port}/v1", QUICK), short(QUICK))
    assert len(sent) > 10 and len(set(sent)) == len(sent)
    assert {len(each) for each in sent} == {200}
