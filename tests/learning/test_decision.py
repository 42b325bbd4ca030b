from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.money import Tokens
from app.core.outcome import Outcome
from app.core.plan import Candidate, Excluded, Plan
from app.core.record import Record
from app.core.verdict import Verdict
from app.learning import decision
from app.learning.decision import BYTES_MAX, Considered, Decision, LeftOut, Remembered, Tried
from tests.core.nouns import card
from tests.learning.records import PLAN, attempt, record


def of(made: Record) -> Decision:
    found = decision.of_record(made)
    assert found is not None
    return found


def test_a_decision_remembers_what_a_later_learner_needs() -> None:
    """What is not written down now cannot be learnt from in three months."""
    plan = replace(PLAN, probability=0.95, arm="new:treatment", trigger="upstream_gone", tokens=(9, 400))
    found = of(record(plan=plan, flags={"SHADOW": True}, consent="training", tokens=Tokens(7, 3), agent="qe-1"))
    assert found.candidates[0] == Considered("gpu/qwen", "cheapest that can do it", True, 2_000_000, 0.4, 0.91, 1.0)
    assert len(found.candidates) == 3
    assert found.excluded == (LeftOut("claude/haiku", "this key may not use it"),)
    assert (found.score, found.confidence, found.task_type, found.tier) == (0.12, 0.9, "code", "simple")
    assert found.classifier == "router-1"
    assert decision.unpack_features(found.features) == (0.5, -1.0)
    assert (found.probability, found.arm, found.trigger) == (0.95, "new:treatment", "upstream_gone")
    assert (found.expected_in, found.expected_out) == (9, 400)
    assert (found.flags, found.consent) == ({"SHADOW": True}, "training")
    assert (found.model, found.cost_nano, found.tokens_in, found.tokens_out) == ("gpu/qwen", 1_900_000, 7, 3)
    assert found.attempts == (Tried("gpu/qwen", "ok", 0.5),)


def test_without_a_plan_there_was_no_decision() -> None:
    assert decision.of_record(record(plan=None)) is None


def test_without_a_verdict_it_is_unknown() -> None:
    found = of(record(plan=replace(PLAN, verdict=None), tokens=None, reason=None, model=None))
    assert (found.score, found.tier, found.task_type, found.features) == (None, None, None, "")


def test_who_consents_to_nothing_leaves_no_features() -> None:
    """Features are made from the text."""
    assert of(record(consent="off")).features == ""


def test_what_is_written_is_read() -> None:
    made = of(record(attempts=(attempt("a/b", "busy", "upstream"), attempt("gpu/qwen"))))
    assert decision.read(decision.write(made)) == made
    later = orjson.dumps({**orjson.loads(decision.write(made)), "of_a_later_release": 1})
    assert decision.read(later) == made
    said = Outcome("feedback", 0.5, 3.0, 1.0)
    assert decision.read_outcome(decision.write_outcome(said)) == said
    row = b"[%s,[%s]]" % (decision.write(made), decision.write_outcome(said))
    assert decision.read_row(row) == Remembered(made, (said,))


@pytest.mark.parametrize("at", [-1, 18_446_744_073_709_551_616])
def test_a_moment_that_no_date_can_be_written_of_is_none_of_ours(at: int) -> None:
    """Else whoever asks for that decision gets an error of ours."""
    written = orjson.loads(decision.write(of(record())))
    assert decision.read(orjson.dumps(written)) is not None
    assert decision.read(json.dumps({**written, "at": at}).encode()) is None


@pytest.mark.parametrize("seconds", [-(2**63), 2**63])
def test_a_time_to_the_first_token_that_never_was_is_none_of_ours(seconds: int) -> None:
    written = orjson.loads(decision.write(of(record())))
    written["candidates"][0]["first_token_seconds"] = 0.4
    assert decision.read(orjson.dumps(written)) is not None
    written["candidates"][0]["first_token_seconds"] = seconds
    assert decision.read(orjson.dumps(written)) is None


@given(st.binary())
def test_what_cannot_be_read_is_none(data: bytes) -> None:
    """One damaged row must not end a replay."""
    assert decision.read(data) is None
    assert decision.read_outcome(data) is None
    assert decision.read_row(data) is None


@pytest.mark.parametrize("models", [0, 1, 25, 500])
def test_a_decision_has_a_bound(models: int) -> None:
    """An upstream with a thousand models of long names must not fill the store."""
    long = "x" * 1000
    plan = Plan(
        tuple(Candidate(card(f"gpu/{n}{long}"), long) for n in range(models)),
        "cost",
        tuple(Excluded(f"gpu/{n}漢" + long, long) for n in range(models)),
        Verdict(0.5, 0.5, "code", "v", features=(0.1,) * 5000),
    )
    attempts = tuple(attempt(f"gpu/{n}{long}", "busy", "upstream") for n in range(models))
    flags = {f"{n}{long}": long for n in range(models)}
    made = of(record(plan=plan, model_requested=long, attempts=attempts, flags=flags, reason=long, agent=long))
    data = decision.write(made)
    assert len(data) <= BYTES_MAX
    found = decision.read(data)
    assert found is not None
    assert len(found.candidates) + found.more_candidates == models
    assert len(found.excluded) + found.more_excluded == models


@given(st.lists(st.floats(), max_size=600))
def test_any_features_can_be_packed(features: list[float]) -> None:
    packed = decision.pack_features(tuple(features))
    unpacked = decision.unpack_features(packed)
    assert len(unpacked) == min(len(features), decision.FEATURES_MAX)
    assert all(
        value == pytest.approx(was, rel=1e-3, abs=1e-4)
        for was, value in zip(features, unpacked, strict=False)
        if abs(was) < 65_000
    )


@pytest.mark.parametrize("packed", ["A", "AAAA", "!!!!"])
def test_features_that_were_not_packed_are_refused(packed: str) -> None:
    with pytest.raises(ValueError):
        decision.unpack_features(packed)


@pytest.mark.parametrize("flags", [{"x": object()}, {"x": [1]}, {"x": "\ud800"}])
def test_whatever_a_record_holds_can_be_written(flags: dict[str, Any]) -> None:
    decision.write(of(record(flags=flags, model_requested="\ud800", tenant="\udfff")))
