"""What is classified is what a person asked, whatever a harness wraps around it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.messages import Format, MediaPart, Message, Part, TextPart, Tool, ToolResultPart, ToolUsePart
from app.core.request import Request, Terms
from app.routing.features import (
    GIST_HEAD,
    GIST_TAIL,
    HEAD_CHARS,
    TAIL_CHARS,
    Facts,
    asked,
    asked_text,
    clean,
    only_tool_results,
)


def said(role: str, *parts: str | Part) -> Message:
    return Message(role, tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


def request(*messages: Message, **rest: Any) -> Request:
    terms = Terms(request_id="r", root_id="r")
    return Request(model="auto", messages=messages, terms=terms, dialect="chat", body={}, **rest)


def result(text: str = "ok", error: bool = False) -> ToolResultPart:
    return ToolResultPart("c1", (TextPart(text),), is_error=error)


def call(arguments: str = "{}") -> ToolUsePart:
    return ToolUsePart("c1", "read", arguments)


def test_the_last_human_ask_is_taken() -> None:
    """Neither the system prompt nor an answer nor a tool's output may decide which model serves."""
    found = asked(
        request(
            said("system", "You are a compiler expert. Prove theorems."),
            said("user", "First question"),
            said("assistant", "An answer", call()),
            said("tool", result("Traceback")),
            said("user", "What time is it?"),
        )
    )
    assert found.text == "What time is it?"
    assert found.facts.messages == 5


def test_a_request_without_a_human_is_empty() -> None:
    """A lone system prompt is no ask, and no error."""
    found = asked(request(said("system", "Be brief.")))
    assert (found.text, found.gist, found.facts.ask_chars) == ("", "", 0)


def test_a_message_of_nothing_but_reminders_is_passed_over() -> None:
    """Harnesses send reminders as user messages; the question before is still what is asked."""
    reminder = said("user", "<system-reminder>Use the todo tool.</system-reminder>")
    assert asked(request(said("user", "Rename x to y"), reminder)).text == "Rename x to y"


@pytest.mark.parametrize(
    ("text", "ask"),
    [
        ("<system-reminder>\nNever ...\n</system-reminder>\nFix it", "Fix it"),
        ("Fix it\n<environment_details>\n# Open tabs\n</environment_details>", "Fix it"),
        ('<file path="a.py">import os</file> Explain', "Explain"),
        ("<task>Write a poem</task><environment_details>x</environment_details>", "Write a poem"),
        ("noise <user_query>Add a test</user_query> noise", "Add a test"),
        ("Fix it <system-reminder>never closed", "Fix it"),
        ("a <b>bold</b> word", "a <b>bold</b> word"),
        ("if x < 3 and y > 4", "if x < 3 and y > 4"),
        ("<task>never closed", "<task>never closed"),
    ],
)
def test_harness_blocks_are_stripped(text: str, ask: str) -> None:
    """What a person typed, and markup that belongs to it, remains; what the editor added goes."""
    assert clean(text) == ask


def test_listings_are_stripped() -> None:
    """Two hundred paths in front of a question say nothing about the question."""
    tree = "\n".join(f"├── src/app/module_{i}.py" for i in range(20))
    assert clean(f"{tree}\nWhich of these is unused?") == "Which of these is unused?"
    assert clean(f"Which is unused?\n{tree}") == "Which is unused?"


def test_a_few_paths_stay() -> None:
    """Someone who names three files means them."""
    text = "Move these:\na/b.py\nc/d.py\ne/f.py"
    assert clean(text + "\n" * 8 + "now") == text + "\n" * 8 + "now"


def test_large_dumps_go_and_snippets_stay() -> None:
    """A pasted log must not drown the question; a function under discussion is part of it."""
    assert clean("Why?\n```\n" + "log line\n" * 600 + "```") == "Why?\n``````"
    snippet = "Why?\n```python\nreturn 1\n```" + " " * 4_100 + "."
    assert "return 1" in clean(snippet)


def test_long_asks_keep_head_and_tail() -> None:
    """What is asked stands at one of the ends, and classification must not cost more for a novel."""
    text = "Summarise this. " + "word " * 20_000 + "Keep it short."
    ask = clean(text)
    assert len(ask) == HEAD_CHARS + TAIL_CHARS + 1
    assert ask.startswith("Summarise this.") and ask.endswith("Keep it short.")
    assert len(asked_text(text).gist) == GIST_HEAD + GIST_TAIL + 1


def test_a_block_cut_in_the_middle_goes_at_both_ends() -> None:
    """In a very long message a reminder may lose its beginning to the cut, and must not become the ask."""
    text = "Explain the plan.\n<file_content>" + "x " * 40_000 + "</file_content>\nBriefly."
    assert clean(text) == "Explain the plan.\n\n\nBriefly."


def test_a_block_whole_in_the_tail_goes_alone() -> None:
    """What stands before a reminder in the tail is the person's."""
    text = "y " * 40_000 + "What now? <system-reminder>z</system-reminder>"
    assert clean(text).endswith("What now?")


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_is_survived(before: str, after: str) -> None:
    """Lone surrogates, half-open tags and control characters must not stop a request."""
    found = asked_text(f"{before}<file>{after}```" * 3)
    assert len(found.text) <= HEAD_CHARS + TAIL_CHARS + 1


def test_surrogates_are_survived() -> None:
    assert asked_text("half a \ud83d smile").facts.request_bytes > 0


def test_facts_are_counted() -> None:
    """Each fact a later learner or the score relies on comes out of the request."""
    found = asked(
        request(
            said("user", "Look", MediaPart("image", url="http://x/y.png"), MediaPart("audio", data="x")),
            said("assistant", call("a"), call("a"), call("b")),
            said("tool", result("fine"), result("Error: no such file"), result("x", error=True)),
            said("user", "Port this Python to Rust and C++:\n```python\nx = 1\n```"),
            tools=(Tool("read"), Tool("write")),
            format=Format("json_schema", schema={}),
            max_tokens=99,
            input_bytes=1_234,
        )
    ).facts
    assert found == Facts(
        ask_chars=53,
        request_bytes=1_234,
        messages=4,
        code=True,
        maths=False,
        languages=3,
        tools_offered=2,
        tools_used=3,
        recent_errors=2,
        recent_repeats=1,
        images=1,
        schema=True,
        max_tokens=99,
        tool_turn=False,
    )
    assert found.numbers()[:4] == (53.0, 1234.0, 4.0, 1.0)


def test_maths_is_noticed() -> None:
    assert asked_text("Prove the theorem: the integral of x^2 exists.").facts.maths
    assert not asked_text("What should I cook?").facts.maths


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([said("user", "hi")], False),
        ([said("user", "hi"), said("assistant", call()), said("tool", result())], True),
        ([said("user", "hi"), said("assistant", call()), said("user", result())], True),
        ([said("user", "hi"), said("assistant", call()), said("tool", result()), said("user", "Stop, do this")], False),
        ([said("user", "hi"), said("assistant", call()), said("user", result(), "and hurry")], False),
        (
            [
                said("user", "hi"),
                said("assistant", call()),
                said("user", result(), "<system-reminder>x</system-reminder>"),
            ],
            True,
        ),
        ([said("user", "hi"), said("assistant", call()), said("tool", result()), said("system", "note")], True),
        ([said("user", "hi"), said("assistant", "done")], False),
        ([], False),
    ],
)
def test_turns_of_tool_results_are_told_apart(messages: list[Message], expected: bool) -> None:
    """A tool loop keeps its model; a person who speaks up in it is a new ask."""
    assert only_tool_results(messages) is expected
