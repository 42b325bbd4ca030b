from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.messages import Message, TextPart, ToolResultPart, ToolUsePart
from app.core.outcome import Ask
from app.learning import asks
from app.learning.asks import Earlier, ask_of, judged, likeness, packed, read_earlier, write_earlier
from tests.core.nouns import chat, terms


def said(*turns: str) -> tuple[Message, ...]:
    """Turns of a user and an assistant in turn; `system: ...` stands aside."""
    messages, roles = [], ("user", "assistant")
    count = 0
    for turn in turns:
        if turn.startswith("system: "):
            messages.append(Message("system", (TextPart(turn),)))
            continue
        messages.append(Message(roles[count % 2], (TextPart(turn),)))
        count += 1
    return tuple(messages)


def asked(*turns: str, key: str | None = "key-a", vector: list[float] | None = None, **fields: Any) -> Ask:
    ask = ask_of(chat(messages=said(*turns), **fields), key, None, packed(vector))
    assert ask is not None
    return ask


def verdict(first: Ask, second: Ask) -> list[tuple[str, str]]:
    """What the second ask tells of the answer to the first, wherever that stands."""
    earlier = Earlier("req-1", first)
    return judged(
        second, earlier if second.place == first.place else None, earlier if second.before == first.place else None
    )


def test_going_on_in_a_conversation_is_a_good_sign() -> None:
    assert verdict(asked("Sort a list?"), asked("Sort a list?", "sorted(x)", "And a dictionary?")) == [
        ("req-1", "went_on")
    ]


def test_asking_the_very_same_again_is_a_bad_sign_before_and_after_the_answer_is_read() -> None:
    first = asked("Sort a list?")
    assert verdict(first, asked("Sort a list?", "42", " Sort a list? ")) == [("req-1", "again")]
    assert verdict(first, asked("Sort a list?")) == [("req-1", "again")]


def test_the_same_in_other_words_is_a_bad_sign() -> None:
    near = [1.0, 0.9]
    first = asked("Sort a list?", vector=[1.0, 1.0])
    assert verdict(first, asked("Sort a list?", "42", "How do I sort lists?", vector=near)) == [("req-1", "rephrased")]
    assert verdict(first, asked("Sort a list?", "42", "Bake a cake", vector=[1.0, -1.0])) == [("req-1", "went_on")]


def test_the_same_with_other_numbers_is_another_question() -> None:
    """`and for 7?` is a follow-up, however alike the vectors are."""
    first = asked("Is 5 prime?", vector=[1.0, 1.0])
    assert verdict(first, asked("Is 5 prime?", "yes", "Is 7 prime?", vector=[1.0, 1.0])) == [("req-1", "went_on")]


@pytest.mark.parametrize(
    "words",
    [
        "No, that's not it",
        "that is wrong",
        "It doesn't work",
        "still fails",
        "Try again",
        "You forgot the header",
        "no.",
    ],
)
def test_an_objection_is_heard(words: str) -> None:
    assert verdict(asked("Sort a list?"), asked("Sort a list?", "42", words)) == [("req-1", "objected")]


@pytest.mark.parametrize(
    "words", ["Now the other file", "nothing else", "Thanks! Is that the last one?", "noon or one?"]
)
def test_what_only_looks_like_an_objection_is_none(words: str) -> None:
    assert verdict(asked("Sort a list?"), asked("Sort a list?", "42", words)) == [("req-1", "went_on")]


def test_an_opening_cannot_object() -> None:
    """`No, ...` at the start of a conversation is not about any answer of ours."""
    assert not asked("That is wrong, isn't it?").objects


def test_openings_that_are_only_alike_are_other_peoples_questions() -> None:
    """Templates over changing data are alike; each would mark the one before it as a failure."""
    first = asked("Classify: apples", vector=[1.0, 1.0])
    assert verdict(first, asked("Classify: pears", vector=[1.0, 1.0])) == []


def test_openings_do_not_hide_each_other() -> None:
    """Two people start at the same time, with the same key."""
    assert asked("Sort a list?").place != asked("Bake a cake").place
    assert asked("Bake a cake", "42", "Sure?").before == asked("system: noon", "Bake a cake").place


