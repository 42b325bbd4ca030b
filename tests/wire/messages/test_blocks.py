"""Single content blocks: what one of them gets wrong, the API refuses with the whole conversation."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidValue, UnsupportedParameter
from app.core.messages import MediaPart, TextPart, ThinkingPart, Tool, ToolUsePart
from app.wire.messages.blocks import (
    MAX_STRICT_TOOLS,
    Markers,
    ToolIds,
    media_block,
    text_blocks,
    thinking_block,
    tool_blocks,
    tool_use_block,
    ttl_of,
)

TEXT = base64.b64encode("Grüße".encode()).decode()


@given(st.lists(st.text(max_size=4) | st.sampled_from(["a.b", "a_b", "a_b_2", "toolu_01A"]), max_size=12))
def test_tool_ids_are_plain_unique_and_lead_back(originals: list[str]) -> None:
    """Two calls under one id would get each other's results."""
    ids = ToolIds(originals)
    safe = [ids.safe(original) for original in originals]
    assert len(set(safe)) == len(safe)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", each) for each in safe)
    assert [ids.originals.get(each, each) for each in safe] == originals


@given(st.lists(st.from_regex(r"toolu_[a-zA-Z0-9]{3}", fullmatch=True), unique=True, max_size=5), st.text(max_size=9))
def test_claudes_own_ids_pass_unchanged(own: list[str], other: str) -> None:
    """Whatever else needs a new id, thinking stays bound to the calls it was made with."""
    ids = ToolIds([other, *own])
    ids.safe(other)
    assert [ids.safe(each) for each in own if each != other] == [each for each in own if each != other]


def test_the_last_four_markers_are_kept_and_the_long_ones_come_first() -> None:
    """A fifth marker, or an hour behind five minutes, is a 400."""
    markers = Markers()
    blocks = text_blocks([TextPart(str(n), cache=ttl) for n, ttl in enumerate(["5m", "1h", "1h", "5m", "1h"])], markers)
    blocks += text_blocks([TextPart("plain")], markers)
    markers.settle()
    five, hour = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
    assert [block.get("cache_control") for block in blocks] == [None, hour, hour, five, five, None]


@pytest.mark.parametrize(
    ("control", "ttl"),
    [({}, "5m"), ({"ttl": "5m"}, "5m"), ({"ttl": "30m"}, "1h"), ({"ttl": "1h"}, "1h"), (None, None), ("1h", None)],
)
def test_ttl_of(control: object, ttl: str | None) -> None:
    assert ttl_of(control) == ttl


def test_blank_texts_are_dropped() -> None:
    assert text_blocks([TextPart(""), TextPart(" \n"), TextPart(" a ")], Markers()) == [{"type": "text", "text": " a "}]


def test_thinking_of_others_is_dropped() -> None:
    """Without Claude's signature it would be refused."""
    assert thinking_block(ThinkingPart("hm")) is None
    assert thinking_block(ThinkingPart("", "s")) == {"type": "thinking", "thinking": "", "signature": "s"}
    assert thinking_block(ThinkingPart("", redacted="d")) == {"type": "redacted_thinking", "data": "d"}


@pytest.mark.parametrize(("arguments", "given"), [("", {}), (" ", {}), ('{"a":1}', {"a": 1})])
def test_arguments_become_objects(arguments: str, given: dict[str, int]) -> None:
    assert tool_use_block(ToolUsePart("x", "f", arguments), "x", "p")["input"] == given


@pytest.mark.parametrize("arguments", ["{", "[]", "1", '{"a":' * 100 + "1" + "}" * 100])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        tool_use_block(ToolUsePart("x", "f", arguments), "x", "messages[3]")
    assert caught.value.param == "messages[3]"


def test_custom_tools_are_refused() -> None:
    with pytest.raises(UnsupportedParameter):
        tool_use_block(ToolUsePart("x", "f", "free", custom=True), "x", "p")
    with pytest.raises(UnsupportedParameter):
        tool_blocks([Tool("f", custom=True)], Markers(), schema=True)


