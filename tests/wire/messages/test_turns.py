"""Conversations in Anthropic's turns: results must stand together behind their calls, and nothing may be lost."""

from __future__ import annotations

import pytest

from app.core.errors import InvalidValue, UnsupportedParameter
from app.core.messages import MediaPart, Message, RefusalPart, TextPart, ThinkingPart, ToolResultPart
from app.wire.messages.blocks import Markers
from app.wire.messages.rules import RULES
from app.wire.messages.turns import Conversation, write_turns
from tests.wire.messages_cases import call, result, said

HOISTING = RULES["claude-haiku-4-5"]  # takes a prefill, and no system turns
INLINE = RULES["claude-opus-5-5"]


def turns(*messages: Message) -> Conversation:
    return write_turns(messages, HOISTING, Markers())


def outline(conversation: Conversation) -> list[tuple[str, list[str]]]:
    """Roles, and of each block its text, its id, or its type."""
    return [
        (turn["role"], [b.get("text") or b.get("tool_use_id") or b.get("id") or b["type"] for b in turn["content"]])
        for turn in conversation.turns
    ]


def test_consecutive_turns_of_a_role_become_one() -> None:
    made = turns(
        said("user", "a"), said("user", "b"), said("assistant", "c"), said("assistant", "d"), said("user", "e")
    )
    assert outline(made) == [("user", ["a", "b"]), ("assistant", ["c", "d"]), ("user", ["e"])]


def test_all_results_stand_at_the_head_of_one_turn() -> None:
    """The bug most often repeated by gateways: parallel results in messages of their own are a 400."""
    made = turns(
        said("user", "go"),
        said("assistant", "both", call("x"), call("y"), call("z")),
        result("y", "2"),
        said("user", "by the way"),
        result("x", "1"),
        Message("tool", (ToolResultPart("z", (), is_error=True),)),
    )
    assert outline(made)[2] == ("user", ["y", "x", "z", "by the way"])
    first, _, last, _ = made.turns[2]["content"]
    assert first["content"] == [{"type": "text", "text": "2"}]
    assert last == {"type": "tool_result", "tool_use_id": "z", "is_error": True}


def test_ids_that_come_back_in_later_turns_are_told_apart() -> None:
    """Local servers count their calls from zero in every turn."""
    made = turns(
        said("user", "go"),
        said("assistant", call("call_0")),
        result("call_0", "1"),
        said("assistant", call("call_0")),
        result("call_0", "2"),
    )
    assert outline(made)[1:] == [
        ("assistant", ["call_0"]),
        ("user", ["call_0"]),
        ("assistant", ["call_0_2"]),
        ("user", ["call_0_2"]),
    ]
    assert made.originals == {"call_0_2": "call_0"}


def test_two_calls_of_one_id_in_a_turn_get_their_results_in_order() -> None:
    made = turns(said("user", "go"), said("assistant", call("x"), call("x")), result("x", "1"), result("x", "2"))
    assert outline(made)[1:] == [("assistant", ["x", "x_2"]), ("user", ["x", "x_2"])]


@pytest.mark.parametrize("then", [(), (said("assistant", "next"),), (said("user", "next"),), (result("other"),)])
def test_a_call_without_its_result_is_named(then: tuple[Message, ...]) -> None:
    with pytest.raises(InvalidValue) as caught:
        turns(said("user", "go"), said("assistant", call("x")), *then)
    assert caught.value.param in ("messages[1]", "messages[2].tool_call_id")


def test_a_result_without_its_call_is_named() -> None:
    with pytest.raises(InvalidValue) as caught:
        turns(said("user", "go"), said("assistant", call("x")), result("x"), result("x"))
    assert caught.value.param == "messages[3].tool_call_id"


def test_thinking_comes_first_and_unchanged() -> None:
    message = said("assistant", "text", call("x"), ThinkingPart("hm", "sig"), ThinkingPart("foreign"))
    made = turns(said("user", "go"), message, result("x"))
    thinking, text, use = made.turns[1]["content"]
    assert thinking == {"type": "thinking", "thinking": "hm", "signature": "sig"}
    assert (text["text"], use["id"]) == ("text", "x")
    assert made.thought and not made.unthinking


