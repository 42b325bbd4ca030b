"""From a URL to a connection: what is no URL is refused before anything is sent, and one dead address of several does
not keep a live one from being used."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from app.core.errors import Refused
from app.upstreams.dial import connect, target_of
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


async def test_a_name_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(*_: Any, **__: Any) -> list[Any]:
        return []

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", none)
    with pytest.raises(Refused):
        await connect(target_of("http://none.test/"), SIZE)


async def test_a_plain_server_is_no_secure_one() -> None:
    """Falling back to plain text would hand the key to whoever listens."""
    async with server(says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), read_head=False) as url:
        with pytest.raises(Refused):
            await connect(target_of(url.replace("http", "https")), SIZE)


async def test_who_stops_waiting_leaves_no_socket_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    async def hangs(sock: socket.socket, _: Any) -> None:
        made.append(sock)
        await asyncio.sleep(60)

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", hangs)
    dialling = asyncio.ensure_future(connect(target_of("http://127.0.0.1:1/"), SIZE))
    while not made:
        await asyncio.sleep(0)
    dialling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialling
    assert made[0].fileno() == -1
