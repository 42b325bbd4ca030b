from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from app.core.card import Ability
from app.core.errors import InvalidValue, UnsupportedParameter
from app.core.messages import (
    Format,
    MediaPart,
    Message,
    RefusalPart,
    TextPart,
    ThinkingPart,
    Tool,
    ToolChoice,
    ToolResultPart,
    ToolUsePart,
)
from app.wire import ollama
from tests.wire.ollama_cases import ask, card, user, written

CALL = ToolUsePart("call_1", "weather", '{"city": "Köln"}')


def test_the_window_is_told_and_cutting_forbidden_on_every_call() -> None:
    """Else Ollama loads its small default window and drops the oldest messages without a word."""
    body = written(ask())
    assert body == {
        "model": "rnj-1",
        "messages": [{"role": "user", "content": "What is it?"}],
        "stream": True,
        "truncate": False,
        "shift": False,
        "options": {"num_ctx": 4096},
    }
    assert "num_ctx" not in written(ask(), card(None))["options"]


def test_a_conversation_is_written_whole() -> None:
    """Text, images, thinking, calls and results of every turn reach the model, with the tool's name at its result."""
    body = written(
        ask(
            Message("developer", (TextPart("Be "), TextPart("brief."))),
            Message("user", (TextPart("Look"), MediaPart("image", "image/png", "iVBORw0="))),
            Message("assistant", (ThinkingPart("Hm."), TextPart("Wait"), RefusalPart("!"), CALL)),
            Message(
                "tool",
                (
                    ToolResultPart("call_1", (TextPart("rain"), MediaPart("image", "image/png", "iVBORw1="))),
                    ToolResultPart("call_x", (TextPart("?"),)),
                ),
            ),
            Message("user", (ToolResultPart("call_1", (TextPart("sun"),)), TextPart("So?"))),
        )
    )
    function = {"index": 0, "name": "weather", "arguments": {"city": "Köln"}}
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Look", "images": ["iVBORw0="]},
        {
            "role": "assistant",
            "content": "Wait!",
            "thinking": "Hm.",
            "tool_calls": [{"id": "call_1", "function": function}],
        },
        {"role": "tool", "content": "rain", "images": ["iVBORw1="], "tool_call_id": "call_1", "tool_name": "weather"},
        {"role": "tool", "content": "?", "tool_call_id": "call_x"},
        {"role": "tool", "content": "sun", "tool_call_id": "call_1", "tool_name": "weather"},
        {"role": "user", "content": "So?"},
    ]


def test_sampling_and_lengths_become_options() -> None:
    hints = {"temperature": 0.2, "top_p": 0.9, "seed": 7, "presence_penalty": 1, "frequency_penalty": None}
    extra = {
        "top_k": 40,
        "repetition_penalty": 1.1,
        "keep_alive": "5m",
        "options": {"min_p": 0.1, "num_predict": 1},
    }
    body = written(ask(hints=hints, extra=extra, max_tokens=50, stop=("END",)))
    assert body["options"] == {
        "temperature": 0.2,
        "top_p": 0.9,
        "seed": 7,
        "presence_penalty": 1,
        "top_k": 40,
        "repeat_penalty": 1.1,
        "min_p": 0.1,
        "num_ctx": 4096,
        "num_predict": 50,
        "stop": ["END"],
    }
    assert body["keep_alive"] == "5m"


def test_a_caller_cannot_set_what_would_reload_the_model() -> None:
    """Another window per request would load the model anew each time, for everybody."""
    extra = {"num_ctx": 9, "options": {"num_ctx": 9, "num_gpu": 0, "num_keep": 2}, "truncate": True, "odd": {}}
    outgoing = ollama.write_request(ask(extra=extra), card())
    assert written(ask(extra=extra)) == written(ask())
    assert outgoing.ignored == ("num_ctx", "options.num_ctx", "options.num_gpu", "options.num_keep", "truncate", "odd")
    assert ollama.write_request(ask(extra={"options": "x"}), card()).ignored == ("options",)


def test_dropped_hints_are_named() -> None:
    """The caller learns from `x-tierway-ignored` what had no effect."""
    request = ask(
        Message("user", (TextPart("Hi"),), name="ann"),
        hints={"logit_bias": {"1": 2}, "user": "u", "metadata": {}, "store": False, "service_tier": None},
        extra={"think": True},
        effort="high",
        parallel_tool_calls=False,
        tools=(Tool("f", strict=True),),
    )
    outgoing = ollama.write_request(request, dataclasses.replace(card(), abilities=frozenset({Ability.CHAT})))
    assert outgoing.ignored == (
        "logit_bias",
        "user",
        "metadata",
        "store",
        "reasoning_effort",
        "think",
        "parallel_tool_calls",
        "tools.function.strict",
        "messages.name",
    )
    assert ollama.write_request(ask(parallel_tool_calls=True), card()).ignored == ()