def test_a_loop_of_tools_without_its_thinking_is_noticed() -> None:
    assert turns(said("user", "go"), said("assistant", call("x")), result("x")).unthinking
    assert not turns(said("user", "go"), said("assistant", "hi"), said("user", "on")).unthinking
    assert not turns(said("user", "go")).unthinking


def test_system_prompts_move_to_the_front_as_blocks_of_their_own() -> None:
    """Joined, they would lose their cache markers."""
    markers = Markers()
    messages = (
        Message("system", (TextPart("a", cache="1h"), TextPart("b"))),
        said("user", "hi"),
        said("developer", "c", " "),
        said("user", "ho"),
    )
    made = write_turns(messages, HOISTING, markers)
    markers.settle()
    assert [block["text"] for block in made.system] == ["a", "b", "c"]
    assert made.system[0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert outline(made) == [("user", ["hi", "ho"])]


def test_models_that_hear_a_late_system_message_get_it_in_its_place() -> None:
    messages = (
        said("system", "first"),
        said("user", "a"),
        said("system", "now in French"),
        said("developer", "and short"),
        said("assistant", "b"),
        said("system", "misplaced"),
        said("user", "c"),
        said("system", "last"),
    )
    made = write_turns(messages, INLINE, Markers())
    assert [block["text"] for block in made.system] == ["first", "misplaced"]
    assert outline(made) == [
        ("user", ["a"]),
        ("system", ["now in French", "and short"]),
        ("assistant", ["b"]),
        ("user", ["c"]),
        ("system", ["last"]),
    ]


def test_media_stand_where_they_were() -> None:
    image = MediaPart("image", "image/png", "AA==")
    made = turns(said("user", "look", image, "here"))
    assert outline(made) == [("user", ["look", "image", "here"])]
    with pytest.raises(UnsupportedParameter) as caught:
        turns(said("user", "x", MediaPart("audio", data="AA==")))
    assert caught.value.param == "messages[0].content[1]"


def test_media_of_an_assistant_are_refused() -> None:
    with pytest.raises(UnsupportedParameter):
        turns(said("user", "x"), said("assistant", MediaPart("image", "image/png", "AA==")), said("user", "y"))


def test_a_refusal_is_said_as_text() -> None:
    made = turns(said("user", "x"), said("assistant", RefusalPart("No.")), said("user", "y"))
    assert outline(made)[1] == ("assistant", ["No."])


def test_a_prefill_goes_only_where_it_is_taken() -> None:
    """And without white space at its end, which is a 400."""
    messages = (said("user", "x"), said("assistant", "The answer is \n"))
    assert outline(write_turns(messages, HOISTING, Markers()))[1] == ("assistant", ["The answer is"])
    with pytest.raises(UnsupportedParameter) as caught:
        write_turns(messages, INLINE, Markers())
    assert caught.value.param == "messages"


def test_a_prefill_holds_no_thinking() -> None:
    """Thinking is off while an answer is continued, and then none may stand there."""
    begun = (said("user", "x"), said("assistant", ThinkingPart("hm", "sig"), "The"))
    made = write_turns(begun, HOISTING, Markers())
    assert (outline(made)[1], made.unthinking) == (("assistant", ["The"]), True)
    with pytest.raises(UnsupportedParameter):
        turns(said("user", "x"), said("assistant", ThinkingPart("hm", "sig")))


@pytest.mark.parametrize("messages", [(said("system", "alone"),), (said("user", " "),)])
def test_a_conversation_of_nothing_is_refused(messages: tuple[Message, ...]) -> None:
    with pytest.raises(UnsupportedParameter):
        turns(*messages)


def test_markers_stand_in_reading_order() -> None:
    """The system prompt is read first, however late it came."""
    markers = Markers()
    messages = (
        Message("user", (TextPart("a", cache="5m"),)),
        Message("system", (TextPart("b", cache="1h"),)),
        said("assistant", call("x")),
        Message("tool", (ToolResultPart("x", (TextPart("r"),), cache="5m"),)),
    )
    made = write_turns(messages, HOISTING, markers)
    markers.settle()
    assert made.system[0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert made.turns[0]["content"][0]["cache_control"] == {"type": "ephemeral"}
    assert made.turns[2]["content"][0]["cache_control"] == {"type": "ephemeral"}
