from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.core.errors import GatewayError, InvalidJson, InvalidValue, RequestTooLarge
from app.wire.fields import (
    TooDeep,
    integer,
    nonempty,
    number,
    objects,
    one_of,
    optional,
    parse,
    parse_body,
    required,
    token_count,
    usable_name,
)


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"", InvalidJson, "not valid JSON"),
        (b"{", InvalidJson, "not valid JSON"),
        (b'{"a": NaN}', InvalidJson, "not valid JSON"),
        (b'{"a": "\xff"}', InvalidJson, "not valid JSON"),
        (b'{"a": "\\ud800"}', InvalidJson, "not valid JSON"),
        (b"[1]", InvalidValue, "JSON object"),
        (b"null", InvalidValue, "JSON object"),
        (b'{"a": ' + b"[" * 9 + b"]" * 9 + b"}", InvalidJson, "deeper than 8"),
        (b"[" * 900_000, InvalidJson, "not valid JSON"),
        (b" " * 2_000_000, RequestTooLarge, "at most 1000000"),
    ],
)
def test_a_broken_body_is_refused_in_words(body: bytes, kind: type[GatewayError], words: str) -> None:
    with pytest.raises(kind, match=words):
        parse_body(body, 1_000_000, 8)


def test_the_later_of_two_equal_keys_counts() -> None:
    assert parse_body(b'{"a": 1, "a": 2}', 100, 8) == {"a": 2}


def test_depth_is_counted_and_not_brackets() -> None:
    assert parse(b"[" + b"[]," * 50 + b"{}]", 2)
    assert parse(b'"[[[[[["', 2) == "[[[[[["
    with pytest.raises(TooDeep):
        parse(b'[[], {"a": [1]}]', 2)


@pytest.mark.parametrize("padding", [10, 10_000])
@pytest.mark.parametrize("pair", [b"[]", b'{"a":}'])
def test_depth_is_bounded_in_short_and_in_long_bodies(padding: int, pair: bytes) -> None:
    """What is nested without bounds overflows whoever walks it."""
    start, end = pair[:-1], pair[-1:]
    for depth, levels in ((9, 8), (8, 8), (7, 8)):
        nested = b'["%s", %s"x"%s]' % (b"x" * padding, start * (levels - 1), end * (levels - 1))
        if levels > depth:
            with pytest.raises(TooDeep):
                parse(nested, depth)
        else:
            assert parse(nested, depth)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: required({}, "x", str, "a."),
        lambda: required({"x": 1}, "x", str, "a."),
        lambda: optional({"x": 1}, "x", dict, "a."),
        lambda: optional({"x": 1}, "x", bool, "a."),
        lambda: nonempty({"x": ""}, "x", "a."),
        lambda: integer({"x": True}, "x", 0, 9, "a."),
        lambda: integer({"x": 1.0}, "x", 0, at="a."),
        lambda: integer({"x": 10}, "x", 0, 9, "a."),
        lambda: integer({"x": -1}, "x", 0, at="a."),
        lambda: number({"x": "1"}, "x", 0, 1, "a."),
        lambda: number({"x": 1.01}, "x", 0, 1, "a."),
        lambda: number({"x": False}, "x", 0, 1, "a."),
        lambda: one_of({"x": "c"}, "x", frozenset("ab"), "a."),
        lambda: one_of({"x": []}, "x", frozenset("ab"), "a."),
    ],
)
def test_every_wrong_type_names_its_field(wrong: Callable[[], object]) -> None:
    with pytest.raises(InvalidValue, match=r"'a\.x'") as caught:
        wrong()
    assert caught.value.param == "a.x"


def test_null_counts_as_absent() -> None:
    fields: dict[str, Any] = {"x": None}
    assert optional(fields, "x", str) is None
    assert integer(fields, "x", 0) is None
    assert number(fields, "x", 0, 1) is None
    assert one_of(fields, "x", frozenset("ab")) is None


def test_items_of_an_array_know_their_place() -> None:
    assert objects([{"a": 1}], "tools") == [("tools[0]", {"a": 1})]
    with pytest.raises(InvalidValue) as caught:
        objects([{}, 3], "tools")
    assert caught.value.param == "tools[1]"


@pytest.mark.parametrize(("said", "count"), [(0, 0), (10**12, 10**12), (10**12 + 1, None), (-1, None), (True, None)])
def test_only_counts_that_can_be_true_are_believed(said: Any, count: int | None) -> None:
    assert token_count({"n": said}, "n") == count
    assert token_count([said], "n") is None


@pytest.mark.parametrize(("name", "usable"), [("a" * 512, True), ("a" * 513, False), ("", False), ("a\0", False)])
def test_names_that_cannot_travel_are_none(name: str, usable: bool) -> None:
    assert usable_name(name) == (name if usable else None)
