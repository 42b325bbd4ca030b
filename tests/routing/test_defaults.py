"""Parameters for callers who said nothing: what a caller said must survive, and what was added must be told."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.config.schema import Defaults
from app.core.messages import Message, TextPart
from app.core.request import Request
from app.routing.defaults import with_defaults
from app.wire.chat.outgoing import write_request
from app.wire.chat.request import read_request
from app.wire.codec import Limits
from tests.core.nouns import card, chat, terms

CARD = card("gpu/qwen")
TABLE = {
    "gpu/qwen": Defaults(temperature=0.2),
    "qwen": Defaults(temperature=0.4, max_tokens=512),
    "docs": Defaults(temperature=0.9, max_tokens=64, system="Be brief."),
}
HELLO = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}


def read(**fields: Any) -> Request:
    return read_request(orjson.dumps({**HELLO, **fields}), terms(), Limits())


def sent(request: Request) -> dict[str, Any]:
    """What an upstream would get."""
    body = orjson.loads(write_request(request, CARD).body)
    assert isinstance(body, dict)
    return body


def test_what_is_said_for_the_model_comes_before_what_is_said_for_the_task() -> None:
    request, applied = with_defaults(read(), CARD, "docs", TABLE)
    assert applied == ("temperature", "max_tokens", "system")
    assert (request.hints["temperature"], request.max_tokens) == (0.2, 512)
    assert request.messages[0] == Message("system", (TextPart("Be brief."),))


def test_upstreams_really_get_it() -> None:
    """A codec of the same dialect writes from the caller's own body."""
    body = sent(with_defaults(read(), CARD, "docs", TABLE)[0])
    assert (body["temperature"], body["max_tokens"]) == (0.2, 512)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("fields", "applied"),
    [
        ({"temperature": 0}, ("max_tokens", "system")),
        ({"max_tokens": 9}, ("temperature", "system")),
        ({"max_completion_tokens": 9}, ("temperature", "system")),
        ({"messages": [{"role": "developer", "content": "x"}, *HELLO["messages"]]}, ("temperature", "max_tokens")),
        ({"temperature": None, "max_completion_tokens": None}, ("temperature", "max_tokens", "system")),
    ],
)
def test_what_the_caller_said_is_never_changed(fields: dict[str, Any], applied: tuple[str, ...]) -> None:
    """Zero is something said; null is nothing."""
    before = read(**fields)
    request, names = with_defaults(before, CARD, "docs", TABLE)
    assert names == applied
    said = sent(request)
    for name, value in fields.items():
        if value is not None and name != "messages":
            assert said[name] == value
    assert before.body == {**HELLO, **fields}


def test_a_default_never_asks_for_more_than_the_model_can_say() -> None:
    request, _ = with_defaults(read(), card("gpu/qwen", max_output=100), None, TABLE)
    assert (request.max_tokens, request.body["max_tokens"]) == (100, 100)


def test_a_null_beside_the_default_does_not_undo_it() -> None:
    request, _ = with_defaults(read(max_completion_tokens=None), CARD, None, TABLE)
    assert sent(request)["max_tokens"] == 512


def test_a_filled_in_system_message_counts_for_the_window() -> None:
    request = read()
    assert with_defaults(request, CARD, "docs", TABLE)[0].input_bytes == request.input_bytes + len("Be brief.")


@pytest.mark.parametrize("task", [None, "code"])
def test_nothing_said_for_it_leaves_the_request_as_it_is(task: str | None) -> None:
    request = read()
    assert with_defaults(request, card("gpu/other"), task, TABLE) == (request, ())
    silent = {"gpu/qwen": Defaults()}
    assert with_defaults(request, CARD, task, silent)[0] is request


def test_other_dialects_are_left_alone() -> None:
    """What cannot be written into the body is not claimed either."""
    request = chat(dialect="messages")
    assert with_defaults(request, CARD, "docs", TABLE) == (request, ())
