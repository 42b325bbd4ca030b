"""What is made for every request stands for itself: by what it holds, whoever made it, and unchanged."""

from __future__ import annotations

from dataclasses import field, replace
from pathlib import Path

from mypy import api

from app.core.value import value

CHANGES = """
from app.core.plan import Plan
from app.core.record import Attempt, Record
from app.core.request import Embeddings, EmbeddingRequest, Request, Terms
from app.core.verdict import Verdict

def change(
    plan: Plan, record: Record, attempt: Attempt, request: Request, other: EmbeddingRequest, terms: Terms,
    vectors: Embeddings, verdict: Verdict
) -> None:
    plan.strategy = "quality"
    record.status = 500
    attempt.outcome = "left"
    request.model = "another"
    other.model = "another"
    terms.deadline = 1.0
    vectors.model = "another"
    verdict.score = 0.9
"""


@value(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0
    note: str = field(default="", compare=False)


def test_two_of_the_same_are_one() -> None:
    """They are keys of what is remembered: two that differ would each be worked out anew, and never be forgotten."""
    assert Point(1, 2) == Point(1, 2, "other") != Point(2, 1)
    assert len({Point(1, 2), Point(1, 2, "other"), Point(2, 1)}) == 2


def test_a_copy_differs_in_what_was_said_and_leaves_the_first_alone() -> None:
    """A request that was changed for one upstream must reach the next as it came."""
    first = Point(1, 2)
    assert replace(first, y=3) == Point(1, 3)
    assert first == Point(1, 2)


def test_no_code_that_changes_one_passes_the_type_checker(tmp_path: Path) -> None:
    """Many share them: what one reader changed would be told to the next, and what a caller sent edited silently."""
    source = tmp_path / "changes.py"
    source.write_text(CHANGES)
    said, _, _ = api.run(["--config-file=", "--strict", f"--cache-dir={tmp_path / 'cache'}", str(source)])
    assert said.count("is read-only") == CHANGES.count(" = ") == 8, said
