"""Requests of millions of tiny pieces: each dialect refuses them before it makes objects of them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import orjson
import pytest

from app.core.errors import InvalidValue
from app.wire import chat, ollama
from app.wire.bounds import MAX_CALLS, MAX_PARTS, check_pieces
from app.wire.codec import Limits
from app.wire.messages import incoming
from tests.wire.messages_cases import TERMS

TEXT = {"type": "text", "text": "a"}
USE = {"type": "tool_use", "id": "1", "name": "f", "input": {}}


def result(*content: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "1", "content": list(content)}


def document(*content: Any) -> dict[str, Any]:
    return {"type": "document", "source": {"type": "content", "content": list(content)}}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"content": [TEXT] * (MAX_PARTS + 1)}], "messages[0].content"),
        ([{"content": [TEXT] * MAX_PARTS}, "rubbish", {"content": [TEXT]}], "messages[2].content"),
        ([{"images": ["x"] * (MAX_PARTS + 1)}], "messages[0].images"),
        ([{"content": "", "thinking_blocks": [{}] * (MAX_PARTS + 1)}], "messages[0].thinking_blocks"),
        ([{"content": [result(*[TEXT] * MAX_PARTS)]}], "messages[0].content"),
        ([{"content": [result(document(*[TEXT] * MAX_PARTS))]}], "messages[0].content"),
        ([{"content": [1, *[USE] * (MAX_CALLS + 1)]}], "messages[0].content"),
        ([{"tool_calls": [{}] * (MAX_CALLS + 1)}], "messages[0].tool_calls"),
    ],
)
def test_too_many_pieces_are_refused_by_their_place(messages: list[Any], param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        check_pieces(messages)
    assert caught.value.param == param


def test_the_system_prompt_counts() -> None:
    with pytest.raises(InvalidValue) as caught:
        check_pieces([{"content": [TEXT]}], [TEXT] * MAX_PARTS)
    assert caught.value.param == "messages[0].content"
    with pytest.raises(InvalidValue) as caught:
        check_pieces([], [TEXT] * (MAX_PARTS + 1))
    assert caught.value.param == "system"


@pytest.mark.parametrize(
    "message",
    [
        {"content": [TEXT] * MAX_PARTS},
        {"content": [USE] * MAX_CALLS, "tool_calls": [{}] * MAX_CALLS},
        {"content": [result(document(*[TEXT] * 9)), 7], "tool_calls": "rubbish"},
    ],
)
def test_as_many_as_are_allowed_pass(message: dict[str, Any]) -> None:
    check_pieces([message])


@pytest.mark.parametrize(
    ("dialect", "fields", "param"),
    [
        (chat, {"content": [7] * (MAX_PARTS + 1)}, "messages[0].content"),
        (incoming, {"content": [7] * (MAX_PARTS + 1)}, "messages[0].content"),
        (ollama, {"images": [7] * (MAX_PARTS + 1)}, "messages[0].images"),
    ],
)
def test_every_dialect_counts_first(dialect: ModuleType, fields: dict[str, Any], param: str) -> None:
    """What is wrong with the single pieces would be found first, had they been read."""
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", **fields}]}
    with pytest.raises(InvalidValue) as caught:
        dialect.read_request(orjson.dumps(body), TERMS, Limits())
    assert caught.value.param == param
