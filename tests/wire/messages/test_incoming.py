"""Requests to `/v1/messages`: all a client says arrives in the neutral nouns, and what is wrong is named."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.core.card import Ability
from app.core.errors import GatewayError, InvalidJson, InvalidValue, RequestTooLarge, UnsupportedParameter
from app.core.messages import Format, Message, TextPart, Tool, ToolChoice, ToolResultPart
from app.core.request import Request
from app.wire.codec import Limits
from app.wire.messages.incoming import read_request
from tests.wire.messages_cases import TERMS, call, said

LEAST: dict[str, Any] = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


def request(**fields: Any) -> Request:
    return read_request(orjson.dumps({**LEAST, **fields}), TERMS, Limits())


def test_the_least_request() -> None:
    made = request()
    assert made.messages == (said("user", "Hi"),)
    assert (made.model, made.max_tokens, made.stream, made.dialect) == ("auto", 9, False, "messages")
    assert (made.body, made.include_usage, made.input_bytes) == (LEAST, True, 2)
    assert made.needs == {Ability.CHAT}


def test_the_system_prompt_is_the_first_message() -> None:
    assert request(system="Be kind.").messages[0] == said("system", "Be kind.")
    blocks = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}]
    assert request(system=blocks).messages[0] == Message("system", (TextPart("a", "5m"), TextPart("b")))
    assert request(system=[]).messages == (said("user", "Hi"),)
    turns = [*LEAST["messages"], {"role": "system", "content": "Now in French."}]
    assert request(messages=turns).messages[1] == said("system", "Now in French.")


def test_results_are_messages_of_their_own_before_what_the_user_says() -> None:
    """Other upstreams know results only as messages of the tool."""
    content = [
        {"type": "tool_result", "tool_use_id": "x", "content": "1"},
        {"type": "tool_result", "tool_use_id": "y"},
        {"type": "text", "text": "and?"},
    ]
    use = [{"type": "tool_use", "id": "x", "name": "f", "input": {}}]
    made = request(messages=[{"role": "assistant", "content": use}, {"role": "user", "content": content}])
    assert made.messages == (
        said("assistant", call("x")),
        Message("tool", (ToolResultPart("x", (TextPart("1"),)), ToolResultPart("y", ()))),
        said("user", "and?"),
    )
    assert Ability.TOOLS in made.needs
    alone = request(messages=[{"role": "user", "content": content[:1]}])
    assert [message.role for message in alone.messages] == ["tool"]


def test_tools_and_choice() -> None:
    tools = [
        {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": True},
        {"name": "g", "type": "custom", "input_schema": {}, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]
    made = request(tools=tools, tool_choice={"type": "tool", "name": "g", "disable_parallel_tool_use": True})
    assert made.tools == (Tool("f", "d", {"type": "object"}, True), Tool("g", None, {}, cache="1h"))
    assert (made.tool_choice, made.parallel_tool_calls) == (ToolChoice("named", ("g",)), False)
    assert made.needs == {Ability.CHAT, Ability.TOOLS, Ability.FORCED_TOOLS}
    for kind, mode in (("auto", "auto"), ("any", "required"), ("none", "none")):
        made = request(tools=tools, tool_choice={"type": kind})
        assert (made.tool_choice, made.parallel_tool_calls) == (ToolChoice(mode), None)


def test_thinking_effort_and_format() -> None:
    assert request(thinking={"type": "enabled", "budget_tokens": 2_000}).effort == "low"
    assert request(thinking={"type": "adaptive"}, output_config={"effort": "max"}).effort == "max"
    assert request(thinking={"type": "disabled"}).effort == "none"
    made = request(output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}})
    assert made.format == Format("json_schema", {"type": "object"})
    assert Ability.JSON_SCHEMA in made.needs


def test_hints_have_their_openai_names() -> None:
    made = request(
        temperature=0.5,
        top_p=1,
        top_k=3,
        metadata={"user_id": "u"},
        service_tier="standard_only",
        stop_sequences=["END"],
        container="c",
        inference_geo=None,
    )
    assert made.hints == {"temperature": 0.5, "top_p": 1, "top_k": 3, "user": "u", "service_tier": "default"}
    assert (made.stop, made.extra) == (("END",), {"container": "c"})
    assert Ability.STOP in made.needs


def test_a_last_word_of_the_assistant_is_a_prefill() -> None:
    turns = [*LEAST["messages"], {"role": "assistant", "content": "The"}]
    assert Ability.PREFILL in request(messages=turns).needs


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [3]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use"}]}]}, "messages[0].content[0].type"),
        ({"messages": LEAST["messages"] * 3}, "messages"),
        ({"system": 3}, "system"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"stream": "yes"}, "stream"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": [1]}, "stop_sequences"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"name": "f", "input_schema": {}}] * 3}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"thinking": {"type": "hard"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": "1"}}, "thinking.budget_tokens"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"temperature": 2}, "temperature"),
        ({"metadata": {"user_id": 3}}, "metadata.user_id"),
        ({"service_tier": "flex"}, "service_tier"),
    ],
)
def test_mistakes_are_named_by_their_place(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_request(orjson.dumps({**LEAST, **fields}), TERMS, Limits(messages=2, tools=2))
    assert caught.value.param == param


def test_tools_that_run_elsewhere_are_refused() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        request(tools=[{"type": "web_search_20250305", "name": "web_search"}])
    assert caught.value.param == "tools[0].type"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", InvalidJson),
        (b"[]", InvalidValue),
        (b'{"a":' * 100 + b"1" + b"}" * 100, InvalidJson),
        (b" " * 101, RequestTooLarge),
    ],
)
def test_bodies_that_are_none(body: bytes, error: type[GatewayError]) -> None:
    limits = Limits(body_bytes=100) if error is RequestTooLarge else Limits()
    with pytest.raises(error):
        read_request(body, TERMS, limits)
