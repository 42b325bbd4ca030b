"""Without these a demo or test that asks the simulator for something (tools, JSON, a length) does not get it."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from app.core.events import Choice, Finish, Start, Text, ToolCall, fold
from app.core.request import Request
from app.simulator.brain import directives, prompt_tokens, think
from tests.simulator.asking import TOOLS, WEATHER, request

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def answer(asked: Request, limit: int = 1_000) -> list[Choice]:
    thought = think(asked, "small", limit=limit, prompt=7)
    return fold([Start("i", "m", 0, "simulated"), *thought.events]).choices


def only(asked: Request, limit: int = 1_000) -> Choice:
    [choice] = answer(asked, limit)
    return choice


def test_an_answer_says_that_it_is_simulated_and_what_was_said() -> None:
    choice = only(request("What is up?"))
    assert (choice.text, choice.finish) == ("[simulated small] You said: What is up?", "stop")


def test_the_same_request_gets_the_same_answer() -> None:
    assert think(request("x"), "small", limit=9, prompt=1) == think(request("x"), "small", limit=9, prompt=1)


def test_tokens_are_counted_as_they_are_sent() -> None:
    thought = think(request("x sim:reason"), "small", limit=1_000, prompt=7)
    pieces = [event for event in thought.events if not isinstance(event, Finish)]
    assert thought.tokens.completion == len(pieces)
    assert 0 < thought.tokens.reasoning < thought.tokens.completion
    assert thought.tokens.prompt == 7


@pytest.mark.parametrize("wanted", [1, 3, 40, 500])
def test_an_answer_of_any_length_can_be_asked_for(wanted: int) -> None:
    thought = think(request(f"sim:tokens={wanted}"), "small", limit=1_000, prompt=1)
    assert (thought.tokens.completion, thought.events[-1]) == (wanted, Finish("stop"))


def test_max_tokens_cuts_and_says_length() -> None:
    asked = request("one two three", max_tokens=3)
    thought = think(asked, "small", limit=1_000, prompt=1)
    assert (thought.tokens.completion, thought.events[-1]) == (3, Finish("length"))


def test_the_limit_of_the_model_cuts_too() -> None:
    assert only(request("one two three"), limit=2).finish == "length"


def test_stop_sequences_end_the_text_before_them() -> None:
    choice = only(request("a b c d", stop=["c", "never"]))
    assert (choice.text, choice.finish) == ("[simulated small] You said: a b ", "stop")
    assert choice.finish_extra == {"stop_reason": "c"}


def test_n_choices_differ_and_come_in_turns() -> None:
    choices = answer(request("x", n=3))
    assert [choice.index for choice in choices] == [0, 1, 2]
    assert len({choice.text for choice in choices}) == 3
    first = think(request("x", n=3), "small", limit=99, prompt=1).events[:3]
    assert [getattr(event, "choice", None) for event in first] == [0, 1, 2]


@pytest.mark.parametrize("effort", ["low", "high"])
def test_it_thinks_when_an_effort_is_asked_for(effort: str) -> None:
    assert effort in only(request("x", reasoning_effort=effort)).reasoning


def test_it_does_not_think_unasked() -> None:
    assert only(request("x", reasoning_effort="none")).reasoning == ""


def test_json_is_an_object_and_follows_its_schema() -> None:
    assert json.loads(only(request("x", response_format={"type": "json_object"})).text or "") == {"simulated": "small"}
    form = {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER}}
    assert json.loads(only(request("x sim:tokens=2", response_format=form)).text or "") == {"city": "simulated"}


def test_images_are_seen() -> None:
    content = [{"type": "text", "text": "look"}, IMAGE, IMAGE]
    choice = only(request("", messages=[{"role": "user", "content": content}]))
    assert choice.text == "[simulated small] I see 2 images. You said: look"


def test_unicode_on_request_is_cut_between_tokens_without_loss() -> None:
    text = only(request("sim:unicode")).text or ""
    assert "👩‍👩‍👧‍👦" in text and "שלום" in text


def test_logprobs_come_with_each_token() -> None:
    thought = think(request("x", logprobs=True, top_logprobs=2), "small", limit=9, prompt=1)
    first = thought.events[0]
    assert isinstance(first, Text) and first.logprobs is not None
    [entry] = first.logprobs["content"]
    assert entry["token"] == first.text and bytes(entry["bytes"]).decode() == first.text
    assert len(entry["top_logprobs"]) == 2


def call_of(text: str, **more: Any) -> list[tuple[str, Any]]:
    calls = only(request(text, tools=TOOLS, **more)).calls
    return [(call.name, json.loads(call.arguments)) for call in calls]


@pytest.mark.parametrize(
    ("text", "more", "calls"),
    [
        ("hello", {}, []),
        ("the weather is nice", {}, []),
        ("please call weather", {}, [("weather", {"city": "simulated"})]),
        ("use now.", {}, [("now", {})]),
        ("call weathers", {}, []),
        ("call weather and now", {}, [("weather", {"city": "simulated"}), ("now", {})]),
        ("call weather and now", {"parallel_tool_calls": False}, [("weather", {"city": "simulated"})]),
        ('call weather({"city": "Paris"})', {}, [("weather", {"city": "Paris"})]),
        ("call weather({broken)", {}, [("weather", {"city": "simulated"})]),
        ("call weather([1])", {}, [("weather", {"city": "simulated"})]),
        ("call weather", {"tool_choice": "none"}, []),
        ("hello", {"tool_choice": "required"}, [("weather", {"city": "simulated"})]),
        ("use now", {"tool_choice": "required"}, [("now", {})]),
        ("hello", {"tool_choice": {"type": "function", "function": {"name": "now"}}}, [("now", {})]),
    ],
)
def test_tools_are_called_when_asked_for_or_forced(text: str, more: dict[str, Any], calls: list[Any]) -> None:
    assert call_of(text, **more) == calls


def test_a_call_finishes_so_and_has_an_id_of_its_own() -> None:
    choice = only(request("call weather and now", tools=TOOLS))
    assert choice.finish == "tool_calls"
    assert len({call.id for call in choice.calls}) == 2
    assert all(call.id.startswith("call_") for call in choice.calls)


def test_calls_come_in_pieces_named_once() -> None:
    thought = think(request('call weather({"city": "A b c"})', tools=TOOLS), "small", limit=99, prompt=1)
    pieces = [event for event in thought.events if isinstance(event, ToolCall)]
    assert len(pieces) > 2
    assert [piece.name for piece in pieces] == ["weather"] + [None] * (len(pieces) - 1)


def test_custom_tools_get_text() -> None:
    choice = only(request("call shell", tools=[{"type": "custom", "custom": {"name": "shell"}}]))
    assert (choice.calls[0].custom, choice.calls[0].arguments) == (True, "simulated input")


def test_what_tools_said_is_answered() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "call weather"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "21 degrees"},
    ]
    choice = only(request("", messages=messages, tools=TOOLS))
    assert (choice.text, choice.calls) == ("[simulated small] The tool said: 21 degrees", [])


def test_a_conversation_without_a_user_is_answered() -> None:
    assert (
        only(request("", messages=[{"role": "system", "content": "be brief"}])).text == "[simulated small] You said: "
    )


def test_prompts_are_counted_by_their_bytes_and_images() -> None:
    plain, seen = request("x" * 400), request("", messages=[{"role": "user", "content": [IMAGE]}])
    assert 100 <= prompt_tokens(plain) <= 120
    assert prompt_tokens(seen) > 1_000


def test_directives_are_found_anywhere() -> None:
    assert directives("a sim:tokens=5 b sim:unicode") == {"tokens": "5", "unicode": ""}
    assert directives("nothing here") == {}


def test_answers_survive_json() -> None:
    choice = only(request("sim:unicode \x00 \u2028"))
    assert orjson.loads(orjson.dumps(choice.text)) == choice.text
