"""What is learned from a row is what its label says, compared within its suite."""

from __future__ import annotations

import pytest

from app.core.verdict import TASKS
from app.lab.lessons import (
    DIFFICULTY_PART,
    EVERYDAY_LEVELS,
    EVERYDAY_WEIGHT,
    OWN,
    PATTERN_WEIGHT,
    ROUTING_WEIGHT,
    Lesson,
    lessons_of,
)
from app.lab.rows import RoutingRow, Rows, TaskRow, TierRow


def routed(suite: str, weak: float, strong: float, hard: float | None = None) -> RoutingRow:
    return RoutingRow("1", suite, f"{suite} {weak} {strong}", weak, strong, hard)


def from_rows(rows: Rows) -> list[Lesson]:
    return [lesson for lesson in lessons_of(rows, 0) if lesson.source != OWN]


def test_gains_are_compared_within_their_suite() -> None:
    """Or the router would learn which examination a prompt is from, and nothing else."""
    rows = Rows(routing=(routed("a", 0, 1), routed("a", 1, 1), routed("b", 0, 0), routed("b", 0, 1)))
    gains = {(lesson.source, lesson.prompt): lesson.gain for lesson in from_rows(rows)}
    assert gains == {("a", "a 0 1"): 0.5, ("a", "a 1 1"): -0.5, ("b", "b 0 0"): -0.5, ("b", "b 0 1"): 0.5}


def test_the_level_follows_gain_and_difficulty() -> None:
    """What both fail is harder than what both can do, and what only the strong one can is above its suite's mean."""
    rows = Rows(routing=tuple(routed("gsm8k", *pair) for pair in ((0, 1), (1, 1), (0, 0), (1, 0))))
    only_strong, both, neither, only_weak = (lesson.level for lesson in from_rows(rows))
    assert only_strong > neither > only_weak and neither > both
    assert all(lesson.level_weight == ROUTING_WEIGHT for lesson in from_rows(rows))


def test_many_models_say_more_than_one() -> None:
    """Where twelve models were asked, difficulty is their failures and not the luck of one."""
    rows = Rows(routing=(routed("mmlu_pro", 1, 1, 0.9), routed("mmlu_pro", 1, 1, 0.1)))
    hard, easy = from_rows(rows)
    assert hard.level - easy.level == pytest.approx(DIFFICULTY_PART)


def test_tiers_and_tasks_keep_to_their_own() -> None:
    """A row labelled for one question must not teach another."""
    tier, task = from_rows(Rows(tier=(TierRow("1", "math", "p", 3),), task=(TaskRow("2", "w", "k", "q", "docs"),)))
    assert (tier.level, tier.level_weight, tier.gain_weight, tier.task_weight) == (1.0, 1.0, 0.0, 0.0)
    assert (task.task, task.task_weight, task.level_weight) == (TASKS.index("docs"), 1.0, 0.0)


def test_own_sentences_teach_all_task_types_and_tiers() -> None:
    """Short everyday requests are what the public data lack."""
    own = lessons_of(Rows(), 0)
    assert {lesson.task for lesson in own if lesson.task_weight} == set(range(len(TASKS)))
    everyday = [lesson for lesson in own if lesson.level_weight]
    assert {lesson.level_weight for lesson in everyday} == {EVERYDAY_WEIGHT, PATTERN_WEIGHT}
    assert {lesson.level for lesson in everyday} == set(EVERYDAY_LEVELS)
    patterns = [lesson for lesson in own if lesson.task_weight or lesson.level_weight == PATTERN_WEIGHT]
    assert not any("{" in lesson.prompt.replace("{}", "") for lesson in patterns)


def test_examinations_say_nothing_of_everyday_effort() -> None:
    """What asks for much in daily use is learned apart, or fifteen thousand exam questions would drown it."""
    tiers = (TierRow("1", "math", "p", 3), TierRow("2", "vicuna_bench", "q", 1))
    suite, exam, chat = from_rows(Rows(routing=(routed("mmlu", 0, 1),), tier=tiers))
    assert (exam.effort_weight, suite.effort_weight) == (0.0, 0.0)
    assert (chat.effort_weight, chat.effort) == (1.0, EVERYDAY_LEVELS[1])


def test_a_small_and_a_large_ask_can_be_about_the_same_thing() -> None:
    """So that what is asked for decides, and not how grand the thing sounds that it is about."""
    asks = [lesson for lesson in lessons_of(Rows(), 0) if lesson.level_weight == PATTERN_WEIGHT]
    for thing in ("binary tree", "Rust"):
        assert len({ask.level for ask in asks if thing in ask.prompt}) >= 2, thing


def test_the_seed_decides_the_sentences() -> None:
    assert lessons_of(Rows(), 1) == lessons_of(Rows(), 1)
    assert lessons_of(Rows(), 1) != lessons_of(Rows(), 2)
