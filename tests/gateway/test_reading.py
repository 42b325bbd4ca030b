"""What a request asks for is read once; where that fails, the request goes on as if there were no classifier."""

from __future__ import annotations

from typing import Any

import numpy as np

from app.core.verdict import Verdict
from app.gateway.reading import UNREAD, Embed, Judge, Read, Reading
from app.routing.features import Asked
from tests.core.nouns import chat
from tests.gateway.talks import user

VERDICT = Verdict(0.3, 0.9, "docs", "v1")
REQUEST = chat(messages=(user("<system-reminder>Be brief.</system-reminder>What does this do?"),))


class Case:
    """A reading, with what it was given and what it told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.judged: list[tuple[Asked, Any]] = []
        self.embedded: list[str] = []
        self.seconds: list[float] = []
        self.errors: list[tuple[str, BaseException]] = []

    def judge(self, asked: Asked, vector: Any = None) -> Verdict:
        self.judged.append((asked, vector))
        if self.error is not None:
            raise self.error
        return VERDICT

    def embed(self, text: str) -> Any:
        self.embedded.append(text)
        return np.ones(4)

    def read(self, judge: Judge | None, embed: Embed | None) -> Read:
        reading = Reading(judge, embed, self.seconds.append, lambda where, error: self.errors.append((where, error)))
        return reading(REQUEST)


def test_what_a_person_asked_is_embedded_and_judged() -> None:
    """Without what the harness put around it: else the classifier learns the harness."""
    case = Case()
    read = case.read(case, case.embed)
    assert (read.verdict, read.text) == (VERDICT, "What does this do?")
    assert case.embedded == ["What does this do?"]
    assert read.vector is case.judged[0][1] and len(read.vector) == 4
    assert len(case.seconds) == 1 and case.seconds[0] >= 0
    assert case.errors == []


def test_without_an_embedder_words_alone_are_judged() -> None:
    case = Case()
    read = case.read(case, None)
    assert (read.verdict, read.vector, case.judged[0][1]) == (VERDICT, None, None)


def test_without_a_classifier_nothing_is_read_or_timed() -> None:
    case = Case()
    assert case.read(None, case.embed) is UNREAD
    assert (case.embedded, case.seconds) == ([], [])


def test_a_classifier_that_fails_takes_no_request_with_it() -> None:
    """A strange prompt is answered in the file's order, and the operator hears of it."""
    case = Case(ValueError("a strange prompt"))
    assert case.read(case, case.embed) == (None, None, None)
    assert [(where, type(error)) for where, error in case.errors] == [("classifier", ValueError)]
    assert len(case.seconds) == 1


def test_an_embedder_that_fails_takes_no_request_with_it() -> None:
    def broken(text: str) -> Any:
        raise RuntimeError("the table is gone")

    case = Case()
    assert case.read(case, broken) == UNREAD
    assert [where for where, _ in case.errors] == ["classifier"]
