"""What a request asks for is read once; where that fails, the request goes on as if there were no classifier."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from app.core.verdict import Verdict
from app.gateway.reading import KNOWN_MAX, UNREAD, Embed, Judge, Read, Reading
from app.learning.asks import packed
from app.routing.classifier import Understood
from app.routing.features import Facts
from app.routing.lexical import Words
from tests.core.nouns import chat
from tests.gateway.talks import user

VERDICT = Verdict(0.3, 0.9, "docs", "v1")
REQUEST = chat(messages=(user("<system-reminder>Be brief.</system-reminder>What does this do?"),))


UNDERSTOOD = Understood(0.1, 0.2, 1.0, 0, 0.9, (0.5,))


class Case:
    """A reading, with what it was given and what it told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.texts: list[str] = []
        self.vectors: list[Any] = []
        self.facts: list[Facts] = []
        self.embedded: list[str] = []
        self.seconds: list[float] = []
        self.errors: list[tuple[str, BaseException]] = []

    def understand(self, words: Words, vector: Any = None) -> Understood:
        self.texts.append(words.data.decode())
        self.vectors.append(vector)
        if self.error is not None:
            raise self.error
        return UNDERSTOOD

    def verdict(self, understood: Understood, facts: Facts) -> Verdict:
        assert understood is UNDERSTOOD
        self.facts.append(facts)
        return VERDICT

    def embed(self, text: str) -> Any:
        self.embedded.append(text)
        return np.ones(4)

    def reading(self, judge: Judge | None, embed: Embed | None) -> Reading:
        return Reading(judge, embed, self.seconds.append, lambda where, error: self.errors.append((where, error)))

    def read(self, judge: Judge | None, embed: Embed | None) -> Read:
        return self.reading(judge, embed)(REQUEST)


def test_what_a_person_asked_is_embedded_and_judged() -> None:
    """Without what the harness put around it: else the classifier learns the harness."""
    case = Case()
    read = case.read(case, case.embed)
    assert (read.verdict, read.text) == (VERDICT, "What does this do?")
    assert case.embedded == case.texts == ["What does this do?"]
    assert len(case.vectors[0]) == 4 and read.sketch == packed(case.vectors[0])
    assert len(case.seconds) == 1 and case.seconds[0] >= 0
    assert case.errors == []


def test_the_turns_of_a_tool_loop_carry_one_ask_which_is_understood_once() -> None:
    """An agent's hundred turns would each pay for it. What is new in a turn, such as failing tools, counts all the
    same."""
    case = Case()
    reading = case.reading(case, case.embed)
    first, second = reading(REQUEST), reading(replace(REQUEST, max_tokens=77))
    assert (case.texts, case.embedded) == (["What does this do?"], ["What does this do?"])
    assert [facts.max_tokens for facts in case.facts] == [0, 77]
    assert first == second


def test_what_was_understood_is_forgotten_before_it_fills_the_memory() -> None:
    case = Case()
    reading = case.reading(case, None)
    first = chat(messages=(user("Question 0?"),))
    for number in range(KNOWN_MAX + 1):
        reading(chat(messages=(user(f"Question {number}?"),)))
    reading(chat(messages=(user("Question 9?"),)))
    assert len(case.texts) == KNOWN_MAX + 1
    reading(first)
    assert case.texts[-1] == "Question 0?" and len(case.texts) == KNOWN_MAX + 2


def test_what_a_caller_breaks_off_in_half_a_character_is_read_as_well() -> None:
    case = Case()
    assert case.reading(case, None)(chat(messages=(user("half \ud83d"),))).verdict is VERDICT


def test_without_an_embedder_words_alone_are_judged() -> None:
    case = Case()
    read = case.read(case, None)
    assert (read.verdict, read.sketch, case.vectors) == (VERDICT, b"", [None])


def test_without_a_classifier_nothing_is_read_or_timed() -> None:
    case = Case()
    assert case.read(None, case.embed) is UNREAD
    assert (case.embedded, case.seconds) == ([], [])


def test_a_classifier_that_fails_takes_no_request_with_it() -> None:
    """A strange prompt is answered in the file's order, and the operator hears of it."""
    case = Case(ValueError("a strange prompt"))
    assert case.read(case, case.embed) == UNREAD
    assert [(where, type(error)) for where, error in case.errors] == [("classifier", ValueError)]
    assert len(case.seconds) == 1


def test_an_embedder_that_fails_takes_no_request_with_it() -> None:
    def broken(text: str) -> Any:
        raise RuntimeError("the table is gone")

    case = Case()
    assert case.read(case, broken) == UNREAD
    assert [where for where, _ in case.errors] == ["classifier"]
