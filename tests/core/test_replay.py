"""A whole answer that is told as a stream must come to the same answer again, whatever was in it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.core.events import CONTENT, Event, Finish, Reasoning, Start, Text, ToolCall, Usage, fold
from app.core.money import Tokens
from app.core.replay import replay

text = st.text(min_size=1, max_size=8)
choice = st.integers(0, 2)


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """A stream as codecs make it: calls are counted without gaps, and every choice that began comes to its end."""
    events: list[Event] = []
    calls: dict[int, int] = {}
    for _ in range(draw(st.integers(0, 8))):
        index = draw(choice)
        made: dict[str, Any] = {
            "text": lambda i=index: Text(draw(text), i),
            "refusal": lambda i=index: Text(draw(text), i, refusal=True),
            "extra": lambda i=index: Text("", i, extra={"annotations": [draw(text)]}),
            "thought": lambda i=index: Reasoning(draw(text), i, signature=draw(text)),
            "hidden": lambda i=index: Reasoning("", i, redacted=draw(text)),
            "call": lambda i=index: ToolCall(calls.get(i, 0), draw(text), draw(text), draw(text), i),
        }
        kind = draw(st.sampled_from(sorted(made)))
        events.append(made[kind]())
        calls[index] = calls.get(index, 0) + (kind == "call")
    begun = {0, *(event.choice for event in events if isinstance(event, CONTENT))}
    finishes: list[Event] = [Finish("stop", index, "eos", {"token_ids": [1]}) for index in sorted(begun)]
    return [Start("id", "m", 0, "chat"), *events, *finishes, Usage(Tokens(1, 2))]


@given(streams())
def test_it_folds_to_the_same_answer(events: list[Event]) -> None:
    whole = fold(events)
    assert fold(replay(whole)) == whole


def test_text_comes_in_one_piece_with_all_that_belongs_to_it() -> None:
    first = {"content": [{"token": "a"}], "refusal": None}
    second = {"content": [{"token": "b"}], "refusal": None}
    events: list[Event] = [
        Start("id", "m", 0, "chat"),
        Text("a", logprobs=first),
        Text("b", logprobs=second),
        Finish("stop"),
    ]
    _, said, _ = replay(fold(events))
    assert isinstance(said, Text) and said.text == "ab"
    assert said.logprobs == {"content": [{"token": "a"}, {"token": "b"}], "refusal": None}


def test_the_words_about_a_refusal_stay_with_it() -> None:
    about = {"content": None, "refusal": [{"token": "no"}]}
    _, said, _ = replay(fold([Start("id", "m", 0, "chat"), Text("no", refusal=True, logprobs=about), Finish("stop")]))
    assert said == Text("no", refusal=True, logprobs=about)
