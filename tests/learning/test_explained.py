from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.core.outcome import Outcome
from app.core.plan import Excluded, Plan
from app.learning import decision
from app.learning.decision import Decision, Remembered
from app.learning.explained import explained, summary
from tests.learning.records import PLAN, VERDICT, attempt, record


def told(**fields: Any) -> str:
    return summary(Remembered(made(**fields), (Outcome("finish", 0.8, 0.2, 1.0),)))


def made(**fields: Any) -> Decision:
    found = decision.of_record(record(**fields))
    assert found is not None
    return found


def test_a_person_understands_in_one_reading() -> None:
    """Why this model, what it cost, what would have been cheaper and why not."""
    assert told() == (
        "auto (cost) was answered by gpu/qwen: cheapest that can do it."
        " The request looked simple (score 0.12, code)."
        " It cost 0.001900 USD, 0.002000 USD expected."
        " Cheaper would have been ollama/rnj at nothing (its queue is long; expected to succeed 62%)."
        " Left out: claude/haiku (this key may not use it)."
        " The answer's quality is put at 0.80 (by finish)."
    )


def test_a_model_that_stands_in_says_for_whom_and_why() -> None:
    tried = (attempt("ollama/rnj", "refused", "upstream"), attempt("gpu/qwen"))
    words = told(fallback_from="ollama/rnj", attempts=tried)
    assert "It stands in for ollama/rnj (refused)." in words
    assert "ollama/rnj at nothing (tried, and failed: refused)" in words
    assert "It stands in for ollama/rnj (passed over as unhealthy)." in told(fallback_from="ollama/rnj")
    poor = told(fallback_from="ollama/rnj", passed_over="budget_exceeded")
    assert "It stands in for ollama/rnj (passed over: a limit on spend does not allow it)." in poor
    assert "(passed over: of_tomorrow)" in told(fallback_from="ollama/rnj", passed_over="of_tomorrow")


def test_a_request_that_failed_says_what_was_tried() -> None:
    tried = (attempt("ollama/rnj", "busy", "upstream"), attempt("gpu/qwen", "timeout", "upstream"))
    words = told(error_code="upstream_timeout", attempts=tried, cost_nano=None)
    assert words.startswith(
        "auto (cost) was not answered (upstream_timeout); tried ollama/rnj: busy, gpu/qwen: timeout. "
    )
    assert "What it cost is unknown." in words
    assert told(error_code="client_gone", client_gone=True).startswith("The client of auto (cost) left before the end")


def test_chance_arms_and_emergencies_are_told() -> None:
    words = told(plan=replace(PLAN, probability=0.05, arm="new:treatment", trigger="slow_first_token"))
    assert "chosen with a probability of 5%" in words
    assert "It was in the arm new:treatment." in words
    assert "because of an emergency: slow first token." in words


def test_an_unsure_classifier_and_none_at_all_are_told() -> None:
    assert "(score 0.50, code, unsure, so it took the middle)" in told(
        plan=replace(PLAN, verdict=replace(VERDICT, score=0.5, abstained=True))
    )
    assert "The request was not classified." in told(plan=replace(PLAN, verdict=None))


def test_before_anything_was_called_it_says_what_would_be() -> None:
    """`tierway route` and POST /v1/route explain without spending."""
    words = summary(Remembered(decision.of_plan(PLAN, "req-1", "auto", 0.0)))
    assert words.startswith("auto (cost) would go to gpu/qwen: cheapest that can do it.")
    assert "It is expected to cost 0.002000 USD." in words
    assert "quality" not in words
    nothing = summary(Remembered(decision.of_plan(Plan((), "cost"), "req-1", "auto", 0.0)))
    assert nothing.startswith("No model could take auto (cost).")
    assert "an unknown amount" in nothing


def test_the_cheapest_says_that_nothing_would_be_cheaper() -> None:
    plan = replace(PLAN, candidates=(PLAN.candidates[0], PLAN.candidates[2]))
    assert "No candidate would have been cheaper." in told(plan=plan)
    assert "heaper" not in told(plan=plan, model="gone/model").replace("cheapest", "")


@pytest.mark.parametrize(
    ("nano", "words"),
    [(0, "It cost nothing"), (5, "It cost less than 0.000001 USD"), (2_500_000_000, "It cost 2.500000 USD")],
)
def test_amounts_are_readable(nano: int, words: str) -> None:
    assert words in told(cost_nano=nano)


def test_a_long_list_is_cut_and_counted() -> None:
    many = tuple(Excluded(f"a/{n}", "it is not local") for n in range(30))
    assert "a/2 (it is not local), and 27 more." in told(plan=replace(PLAN, excluded=many))
    assert "Left out" not in told(plan=replace(PLAN, excluded=()))


def test_nothing_heard_is_unknown_and_not_bad() -> None:
    assert summary(Remembered(made())).endswith("How good the answer was is unknown.")


def test_the_json_has_every_field_in_plain_units() -> None:
    said = (Outcome("feedback", 1.0, 3.0, 5.0), Outcome("finish", 0.8, 0.2, 4.0))
    whole = explained(Remembered(made(), said, (("reason", "fine"),)))
    assert list(whole)[:4] == ["object", "request_id", "at", "summary"]
    assert whole["at"] == "2023-11-14T22:13:20.000Z"
    assert whole["cost_usd"] == 0.0019
    assert whole["candidates"][1] == {
        "model": "ollama/rnj",
        "cost_usd": 0.0,
        "latency_ms": 200,
        "predicted": 0.62,
        "reason": "its queue is long",
        "chosen": False,
    }
    assert [each["chosen"] for each in whole["candidates"]] == [True, False, False]
    assert whole["excluded"] == [{"model": "claude/haiku", "reason": "this key may not use it"}]
    assert whole["quality"] == 0.9875
    assert [each["source"] for each in whole["outcomes"]] == ["feedback", "finish"]
    assert whole["said"] == {"reason": "fine"}
    assert (whole["probability"], whole["consent"], whole["key_id"]) == (1.0, "session", "key-a")
    assert explained(Remembered(made()))["quality"] is None
    bare = explained(Remembered(decision.of_plan(PLAN, "r", "auto", 0.0)))
    assert bare["cost_usd"] is None
    assert [each["chosen"] for each in bare["candidates"]] == [True, False, False]
