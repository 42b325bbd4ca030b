"""Without these a fault breaks a reply at another place than the test that scripts it believes."""

from __future__ import annotations

import orjson
import pytest

from app.simulator import bends, wires
from app.simulator.script import Break, Hang, Head, Script, Wait, body_of, json_reply, whole
from app.simulator.wires import Json

WIRE = wires.OPENAI


def chunk(delta: Json, finish: str | None = None) -> bytes:
    return WIRE.encode({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


ROLE, ONE, TWO = chunk({"role": "assistant", "content": ""}), chunk({"content": "one"}), chunk({"content": "two"})
FINISH, USAGE = chunk({}, "stop"), WIRE.encode({"choices": [], "usage": {"prompt_tokens": 1}})
HEAD = Head(200, wires.SSE)
STREAM: Script = (HEAD, ROLE, ONE, TWO, FINISH + USAGE, wires.DONE)
FRAMED: Script = (HEAD, ROLE, ONE, TWO, FINISH, USAGE, wires.DONE)
REPLY = json_reply({"choices": [{"message": {"content": "one two"}, "finish_reason": "stop"}], "usage": {"a": 1}})


def test_frames_are_told_apart() -> None:
    assert bends.framed(STREAM, WIRE) == FRAMED
    assert bends.framed(REPLY, WIRE) is REPLY
    assert (bends.is_stream(STREAM), bends.is_stream(REPLY), bends.is_stream((Hang(),))) == (True, False, False)


@pytest.mark.parametrize(("at", "place"), [(0, 2), (1, 3), (9, 3)])
def test_places_are_counted_in_content(at: int, place: int) -> None:
    assert bends.place(FRAMED, WIRE, at) == place


def test_places_where_there_is_no_content() -> None:
    assert bends.place((HEAD, ROLE, FINISH), WIRE, 5) == 2
    assert bends.place((HEAD,), WIRE, 0) == 1
    assert bends.place(REPLY, WIRE, 3) == 1
    assert bends.place(whole(200, b""), WIRE, 0) == 1


def test_a_cut_leaves_half_a_frame() -> None:
    *before, half, end = bends.cut(STREAM, WIRE, 1, end=Break())
    assert before == [HEAD, ROLE, ONE] and end == Break()
    assert isinstance(half, bytes) and TWO.startswith(half) and 0 < len(half) < len(TWO)


def test_a_cut_of_a_json_reply_breaks_the_promised_length_or_keeps_to_it() -> None:
    head, half, end = bends.cut(REPLY, WIRE, 0, end=Break(reset=True))
    assert head == REPLY[0] and end == Break(reset=True)
    assert isinstance(half, bytes) and len(half) < len(body_of(REPLY))
    clean = bends.cut(REPLY, WIRE, 0, end=None)
    assert clean == whole(200, half)


def test_a_cut_of_nothing() -> None:
    assert bends.cut((HEAD,), WIRE, 0, end=Break()) == (HEAD, Break())
    assert bends.cut((HEAD,), WIRE, 0, end=None) == (HEAD,)


def test_stopping_at_a_place() -> None:
    assert bends.stop_at(STREAM, WIRE, 1, (Hang(),)) == (HEAD, ROLE, ONE, Hang())
    assert bends.stop_at(REPLY, WIRE, 1, (Hang(),)) == (REPLY[0], Hang())


def test_no_finish_is_no_finish() -> None:
    assert bends.until_finish(STREAM, WIRE) == (HEAD, ROLE, ONE, TWO)
    assert b"finish_reason" not in body_of(bends.until_finish(REPLY, WIRE))


def test_a_finish_that_rides_on_content_goes_alone() -> None:
    """vLLM's way: the last content must still come, without its reason."""
    bent = bends.until_finish((HEAD, ROLE, chunk({"content": "one"}, "stop"), wires.DONE), WIRE)
    assert b"one" in body_of(bent) and b'"stop"' not in body_of(bent) and b"DONE" not in body_of(bent)


def test_the_last_frame_can_be_missing() -> None:
    assert bends.without_last(STREAM, WIRE) == FRAMED[:-1]
    assert bends.without_last(REPLY, WIRE) is REPLY


def test_frames_can_be_put_in() -> None:
    assert bends.inserted(STREAM, WIRE, 1, b"x\n\n") == (HEAD, ROLE, ONE, b"x\n\n", *FRAMED[3:])
    assert bends.inserted(REPLY, WIRE, 1, b"x") == whole(200, b"x")
    assert bends.after_done(STREAM, WIRE, b"x") == (*FRAMED, b"x")
    assert bends.after_done(REPLY, WIRE, b"x") is REPLY


def test_drops_are_the_same_bytes() -> None:
    bent = bends.dripped((Wait(1), *STREAM), 3, 0.5)
    assert body_of(bent) == body_of(STREAM)
    assert all(len(step) <= 3 for step in bent if isinstance(step, bytes))
    assert bent[0] == Wait(1) and bent.count(Wait(0.5)) > 100


def test_only_the_head() -> None:
    assert bends.emptied(STREAM) == (HEAD,)
    assert bends.emptied(REPLY) == whole(200, b"")
    assert bends.frozen(STREAM, b":\n\n", 1, 2) == (HEAD, Wait(1), b":\n\n", Wait(1), b":\n\n", Hang())
    assert bends.broken(reset=True) == (Break(reset=True),)


def test_types_and_lengths_are_kept_right() -> None:
    bent = bends.typed((Wait(1), *REPLY), "text/odd", (("a", "b"),))
    assert bent[1] == Head(200, "text/odd", (("a", "b"),), len(body_of(REPLY)))
    assert bends.mapped((Wait(1), *REPLY), lambda data: data + b" ")[1:] == whole(200, body_of(REPLY) + b" ")
    assert bends.mapped((HEAD, b"a\n\n"), lambda data: data.upper()) == (HEAD, b"A\n\n")


def test_fields_can_be_edited_everywhere_or_left_out() -> None:
    assert bends.edited(STREAM, WIRE, lambda value: None if value["choices"] == [] else value) == (
        *FRAMED[:5],
        wires.DONE,
    )
    assert body_of(bends.edited(REPLY, WIRE, lambda value: {"a": value["usage"]})) == b'{"a":{"a":1}}'
    assert bends.edited(whole(200, b"[1]"), WIRE, lambda value: {}) == whole(200, b"[1]")


def test_fields_can_be_edited_in_one_place() -> None:
    bent = bends.edited_at(STREAM, WIRE, 1, lambda value: bends.with_text(value, "new"))
    assert [step == old for step, old in zip(bent, FRAMED, strict=True)] == [True] * 3 + [False] + [True] * 3
    assert b'"content":"new"' in body_of(bent[:4])
    assert b"new" in body_of(bends.edited_at(REPLY, WIRE, 1, lambda value: bends.with_text(value, "new")))


def test_members_are_found_at_any_depth() -> None:
    value = {"a": [{"b": 1, "c": {"b": 2}}]}
    assert bends.walk(value, lambda key, old: old + 1 if key == "b" else old) == {"a": [{"b": 2, "c": {"b": 3}}]}
    assert bends.without(value, frozenset({"b"})) == {"a": [{"c": {}}]}
    assert orjson.dumps(bends.with_text({"x": 1}, "new")) == b'{"x":1}'
