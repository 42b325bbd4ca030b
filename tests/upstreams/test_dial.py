"""From a URL to a connection: what is no URL is refused before anything is sent, and one dead address of several does
not keep a live one from being used."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.core.errors import Refused
from app.upstreams import dial
from app.upstreams.dial import HEAD_START_SECONDS, _first_to_accept, connect, target_of
from tests.upstreams.sockets import says, server

SIZE = 32_768


@pytest.mark.parametrize(
    ("url", "authority", "path", "port"),
    [
        ("http://a.test", "a.test", "/", 80),
        ("https://a.test/v1?x=1", "a.test", "/v1?x=1", 443),
        ("http://a.test:8000/v1", "a.test:8000", "/v1", 8000),
        ("https://a.test:443/", "a.test", "/", 443),
        ("http://[::1]:8000/a b", "[::1]:8000", "/a%20b", 8000),
        ("http://bücher.test/", "xn--bcher-kva.test", "/", 80),
    ],
)
def test_where_a_url_leads(url: str, authority: str, path: str, port: int) -> None:
    target = target_of(url)
    assert (target.authority, target.path, target.port) == (authority, path, port)


@pytest.mark.parametrize("url", ["", "a.test", "ftp://a.test", "http://", "http://[", "http://a:b/", "http://a.test/ü"])
def test_what_is_no_url_of_ours_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        target_of(url)


async def test_the_kernel_holds_little_of_an_answer_nobody_reads() -> None:
    async with server(says(then="hang"), read_head=False) as url:
        connection = await connect(target_of(url), SIZE)
        assert connection._transport is not None
        made = connection._transport.get_extra_info("socket")
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * SIZE
        connection.close()


class Network:
    """A name with as many addresses as are written down here: what connecting to each comes to, given its socket."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Callable[[], Awaitable[None]]) -> None:
        self.sockets: list[socket.socket] = []
        self._answers = answers
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", self._addresses)
        monkeypatch.setattr(loop, "sock_connect", self._connect)

    async def _addresses(self, *_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"10.0.0.{n}", 80)) for n in range(len(self._answers))]

    async def _connect(self, made: socket.socket, where: tuple[str, int]) -> None:
        self.sockets.append(made)
        await self._answers[int(where[0].rpartition(".")[2])]()

    async def dialled(self) -> int:
        """Which of the addresses won; the sockets of the others must be closed by then."""
        won = await _first_to_accept(await self._addresses(), SIZE)
        assert [each for each in self.sockets if each.fileno() != -1] == [won]
        won.close()
        return self.sockets.index(won)


async def accepts() -> None:
    """At once."""


async def accepts_late() -> None:
    await asyncio.sleep(HEAD_START_SECONDS + 0.15)


async def refuses() -> None:
    raise ConnectionRefusedError


async def black_hole() -> None:
    await asyncio.sleep(600)


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        ([accepts], 0),
        ([accepts_late, black_hole], 0),
        ([black_hole, accepts], 1),
        ([refuses, accepts], 1),
        ([black_hole, refuses, accepts_late], 2),
        ([accepts_late, refuses], 0),
        ([accepts, accepts], 0),
    ],
    ids=[
        "one address",
        "a slow one before a black hole",
        "a black hole first",
        "a refusal first",
        "only the last",
        "a slow one before a refusal",
        "no need for the second",
    ],
)
async def test_the_first_address_that_accepts_is_used(
    monkeypatch: pytest.MonkeyPatch, answers: list[Callable[[], Awaitable[None]]], winner: int
) -> None:
    """A name has two addresses on most machines, and one of them is often dead, deaf or slow."""
    async with asyncio.timeout(60):
        assert await Network(monkeypatch, *answers).dialled() == winner


async def test_the_next_address_is_tried_at_once_when_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "HEAD_START_SECONDS", 600.0)
    async with asyncio.timeout(60):
        assert await Network(monkeypatch, refuses, refuses, accepts).dialled() == 2


async def test_of_two_that_accept_together_one_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "HEAD_START_SECONDS", 0.0)
    both = asyncio.Event()
    network = Network(monkeypatch, *[lambda: wait_for(both)] * 2)
    dialling = asyncio.ensure_future(network.dialled())
    while len(network.sockets) < 2:
        await asyncio.sleep(0)
    both.set()
    assert await dialling in (0, 1)


async def wait_for(event: asyncio.Event) -> None:
    await event.wait()


@pytest.mark.parametrize("answers", [[], [refuses], [refuses, refuses, refuses]], ids=["none", "one", "three"])
async def test_a_name_nobody_accepts_at_is_refused(
    monkeypatch: pytest.MonkeyPatch, answers: list[Callable[[], Awaitable[None]]]
) -> None:
    network = Network(monkeypatch, *answers)
    async with asyncio.timeout(60):
        with pytest.raises(Refused):
            await connect(target_of("http://name.test/"), SIZE)
    assert [each.fileno() for each in network.sockets] == [-1] * len(answers)


async def test_a_mistake_of_ours_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    Network(monkeypatch, broken)
    with pytest.raises(ZeroDivisionError):
        await connect(target_of("http://name.test/"), SIZE)


async def test_who_stops_waiting_leaves_no_attempt_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "HEAD_START_SECONDS", 0.0)
    network = Network(monkeypatch, black_hole, black_hole, black_hole)
    dialling = asyncio.ensure_future(connect(target_of("http://name.test/"), SIZE))
    while len(network.sockets) < 3:
        await asyncio.sleep(0)
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling
    assert [each.fileno() for each in network.sockets] == [-1, -1, -1]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_dead_address_does_not_hide_a_live_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is two addresses on most machines, and many servers listen on one of them."""
    async with server(says(then="hang"), read_head=False) as url:
        port = target_of(url).port
        dead = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))
        live = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))

        loop = asyncio.get_running_loop()
        usual = loop.getaddrinfo

        async def two(host: str, *rest: Any, **more: Any) -> list[Any]:
            return [dead, dead, live] if host == "two.test" else await usual(host, *rest, **more)

        monkeypatch.setattr(loop, "getaddrinfo", two)
        (await connect(target_of(f"http://two.test:{port}/"), SIZE)).close()


async def test_a_plain_server_is_no_secure_one() -> None:
    """Falling back to plain text would hand the key to whoever listens."""
    async with server(says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), read_head=False) as url:
        with pytest.raises(Refused):
            await connect(target_of(url.replace("http", "https")), SIZE)
