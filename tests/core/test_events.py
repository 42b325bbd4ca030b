"""The fold of a stream is the JSON answer: what a client reads with and without `stream` must be the same."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Broken
from app.core.events import (
    CONTENT,
    Call,
    Event,
    Fault,
    Finish,
    Fold,
    Reasoning,
    Start,
    Text,
    Thought,
    ToolCall,
    Usage,
    fold,
    is_content,
    merge,
)
from app.core.money import Tokens

START = Start("chatcmpl-1", "qwen", 1_700_000_000, "chat")
WORDS = st.text(max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
DELTAS = st.dictionaries(st.sampled_from(["a", "b", "id", "type"]), JSON, max_size=3)


@st.composite
def pieces(draw: st.DrawFn, choice: int) -> list[Event]:
    """What may come of one choice, in order."""
    calls = st.builds(ToolCall, st.integers(0, 3), WORDS, st.sampled_from(["x", "y"]), WORDS, st.just(choice))
    text = st.builds(Text, WORDS, st.just(choice), st.booleans(), st.none() | DELTAS, st.none() | DELTAS)
    thinking = st.builds(Reasoning, WORDS, st.just(choice), st.none() | WORDS, st.none() | WORDS)
    ending = st.builds(Finish, st.just("stop"), st.just(choice), st.none() | WORDS, st.none() | DELTAS)
    return draw(st.lists(st.one_of(calls, text, thinking, ending), max_size=12))


def joined(texts: list[str]) -> str | None:
    return "".join(texts) if texts else None


# --- choices --------------------------------------------------------------------------------------------------------


@given(st.data(), st.permutations(range(3)), st.randoms())
def test_choices_do_not_touch_each_other(data: st.DataObject, order: list[int], chance: random.Random) -> None:
    """With `n` choices their pieces come mixed and in any order; each answer must be whole."""
    queues = {index: data.draw(pieces(index)) for index in order}
    alone = {index: fold([START, *queue]).choices for index, queue in queues.items()}
    mixed: list[Event] = [START]
    left = {index: list(queue) for index, queue in queues.items() if queue}
    while left:
        index = chance.choice(list(left))
        mixed.append(left[index].pop(0))
        if not left[index]:
            del left[index]
    answer = fold(mixed)
    assert answer.choices == [choice for index in sorted(alone) for choice in alone[index]]
    assert [choice.index for choice in answer.choices] == [index for index in range(3) if queues[index]]


@given(pieces(0))
def test_every_piece_is_in_the_answer_once(events: list[Event]) -> None:
    """A piece that is lost or doubled is a wrong answer that looks right."""
    choices = fold([START, *events]).choices
    if not events:
        assert choices == []
        return
    (choice,) = choices
    texts = [event for event in events if isinstance(event, Text)]
    said = [event.text for event in texts if not event.refusal and (event.text or not event.extra)]
    assert choice.text == joined(said)
    assert choice.refusal == joined([event.text for event in texts if event.refusal])
    thoughts = [event for event in events if isinstance(event, Reasoning)]
    assert choice.reasoning == "".join(event.text for event in thoughts if event.redacted is None)
    redacted = [thought.redacted for thought in choice.thoughts if thought.redacted is not None]
    assert redacted == [event.redacted for event in thoughts if event.redacted is not None]
    calls = [event for event in events if isinstance(event, ToolCall)]
    for index, call in zip(sorted({event.call for event in calls}), choice.calls, strict=True):
        own = [event for event in calls if event.call == index]
        assert call == Call(own[0].id or "", own[0].name or "", "".join(event.arguments for event in own))


@given(pieces(0))
def test_an_answer_can_be_asked_for_twice(events: list[Event]) -> None:
    """A log and a client may both fold the same stream."""
    folder = Fold()
    for event in (START, *events):
        folder.add(event)
    assert folder.answer() == folder.answer()


# --- single rules ---------------------------------------------------------------------------------------------------


def test_a_whole_answer() -> None:
    answer = fold(
        [
            START,
            Reasoning("Let me "),
            Reasoning("think.", signature="sig"),
            Text("Hel"),
            Text("lo"),
            ToolCall(0, '{"ci', "call_1", "weather"),
            ToolCall(1, "free", "call_2", "shell", custom=True),
            ToolCall(0, 'ty": 1}'),
            Finish("tool_calls", detail="tool_use", extra={"stop_sequence": None}),
            Usage(Tokens(3, 4)),
        ]
    )
    (choice,) = answer.choices
    assert (answer.start, answer.usage, answer.fault) == (START, Usage(Tokens(3, 4)), None)
    assert (choice.text, choice.refusal) == ("Hello", None)
    assert choice.thoughts == [Thought("Let me think.", "sig")]
    assert choice.calls == [
        Call("call_1", "weather", '{"city": 1}'),
        Call("call_2", "shell", "free", custom=True),
    ]
    assert (choice.finish, choice.detail, choice.finish_extra) == ("tool_calls", "tool_use", {"stop_sequence": None})


def test_thinking_falls_into_the_blocks_it_came_in() -> None:
    """A signature belongs to its own block; Anthropic refuses the next turn of a conversation where it does not."""
    events: list[Event] = [
        START,
        Reasoning("one"),
        Reasoning("", signature="s1"),
        Reasoning("", redacted="opaque"),
        Reasoning("two "),
        Reasoning("three"),
        Reasoning("", redacted="opaque too"),
        Reasoning("", signature="s2"),
        Reasoning("open end"),
    ]
    assert fold(events).choices[0].thoughts == [
        Thought("one", "s1"),
        Thought("", redacted="opaque"),
        Thought("two three"),
        Thought("", redacted="opaque too"),
        Thought("", "s2"),
        Thought("open end"),
    ]


def test_no_text_and_empty_text_are_not_the_same() -> None:
    """`content: null` beside tool calls and `content: ""` mean different things to clients."""
    assert fold([START, ToolCall(0, "{}", "a", "b")]).choices[0].text is None
    assert fold([START, Text("")]).choices[0].text == ""
    assert fold([START, Text("", extra={"annotations": []})]).choices[0].text is None
    assert fold([START]).choices == []


def test_what_we_do_not_model_survives() -> None:
    """Audio, annotations and log probabilities come in pieces, and are added up like the text."""
    first = Text("a", logprobs={"content": [1], "refusal": None}, extra={"audio": {"id": "x", "data": "AA"}})
    second = Text("b", logprobs={"content": [2], "refusal": None}, extra={"audio": {"id": "x", "data": "BB"}})
    (choice,) = fold([START, first, second, Finish("stop", extra={"a": 1}), Finish("stop", extra={"b": 2})]).choices
    assert choice.logprobs == {"content": [1, 2], "refusal": None}
    assert choice.extra == {"audio": {"id": "x", "data": "AABB"}}
    assert choice.finish_extra == {"a": 1, "b": 2}
    assert first.extra == {"audio": {"id": "x", "data": "AA"}}, "the event itself is not changed"


def test_a_fault_is_told_beside_what_came_before() -> None:
    """A broken answer must not look whole."""
    error = Broken("gone")
    answer = fold([START, Text("half"), Fault(error)])
    assert (answer.fault, answer.choices[0].text, answer.choices[0].finish, answer.usage) == (error, "half", None, None)


def test_an_answer_without_a_start_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="begins with Start"):
        fold([Text("a")])


@pytest.mark.parametrize(
    ("event", "content"),
    [
        (START, False),
        (Text(""), True),
        (Reasoning("hm"), True),
        (ToolCall(0), True),
        (Finish("stop"), True),
        (Usage(Tokens()), False),
        (Fault(Broken("gone")), False),
    ],
)
def test_what_commits_to_an_upstream(event: Event, content: bool) -> None:
    """Failing over after content would splice two models' words; after anything else it saves the request."""
    assert is_content(event) is content
    assert isinstance(event, CONTENT) is (content and not isinstance(event, Finish))


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "piece",
    [
        Text("a"),
        Text("a", refusal=True),
        Text("a", logprobs={"content": [{"token": "a"}]}),
        Text("", extra={"audio": {"data": "AAAA"}, "annotations": [1]}),
        Reasoning("a"),
        ToolCall(0, "a"),
    ],
)
def test_long_answers_are_added_up_in_linear_time(piece: Event) -> None:
    """A hundred thousand pieces take a moment; copying what came before each time, it would be minutes."""
    folder = Fold()
    folder.add(START)
    for _ in range(100_000):
        folder.add(piece)
    assert len(folder.answer().choices) == 1


# --- deltas ---------------------------------------------------------------------------------------------------------


def one_by_one(into: Mapping[str, Any], delta: Mapping[str, Any]) -> dict[str, Any]:
    """What official clients do with each delta as it comes."""
    result = dict(into)
    for key, value in delta.items():
        old = result.get(key)
        if isinstance(old, str) and isinstance(value, str) and key not in ("id", "type"):
            result[key] = old + value
        elif isinstance(old, list) and isinstance(value, list):
            result[key] = [*old, *value]
        elif isinstance(old, dict) and isinstance(value, dict):
            result[key] = one_by_one(old, value)
        elif value is not None or key not in result:
            result[key] = value
    return result


@given(st.lists(DELTAS, max_size=6))
def test_deltas_add_up_as_in_official_clients(deltas: list[dict[str, Any]]) -> None:
    """A client that folds the stream itself must come to the same answer."""
    expected: dict[str, Any] = {}
    for delta in deltas:
        expected = one_by_one(expected, delta)
    assert merge(*deltas) == expected


@given(DELTAS, DELTAS)
def test_merging_changes_neither_side(one: dict[str, Any], other: dict[str, Any]) -> None:
    before = repr((one, other))
    merge(one, other)
    assert repr((one, other)) == before
