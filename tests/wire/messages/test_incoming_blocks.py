"""Blocks as clients of the Messages API send them: each mistake is named by its place."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import GatewayError, InvalidValue, UnsupportedParameter
from app.core.messages import MediaPart, TextPart, ThinkingPart, ToolResultPart, ToolUsePart
from app.wire.messages.incoming_blocks import read_blocks

ALL = frozenset(
    {"text", "image", "document", "search_result", "tool_use", "tool_result", "thinking", "redacted_thinking"}
)
HOUR = {"type": "ephemeral", "ttl": "1h"}


def source(**fields: Any) -> dict[str, Any]:
    return fields


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ({"type": "text", "text": "a", "cache_control": HOUR, "citations": None}, TextPart("a", "1h")),
        (
            {"type": "image", "source": source(type="base64", media_type="image/png", data="AA==")},
            MediaPart("image", "image/png", "AA=="),
        ),
        ({"type": "image", "source": source(type="url", url="https://e.com")}, MediaPart("image", url="https://e.com")),
        ({"type": "image", "source": source(type="file", file_id="file_1")}, MediaPart("image", file_id="file_1")),
        (
            {
                "type": "document",
                "title": "t",
                "source": source(type="base64", media_type="application/pdf", data="AA=="),
            },
            MediaPart("file", "application/pdf", "AA==", filename="t"),
        ),
        (
            {"type": "document", "source": source(type="text", media_type="text/plain", data="ü")},
            MediaPart("file", "text/plain", base64.b64encode("ü".encode()).decode()),
        ),
        (
            {"type": "document", "source": source(type="content", content=[{"type": "text", "text": "a"}])},
            MediaPart("file", "text/plain", "YQ=="),
        ),
        (
            {"type": "document", "source": source(type="url", url="https://e.com")},
            MediaPart("file", url="https://e.com"),
        ),
        (
            {"type": "search_result", "title": "T", "source": "S", "content": [{"type": "text", "text": "a"}]},
            TextPart("T\nS\na"),
        ),
        ({"type": "tool_use", "id": "x", "name": "f", "input": {"a": 1}}, ToolUsePart("x", "f", '{"a":1}')),
        ({"type": "tool_result", "tool_use_id": "x"}, ToolResultPart("x", ())),
        (
            {"type": "tool_result", "tool_use_id": "x", "content": "r", "is_error": True, "cache_control": HOUR},
            ToolResultPart("x", (TextPart("r"),), is_error=True, cache="1h"),
        ),
        ({"type": "thinking", "thinking": "hm", "signature": "s"}, ThinkingPart("hm", "s")),
        ({"type": "thinking", "thinking": "hm", "signature": ""}, ThinkingPart("hm")),
        ({"type": "redacted_thinking", "data": "d"}, ThinkingPart("", redacted="d")),
    ],
)
def test_blocks(block: dict[str, Any], part: object) -> None:
    assert read_blocks([block], "content", ALL) == [part]


def test_a_string_is_one_text() -> None:
    assert read_blocks("Hi", "content", ALL) == [TextPart("Hi")]


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (None, "c"),
        (3, "c"),
        (["x"], "c[0]"),
        ([{}], "c[0].type"),
        ([{"type": "hologram"}], "c[0].type"),
        ([{"type": ["text"]}], "c[0].type"),
        ([{"type": "text"}], "c[0].text"),
        ([{"type": "text", "text": "a", "cache_control": "1h"}], "c[0].cache_control"),
        ([{"type": "image"}], "c[0].source"),
        ([{"type": "image", "source": {}}], "c[0].source.type"),
        ([{"type": "image", "source": {"type": "text"}}], "c[0].source.type"),
        ([{"type": "image", "source": {"type": "base64", "data": "A"}}], "c[0].source.media_type"),
        ([{"type": "image", "source": {"type": "url"}}], "c[0].source.url"),
        ([{"type": "document", "source": {"type": "file"}}], "c[0].source.file_id"),
        ([{"type": "document", "source": {"type": "base64", "media_type": "x"}}], "c[0].source.media_type"),
        (
            [{"type": "document", "source": {"type": "content", "content": [{"type": "image"}]}}],
            "c[0].source.content[0].type",
        ),
        ([{"type": "tool_use", "id": "x", "name": "f", "input": "{}"}], "c[0].input"),
        ([{"type": "tool_result", "tool_use_id": "x", "content": [{"type": "tool_use"}]}], "c[0].content[0].type"),
        ([{"type": "tool_result", "tool_use_id": ""}], "c[0].tool_use_id"),
        ([{"type": "thinking", "thinking": "a"}], "c[0].signature"),
    ],
)
def test_mistakes_are_named_by_their_place(content: Any, param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_blocks(content, "c", ALL)
    assert caught.value.param == param


@pytest.mark.parametrize("kind", ["server_tool_use", "web_search_tool_result"])
def test_tools_that_run_elsewhere_are_refused(kind: str) -> None:
    """Passed over silently, the model would not see what it found."""
    with pytest.raises(UnsupportedParameter) as caught:
        read_blocks([{"type": kind}], "c", ALL)
    assert caught.value.param == "c[0].type"


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["type", "text", "source", "content", "input", "id", "name", "tool_use_id", "thinking"]),
            st.sampled_from(sorted(ALL))
            | st.recursive(
                st.none() | st.booleans() | st.text(max_size=3),
                lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
                max_leaves=5,
            ),
            max_size=5,
        ),
        max_size=3,
    )
)
def test_nonsense_is_always_a_named_mistake(content: list[Any]) -> None:
    try:
        read_blocks(content, "c", ALL)
    except GatewayError as error:
        assert error.param and error.param.startswith("c")
