from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Blame
from app.core.outcome import Noticed, Outcome, quality
from app.learning import outcome
from app.learning.outcome import BY_CONTENT, FAILURES, FINISHES, NEXT_ASKS, Evidence, Says
from tests.learning.records import attempt, record

UPSTREAM = Blame.UPSTREAM.value


def said(**fields: Any) -> dict[str, tuple[float, float]]:
    return {each.source: (each.value, each.weight) for each in outcome.of_record(record(**fields))}


def test_a_plain_end_is_a_quiet_good_word() -> None:
    """If only failures spoke, a model of a thousand good answers would be judged by its three bad ones."""
    assert said() == {"finish": (0.8, 0.2)}
    assert said(finish="tool_calls") == {"finish": (0.8, 0.2)}


def test_an_answer_cut_off_is_worse_unless_the_caller_wanted_it_short() -> None:
    assert said(finish="length")["finish"] == FINISHES["length"]
    assert said(finish="length", noticed=Noticed(limited=True)) == {}


@pytest.mark.parametrize("finish", [None, "something new"])
def test_an_end_nobody_knows_says_nothing(finish: str | None) -> None:
    assert said(finish=finish) == {}
    assert quality(outcome.of_record(record(finish=finish))) is None


@pytest.mark.parametrize(
    ("noticed", "source", "says"),
    [
        (Noticed(refused=True), "refusal", BY_CONTENT["refusal", True]),
        (Noticed(bare=True), "bare", BY_CONTENT["bare", True]),
        (Noticed(repeating=True), "repetition", BY_CONTENT["repetition", True]),
        (Noticed(parses=True), "shape", BY_CONTENT["shape", True]),
        (Noticed(parses=False), "shape", BY_CONTENT["shape", False]),
        (Noticed(compiles=True), "syntax", BY_CONTENT["syntax", True]),
        (Noticed(compiles=False), "syntax", BY_CONTENT["syntax", False]),
    ],
)
def test_what_was_seen_of_an_answer_is_heard(noticed: Noticed, source: str, says: Says) -> None:
    assert said(noticed=noticed) == {"finish": FINISHES["stop"], source: says}


@pytest.mark.parametrize(
    "noticed", [Noticed(refused=True), Noticed(bare=True), Noticed(repeating=True), Noticed(parses=False)]
)
def test_a_bad_answer_is_bad_however_politely_it_ended(noticed: Noticed) -> None:
    """`stop` at the end of a refusal must not make it a good answer."""
    value = quality(outcome.of_record(record(noticed=noticed)))
    assert value is not None
    assert value < 0.3


def test_an_answer_made_from_less_than_was_sent_is_no_good() -> None:
    assert said(truncated=True)["truncated"] == outcome.WAS_TRUNCATED


def test_a_client_that_left_says_nothing_except_of_a_runaway() -> None:
    """People close tabs; but who stops an endless loop has judged it."""
    gone = {"client_gone": True, "error_code": "client_gone"}
    assert said(**gone, noticed=Noticed(bare=True)) == {}
    assert said(**gone, noticed=Noticed(repeating=True)) == {"repetition": BY_CONTENT["repetition", True]}


@pytest.mark.parametrize("kind", FAILURES)
def test_an_answer_that_broke_through_its_upstream_is_a_failure(kind: str) -> None:
    broken = said(error_code="upstream_failed", attempts=(attempt("gpu/qwen", kind, UPSTREAM),))
    assert broken == {"failed": FAILURES[kind]}


@pytest.mark.parametrize(
    "attempts",
    [
        (),
        (attempt("gpu/qwen", "invalid_value", "caller"),),
        (attempt("gpu/qwen", "throttled", UPSTREAM),),
        (attempt("gpu/qwen", "refused", UPSTREAM),),
    ],
)
def test_what_a_model_could_not_help_says_nothing_of_it(attempts: Any) -> None:
    """A busy or dead server is not a stupid model; the caller's own mistake still less."""
    assert said(error_code="upstream_failed", attempts=attempts) == {}


def test_models_that_gave_a_request_up_are_told_of_it() -> None:
    """A model whose answers have to be asked for elsewhere must stop looking good."""
    tried = (
        attempt("ollama/rnj", "truncated", UPSTREAM),
        attempt("claude/opus", "throttled", UPSTREAM),
        attempt("gpu/qwen", "broken", UPSTREAM),
        attempt("gpu/qwen"),
    )
    assert list(outcome.escalations(record(attempts=tried))) == [("ollama/rnj", Evidence(0.0, 1.0))]


def test_every_value_and_weight_is_in_its_bounds() -> None:
    tables = (FINISHES, FAILURES, NEXT_ASKS, BY_CONTENT)
    for says in [says for table in tables for says in table.values()]:
        assert 0 <= says.value <= 1
        assert 0 < says.weight <= outcome.FEEDBACK_WEIGHT


def test_the_caller_outweighs_every_guess() -> None:
    """Who says that an answer was useless knows better than a finish reason."""
    best = outcome.of_record(record(noticed=Noticed(parses=True, compiles=True)))
    value = quality((*best, outcome.feedback(0.0, 1.0)))
    assert value is not None
    assert value < 0.3


@given(st.floats(allow_nan=False))
def test_a_rating_stays_a_share(rating: float) -> None:
    assert 0 <= outcome.feedback(rating, 0.0).value <= 1


@pytest.mark.parametrize(
    ("rating", "word"), [(1, "good"), (0.7, "good"), (0.69, "neutral"), (0.31, "neutral"), (0.3, "bad"), (0, "bad")]
)
def test_ratings_fold_to_three_words(rating: float, word: str) -> None:
    assert outcome.folded(rating) == word


@given(st.lists(st.builds(Outcome, st.just("s"), st.floats(0, 1), st.floats(0, 5), st.just(0.0))))
def test_however_much_is_said_it_is_one_answer(outcomes: list[Outcome]) -> None:
    found = outcome.evidence(outcomes)
    assert 0 <= found.weight <= 1
    assert -1e-9 <= found.value <= 1 + 1e-9
    assert (found == outcome.NOTHING) == (sum(each.weight for each in outcomes) <= 0)


def test_who_speaks_again_corrects_itself() -> None:
    """A caller that rates an answer twice has changed its mind, not voted twice."""
    first, second = outcome.feedback(1.0, 1.0), outcome.feedback(0.0, 2.0)
    finish = outcome.of_record(record())[0]
    assert outcome.replaced((first, finish), second) == (finish, second)


def test_the_next_ask_is_an_outcome_of_its_own() -> None:
    assert outcome.next_ask("objected", 5.0) == Outcome("next_ask", 0.1, 1.0, 5.0)
    assert replace(outcome.next_ask("again", 5.0), weight=1.0).value == 0.3
