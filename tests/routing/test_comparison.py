"""How a shadow's answer is judged: a wrong word here moves traffic to a model that is worse."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.events import Answer, Call, Choice, Start
from app.core.messages import Format
from app.core.outcome import Outcome
from app.core.request import Request
from app.routing.comparison import WEIGHT, WEIGHT_WITH_MEANING, compare, cosine, outcome_of, text_of
from tests.core.nouns import chat

PLAIN = chat()
JSON = chat(format=Format("json_object"))


def answer(text: str | None = "hello", finish: str | None = "stop", *calls: tuple[str, str]) -> Answer:
    made = [Call("c", name, arguments) for name, arguments in calls]
    return Answer(Start("id", "m", 0, "chat"), [Choice(0, text, calls=made, finish=finish)], None)


def test_the_same_answer_is_worth_everything() -> None:
    comparison = compare(PLAIN, answer(), answer())
    assert (comparison.value, comparison.length, comparison.parses, comparison.meaning) == (1.0, 1.0, None, None)


@pytest.mark.parametrize(
    ("request_", "given_", "other"),
    [
        (PLAIN, answer(), answer("")),
        (PLAIN, answer(), answer("  \n")),
        (PLAIN, answer(), Answer(Start("id", "m", 0, "chat"), [], None)),
        (JSON, answer("{}"), answer("Sure! {}")),
        (JSON, answer("{}"), answer("[1]")),
        (JSON, answer("{}"), answer("\ud800")),
        (PLAIN, answer(None, "tool_calls", ("f", "{}")), answer(None, "tool_calls", ("f", "{oops"))),
    ],
)
def test_nothing_or_broken_json_is_worth_nothing(request_: Request, given_: Answer, other: Answer) -> None:
    assert compare(request_, given_, other, 1.0).value == 0.0


def test_json_that_was_demanded_and_is_there_counts() -> None:
    comparison = compare(JSON, answer('{"a": 1}'), answer('{"a": 2}'))
    assert comparison.parses is True and comparison.value == 1.0


def test_other_calls_count_more_than_another_length() -> None:
    call, other_call = answer(None, "tool_calls", ("f", "{}")), answer(None, "tool_calls", ("g", ""))
    assert compare(PLAIN, call, other_call).value == 0.5
    assert compare(PLAIN, answer("x" * 100), answer("x" * 25)).value == pytest.approx(0.875)
    assert compare(PLAIN, answer("x" * 100), answer("x" * 60)).value == 1.0
    assert compare(PLAIN, answer(finish="stop"), answer(finish="length")).value == 0.75


def test_meaning_counts_as_much_as_all_the_rest_and_speaks_louder() -> None:
    near, far = compare(PLAIN, answer(), answer(), 0.9), compare(PLAIN, answer(), answer(), -1.0)
    assert near.value == pytest.approx(0.95) and far.value == pytest.approx(0.5)
    assert compare(PLAIN, answer(), answer(), math.nan).meaning is None
    assert outcome_of(near, 5.0) == Outcome("shadow", near.value, WEIGHT_WITH_MEANING, 5.0)
    assert outcome_of(compare(PLAIN, answer(), answer()), 5.0).weight == WEIGHT


def test_vectors() -> None:
    assert cosine([1, 0], [2, 0]) == 1.0 and cosine([1, 0], [0, 1]) == 0.0
    for pair in (([0.0, 0.0], [1.0, 0.0]), ([1.0], [1.0, 2.0]), ([math.nan], [1.0]), ([math.inf], [1.0]), ([], [])):
        assert cosine(*pair) is None
    assert text_of(answer("a")) == "a" and text_of(answer(None)) == ""


TEXTS = st.one_of(st.none(), st.text(max_size=20))
FINISHES = st.sampled_from(["stop", "length", None])
CALLS = st.tuples(st.text(max_size=3), st.sampled_from(["", "{}", "1", "{"]))
ANSWERS = st.builds(answer, TEXTS, FINISHES) | st.builds(answer, TEXTS, FINISHES, CALLS)


@given(st.sampled_from([PLAIN, JSON]), ANSWERS, ANSWERS, st.one_of(st.none(), st.floats()))
def test_the_value_is_always_a_share(request_: Request, one: Answer, two: Answer, meaning: float | None) -> None:
    comparison = compare(request_, one, two, meaning)
    assert 0 <= comparison.value <= 1 and 0 <= comparison.length <= 1
