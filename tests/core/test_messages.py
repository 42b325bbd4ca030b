"""The parts of a conversation: what a codec reads off them must be what the caller said."""

from __future__ import annotations

import pytest

from app.core.messages import Message, RefusalPart, TextPart, ThinkingPart, ToolChoice, ToolUsePart


def test_the_text_of_a_turn_is_its_text_parts_alone() -> None:
    """Thinking or tool arguments in the text would be shown to users, and counted twice."""
    parts = (
        ThinkingPart("hm", signature="s"),
        TextPart("one "),
        ToolUsePart("call_1", "find", "{}"),
        RefusalPart("no"),
        TextPart("two"),
    )
    assert Message("assistant", parts).text == "one two"
    assert Message("user", ()).text == ""


@pytest.mark.parametrize(("mode", "forced"), [("auto", False), ("none", False), ("required", True), ("named", True)])
def test_only_required_and_named_force_a_call(mode: str, forced: bool) -> None:
    """Forced calls need an ability that many models lack; `auto` must not shut those out."""
    assert ToolChoice(mode).forced is forced


def test_nothing_said_is_auto() -> None:
    assert ToolChoice() == ToolChoice("auto", ())
