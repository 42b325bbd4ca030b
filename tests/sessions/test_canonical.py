"""Too strict, and a client that sends all its history is answered to a doubled one; too lax, and its edits are lost."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sessions.canonical import digest

Json = dict[str, Any]


def call(arguments: Any, **more: Any) -> Json:
    inner = {"name": "read", "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": inner, **more}]}


def text(content: Any, role: str = "user", **more: Any) -> Json:
    return {"role": role, "content": content, **more}


IMAGE: Json = {"type": "image_url", "image_url": {"url": "https://x/a.png"}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (text("hi"), text([{"type": "text", "text": "hi"}])),
        (text("hi"), text([{"type": "text", "text": "h"}, {"type": "text", "text": "i"}])),
        (text("hi"), text([{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}], name=None)),
        (text("hi"), text("hi", refusal=None, tool_calls=None, function_call=None, audio=None)),
        (text("hi", "assistant", reasoning_content="hm", thinking_blocks=[{}]), text("hi", "assistant")),
        (text("hi", "assistant", annotations=[]), text("hi", "assistant")),
        (text("hi", "system"), text("hi", "developer")),
        (call('{"a": 1, "b": [2]}'), call('{"b":[2],"a":1}')),
        (call("{}"), call("")),
        (call("{}"), {**call("{}"), "content": ""}),
        (call("{}"), {**call("{}"), "content": None}),
        (text(["x", IMAGE]), text(["x", {**IMAGE, "image_url": {**IMAGE["image_url"], "detail": None}}])),
    ],
)
def test_the_same_in_other_clothes(one: Json, other: Json) -> None:
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (text("hi"), text("hi ")),
        (text("hi"), text("hi", "assistant")),
        (text("hi"), text("hi", name="bob")),
        (text("hi"), text(["hi", IMAGE])),
        (text([IMAGE, "hi"]), text(["hi", IMAGE])),
        (call('{"a": 1}'), call('{"a": 2}')),
        (call("{"), call("{}")),
        (call("{}"), call("{}", id="c2")),
        (call("{}"), text("", "assistant")),
        (text("x", "tool", tool_call_id="a"), text("x", "tool", tool_call_id="b")),
        (text("x", "assistant", refusal="no"), text("x", "assistant")),
        (
            text(None, "assistant", function_call={"name": "f", "arguments": "{}"}),
            text(None, "assistant", function_call={"name": "g", "arguments": "{}"}),
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "custom": {"name": "f", "input": "a"}}]},
            {"role": "assistant", "tool_calls": [{"id": "c", "custom": {"name": "f", "input": "b"}}]},
        ),
    ],
)
def test_other_words(one: Json, other: Json) -> None:
    assert digest(one) != digest(other)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["role", "content", "tool_calls", "function_call", "name", "refusal", "type", "text", "id"])
WEIRD = st.dictionaries(FIELDS, JSON | st.lists(st.dictionaries(FIELDS, JSON, max_size=3), max_size=3), max_size=5)


@given(WEIRD)
def test_any_object_has_a_digest(message: Json) -> None:
    """What is strange must not turn into an error of ours."""
    assert digest(message) == digest(orjson.loads(orjson.dumps(message)))


def test_arguments_of_any_depth() -> None:
    deep = "[" * 900 + "]" * 900
    assert digest(call(deep)) == digest(call(deep)) != digest(call("[" * 901 + "]" * 901))
