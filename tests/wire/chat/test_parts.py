from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidValue
from app.core.messages import MediaPart, RefusalPart, TextPart
from app.wire.chat.parts import READERS, cache_of, data_uri, read_parts

ALL = frozenset(READERS)


@pytest.mark.parametrize(
    ("part", "read"),
    [
        ({"type": "text", "text": "hi"}, TextPart("hi")),
        ({"type": "text", "text": ""}, TextPart("")),
        ({"type": "refusal", "refusal": "no"}, RefusalPart("no")),
        (
            {"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "low"}},
            MediaPart("image", url="https://x.example/a.png", detail="low"),
        ),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            MediaPart("image", "image/png", "AAAA"),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
            MediaPart("audio", "audio/wav", "AA"),
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}},
            MediaPart("file", "application/pdf", "JVBE", filename="a.pdf"),
        ),
        (
            {"type": "file", "file": {"file_data": "JVBE", "filename": "a.pdf"}},
            MediaPart("file", "application/pdf", "JVBE", filename="a.pdf"),
        ),
        ({"type": "file", "file": {"file_id": "file-1"}}, MediaPart("file", file_id="file-1")),
    ],
)
def test_each_part_is_understood(part: dict[str, Any], read: Any) -> None:
    assert read_parts([part], "c", ALL) == [read]


@pytest.mark.parametrize(
    ("uri", "media_type", "data"),
    [
        ("data:image/png;base64,AAAA", "image/png", "AAAA"),
        ("DATA:image/PNG;charset=utf-8;BASE64,AAAA", "image/png", "AAAA"),
        ("data:image/png;name=a%20b.png;base64,AA%3D%3D", "image/png", "AA=="),
        ("data:image/png;base64,%2B%2fA%0d%0AA", "image/png", "+/AA"),
        ("data:;base64,AAAA", None, "AAAA"),
    ],
)
def test_data_urls_with_any_parameters(uri: str, media_type: str | None, data: str) -> None:
    assert data_uri(uri, "x") == (media_type, data)


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ("text", "c[0]"),
        ({}, "c[0].type"),
        ({"type": ["text"]}, "c[0].type"),
        ({"type": "video_url"}, "c[0].type"),
        ({"type": "text"}, "c[0].text"),
        ({"type": "text", "text": 1}, "c[0].text"),
        ({"type": "text", "text": "a", "cache_control": "x"}, "c[0].cache_control"),
        ({"type": "text", "text": "a", "cache_control": {"ttl": 5}}, "c[0].cache_control.ttl"),
        ({"type": "image_url", "image_url": "https://x.example"}, "c[0].image_url"),
        ({"type": "image_url", "image_url": {"url": 1}}, "c[0].image_url.url"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "c[0].image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:image/png"}}, "c[0].image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:;base64,AA"}}, "c[0].image_url.url"),
        ({"type": "image_url", "image_url": {"url": "https://x", "detail": 1}}, "c[0].image_url.detail"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,a%20b"}}, "c[0].image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,%41"}}, "c[0].image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,%0A"}}, "c[0].image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:" + ";" * 600 + "base64,AA"}}, "c[0].image_url.url"),
        ({"type": "input_audio", "input_audio": {"data": "AA"}}, "c[0].input_audio.format"),
        ({"type": "file", "file": {"filename": "a.pdf"}}, "c[0].file"),
        ({"type": "file", "file": {"file_data": "data:x,"}}, "c[0].file.file_data"),
    ],
)
def test_a_wrong_part_is_named(part: Any, param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_parts([part], "c", ALL)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "uri",
    ["data:" + ";" * 8_000_000, "data:text/plain," + "%41" * 2_000_000, "data:x;base64," + "%" * 8_000_000],
)
def test_a_hostile_data_url_is_refused_without_being_taken_apart(uri: str) -> None:
    """One request would else fill the memory with millions of little objects."""
    tracemalloc.start()
    try:
        with pytest.raises(InvalidValue):
            data_uri(uri, "x")
        assert tracemalloc.get_traced_memory()[1] < 3 * len(uri)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("marker", "cache"),
    [
        ({}, None),
        ({"cache_control": None}, None),
        ({"cache_control": {"type": "ephemeral"}}, "5m"),
        ({"cache_control": {"type": "ephemeral", "ttl": "5m"}}, "5m"),
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, "1h"),
        ({"prompt_cache_breakpoint": {"mode": "explicit"}}, "5m"),
        ({"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}}, "1h"),
        ({"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}, "1h"),
    ],
)
def test_both_kinds_of_cache_markers(marker: dict[str, Any], cache: str | None) -> None:
    assert cache_of(marker, "") == cache


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "data:", "data:,", "https://x", "a"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["url", "detail", "data", "format", "file_id", "file_data", "ttl"]), inner)
    ),
    max_leaves=6,
)


@given(st.sampled_from(sorted(ALL)), st.dictionaries(st.sampled_from([*sorted(ALL), "cache_control"]), JSON))
def test_no_part_can_break_us(kind: str, fields: dict[str, Any]) -> None:
    try:
        read_parts([{**fields, "type": kind}], "c", ALL)
    except InvalidValue as error:
        assert error.param and error.param.startswith("c[0]")