def test_tools_are_offered_as_the_choice_says() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = (Tool("weather", "The weather", schema), Tool("now"))
    weather = {
        "type": "function",
        "function": {"name": "weather", "description": "The weather", "parameters": schema},
    }
    now = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
    assert written(ask(tools=tools))["tools"] == [weather, now]
    assert written(ask(tools=tools, tool_choice=ToolChoice("auto")))["tools"] == [weather, now]
    assert written(ask(tools=tools, tool_choice=ToolChoice("auto", ("now",))))["tools"] == [now]
    assert "tools" not in written(ask(tools=tools, tool_choice=ToolChoice("none")))


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (Format("json_object"), "json"),
        (Format("json_schema", {"type": "array"}), {"type": "array"}),
        (Format("json_schema"), "json"),
    ],
)
def test_the_shape_of_the_answer_is_demanded(asked: Format, sent: Any) -> None:
    assert written(ask(format=asked))["format"] == sent


def test_logprobs_are_asked_for() -> None:
    assert written(ask(logprobs=0))["logprobs"] is True
    assert "top_logprobs" not in written(ask(logprobs=0))
    assert written(ask(logprobs=3))["top_logprobs"] == 3
    assert "logprobs" not in written(ask())


@pytest.mark.parametrize(
    ("fields", "levels", "sent"),
    [
        ({}, None, None),
        ({"effort": "none"}, None, False),
        ({"effort": "high"}, None, True),
        ({"effort": "minimal"}, ("low", "medium", "high"), "low"),
        ({"effort": "medium"}, ("low", "medium", "high"), "medium"),
        ({"effort": "max"}, ("low", "medium", "high"), "high"),
        ({"effort": "odd"}, ("low", "medium", "high"), True),
        ({"extra": {"think": False}}, None, False),
        ({"extra": {"think": "low"}}, None, "low"),
        ({"extra": {"think": 3}}, None, None),
    ],
)
def test_effort_becomes_thinking(fields: dict[str, Any], levels: tuple[str, ...] | None, sent: Any) -> None:
    """A level sent to a model that knows only on and off is refused by Ollama."""
    assert written(ask(**fields), card(think_levels=levels)).get("think") == sent


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": (Tool("f"),), "tool_choice": ToolChoice("required")}, "tool_choice"),
        ({"tools": (Tool("f"),), "tool_choice": ToolChoice("named", ("f",))}, "tool_choice"),
        ({"tools": (Tool("f", custom=True),)}, "tools"),
        ({"needs": frozenset({Ability.CHAT, Ability.AUDIO_OUTPUT})}, "modalities"),
    ],
)
def test_what_the_wire_cannot_say_is_refused(fields: dict[str, Any], param: str) -> None:
    """An answer of another shape than asked for would break the caller's program later and elsewhere."""
    with pytest.raises(UnsupportedParameter) as caught:
        ollama.write_request(ask(**fields), card())
    assert caught.value.param == param


@pytest.mark.parametrize(
    "part",
    [
        MediaPart("image", url="https://example.com/cat.png"),
        MediaPart("audio", "audio/wav", "AAAA"),
        MediaPart("file", "application/pdf", "AAAA"),
    ],
)
def test_media_it_cannot_take_is_refused(part: MediaPart) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        ollama.write_request(ask(Message("user", (part,))), card())
    assert caught.value.param == "messages"


@pytest.mark.parametrize("arguments", ['{"city": ', "[1]", "3", '{"a":' * 500 + "1" + "}" * 500])
def test_broken_arguments_in_history_are_named(arguments: str) -> None:
    """Ollama takes an object there; the caller must learn which of its messages is wrong."""
    call = Message("assistant", (ToolUsePart("a", "f", "{}"), ToolUsePart("b", "f", arguments)))
    with pytest.raises(InvalidValue) as caught:
        ollama.write_request(ask(user("Hi"), call), card())
    assert caught.value.param in ("messages[1].tool_calls[1].function.arguments", "messages")


def test_a_call_without_arguments_and_one_of_a_custom_tool() -> None:
    body = written(ask(Message("assistant", (ToolUsePart("a", "f", " "),))))
    assert body["messages"][0]["tool_calls"][0]["function"]["arguments"] == {}
    with pytest.raises(UnsupportedParameter):
        ollama.write_request(ask(Message("assistant", (ToolUsePart("a", "f", "x", custom=True),))), card())


def test_only_text_that_the_model_surely_reads_is_weighed() -> None:
    """Templates drop old thinking and tool definitions are written anew: counting them would raise false alarms."""
    message = Message("assistant", (ThinkingPart("x" * 999), TextPart("é"), CALL))
    outgoing = ollama.write_request(ask(message, tools=(Tool("f", "y" * 999),)), card())
    assert outgoing.memo == 2 + len(CALL.arguments.encode())
