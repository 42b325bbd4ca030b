"""Without these faults would misread the replies they bend."""

from __future__ import annotations

from app.simulator.script import Head, Wait, body_of, head_of, json_reply, streamed, whole


def test_a_whole_reply_knows_its_length() -> None:
    assert whole(500, b"abc", "text/plain", (("a", "b"),)) == (Head(500, "text/plain", (("a", "b"),), 3), b"abc")
    assert whole(200, b"") == (Head(200, "application/json", (), 0),)


def test_json_and_streams() -> None:
    assert json_reply({"a": 1}, 404) == (Head(404, "application/json", (), 7), b'{"a":1}')
    assert streamed("text/plain", (b"a", Wait(1), b"b")) == (Head(200, "text/plain"), b"a", Wait(1), b"b")


def test_head_and_body_are_found_among_the_steps() -> None:
    script = (Wait(1), *streamed("text/plain", (b"a", Wait(1), b"b")))
    assert body_of(script) == b"ab"
    assert head_of(script) == Head(200, "text/plain")
    assert head_of((Wait(1),)) is None