@pytest.mark.parametrize(
    ("part", "source"),
    [
        (MediaPart("image", "image/JPG", "AA=="), {"type": "base64", "media_type": "image/jpeg", "data": "AA=="}),
        (MediaPart("image", url="https://e.com/a.png"), {"type": "url", "url": "https://e.com/a.png"}),
        (MediaPart("image", file_id="file_01"), {"type": "file", "file_id": "file_01"}),
        (
            MediaPart("file", "application/pdf", "AA=="),
            {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
        ),
        (
            MediaPart("file", None, "AA==", filename="a.PDF"),
            {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
        ),
        (MediaPart("file", "text/markdown", TEXT), {"type": "text", "media_type": "text/plain", "data": "Grüße"}),
        (
            MediaPart("file", None, TEXT, filename="a.csv"),
            {"type": "text", "media_type": "text/plain", "data": "Grüße"},
        ),
        (MediaPart("file", url="http://e.com/a.pdf"), {"type": "url", "url": "http://e.com/a.pdf"}),
        (MediaPart("file", "image/png", "AA=="), {"type": "base64", "media_type": "image/png", "data": "AA=="}),
    ],
)
def test_media(part: MediaPart, source: dict[str, str]) -> None:
    assert media_block(part, "p")["source"] == source


def test_a_file_keeps_its_name() -> None:
    assert media_block(MediaPart("file", "application/pdf", "AA==", filename="a.pdf"), "p")["title"] == "a.pdf"


@pytest.mark.parametrize(
    "part",
    [
        MediaPart("audio", "audio/wav", "AA=="),
        MediaPart("image", "image/tiff", "AA=="),
        MediaPart("image", None, "AA=="),
        MediaPart("image", url="ftp://e.com/a"),
        MediaPart("file", file_id="file-of-openai"),
        MediaPart("file", "application/zip", "AA=="),
        MediaPart("file", None, "AA=="),
    ],
)
def test_media_that_cannot_be_read_is_refused(part: MediaPart) -> None:
    """Another model may read it: left out silently, the answer would be about something else."""
    with pytest.raises(UnsupportedParameter) as caught:
        media_block(part, "messages[0].content[1]")
    assert caught.value.param == "messages[0].content[1]"


@pytest.mark.parametrize("data", ["A", base64.b64encode(b"\xff").decode()])
def test_a_text_file_must_be_text(data: str) -> None:
    with pytest.raises(InvalidValue):
        media_block(MediaPart("file", "text/plain", data), "p")


def test_tools() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "null"}}}
    markers = Markers()
    blocks = tool_blocks([Tool("f", "Does.", schema, cache="1h"), Tool("g")], markers, schema=True)
    markers.settle()
    hour = {"type": "ephemeral", "ttl": "1h"}
    assert blocks == [
        {"name": "f", "description": "Does.", "input_schema": schema, "cache_control": hour},
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
    ]


def test_strict_tools_are_held_to_their_schema_where_that_is_possible() -> None:
    tool = Tool("f", schema={"properties": {"a": {"type": "integer", "minimum": 1}}}, strict=True)
    (block,) = tool_blocks([tool], Markers(), schema=True)
    assert block["strict"] is True
    assert block["input_schema"]["additionalProperties"] is False
    (block,) = tool_blocks([tool], Markers(), schema=False)
    assert "strict" not in block and block["input_schema"]["properties"]["a"]["minimum"] == 1
    assert not any("strict" in block for block in tool_blocks([tool] * (MAX_STRICT_TOOLS + 1), Markers(), schema=True))


def test_a_tool_whose_parameters_are_no_object_is_refused() -> None:
    with pytest.raises(InvalidValue) as caught:
        tool_blocks([Tool("f", schema={"type": "array"})], Markers(), schema=True)
    assert caught.value.param == "tools[0]"
