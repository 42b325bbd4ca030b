"""Without these a test cannot see what an upstream was really sent, or `/_sim/requests` would show credentials."""

from __future__ import annotations

import orjson

from app.simulator.record import Call


def call(body: bytes = b"{}", **headers: str) -> Call:
    return Call("POST", "/x", "a=1", headers, body)


def test_the_body_is_parsed_where_it_can_be() -> None:
    assert call(b'{"a":1}').body == {"a": 1}
    assert call(b"[1]").body == [1] and call(b"[1]").fields == {}
    assert call(b"{").body is None and call(b"{").fields == {}


def test_numbers_are_unique() -> None:
    assert call().number != call().number


def test_times_say_whether_the_client_stayed() -> None:
    stayed, gone = call(), call()
    stayed.over()
    gone.left()
    assert stayed.over_at is not None and stayed.over_at >= stayed.at
    assert (stayed.disconnected, gone.disconnected) == (False, True)


def test_it_can_be_shown_without_its_credentials() -> None:
    shown = orjson.dumps(call(b'{"a":1}', authorization="Bearer secret", **{"x-api-key": "secret"}).as_json())
    assert b"secret" not in shown and b'"a":1' in shown