def test_going_back_to_ask_in_other_words_is_a_bad_sign() -> None:
    """A chat window whose last question was edited."""
    first = asked("Hello", "Hi", "Sort a list?", vector=[1.0, 1.0])
    assert verdict(first, asked("Hello", "Hi", "Sort the list?", vector=[1.0, 0.95])) == [("req-1", "rephrased")]
    assert verdict(first, asked("Hello", "Hi", "Bake a cake", vector=[1.0, -1.0])) == []


def test_a_tool_loop_goes_on_with_its_ask() -> None:
    """Each turn of an agent repeats the ask; that is no complaint."""
    messages = (
        *said("Fix the test"),
        Message("assistant", (ToolUsePart("1", "run", "{}"),)),
        Message("tool", (ToolResultPart("1", (TextPart("failed"),)),)),
    )
    ask = ask_of(chat(messages=messages), "key-a")
    assert ask is not None
    assert ask.carried
    assert ask.place == asked("Fix the test").place
    assert verdict(asked("Fix the test"), ask) == []


def test_another_key_agent_or_history_is_another_conversation() -> None:
    """One caller's question must not judge the answer another one got."""
    place = asked("Sort a list?", "42", "Sure?").place
    assert asked("Sort a list?", "42", "Sure?", key="key-b").place != place
    assert asked("Sort a list?", "42", "Sure?", terms=terms(agent="qe")).place != place
    assert asked("Sort a list?", "43", "Sure?").place != place
    assert asked("system: it is noon", "Sort a list?", "42", "Sure?").place == place


def test_without_an_ask_there_is_none() -> None:
    assert ask_of(chat(messages=()), None) is None
    assert ask_of(chat(messages=(Message("system", (TextPart("x"),)),)), None) is None


def test_the_ask_as_it_is_classified_counts() -> None:
    """What a harness adds changes on every turn."""
    message = said("Sort a list? <system-reminder>it is noon</system-reminder>")
    ask = ask_of(chat(messages=message), "key-a", "Sort a list?")
    assert ask is not None
    assert ask.same == asked("Sort a list?").same


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=100))
def test_any_vector_can_be_packed_and_compared(vector: list[float]) -> None:
    data = packed(vector)
    assert len(data) in (0, min(len(vector), asks.DIMENSIONS))
    assert -1.01 <= likeness(data, packed([1.0] * len(vector))) <= 1.01


def test_vectors_are_alike_as_their_cosine_says() -> None:
    assert likeness(packed([3.0, 4.0]), packed([30.0, 40.0])) == pytest.approx(1.0)
    assert likeness(packed([1.0, 0.0]), packed([0.0, 1.0])) == pytest.approx(0.0)
    assert likeness(packed([1.0, 1.0]), packed([1.0, 0.0])) == pytest.approx(0.707, abs=0.01)
    assert likeness(packed([1.0]), packed([1.0, 0.0])) == 0.0
    assert likeness(b"\0\0", b"\0\0") == 0.0
    assert packed([float("inf"), 1.0]) == b""


def test_what_is_remembered_of_an_ask_is_what_it_is_compared_by() -> None:
    ask = asked("Sort my secret list of 5?", vector=[1.0, 0.5])
    data = write_earlier("req-9", ask)
    assert b"secret" not in data
    found = read_earlier(data, ask.place)
    assert found == Earlier("req-9", Ask(ask.place, None, ask.same, ask.numbers, ask.vector))


@given(st.binary())
def test_what_cannot_be_read_was_never_there(data: bytes) -> None:
    assert read_earlier(data, "place") is None


@pytest.mark.parametrize("data", [None, b"[]", b'{"r":1,"d":"x"}', b'{"r":"a"}', b'{"r":"a","d":"b","v":1}'])
def test_damaged_entries_are_none(data: bytes | None) -> None:
    assert read_earlier(data, "place") is None


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_any_text_has_its_place(turns: list[str]) -> None:
    ask_of(chat(messages=said(*turns)), None, None)


def test_lone_surrogates_do_no_harm() -> None:
    assert ask_of(chat(messages=said("\ud800", "\udfff", "x\ud800")), "\ud800") is not None


@given(st.lists(st.sampled_from(["7", "42", "a", " ", ".", "\n", "é", "٣"]), max_size=12).map("".join))
def test_the_same_numbers_are_found_in_plain_text_as_in_any_other(text: str) -> None:
    """Two asks that differ in a number must not pass for one that is asked again."""
    assert asks._numbers(text) == asks.NUMBER.findall(text)
