"""What is to be learned from every row, in one table whatever the row was labelled for.

`level` is how hard a request is: 0 for what every model can do, 1 for what only strong ones can. `gain` is how much
better a strong model answered than a weak one. Both are compared within a suite, because the models, the graders and
so the averages differ from suite to suite. The level follows mostly difficulty, which travels to prompts of other
kinds; the gain follows what can be won on a suite, of which much is how its two models and its grader behave. `effort`
is the level once more, of everyday requests alone: those that people wrote for an assistant, and our own.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from app.core.verdict import TASKS, TIER_NAMES
from app.lab.rows import RoutingRow, Rows, TaskRow, TierRow

TIER_LEVELS: Final = (0.0, 0.1, 0.9, 1.0)
EVERYDAY_LEVELS: Final = (-0.05, 0.42, 0.95, 1.1)
SUITE_LEVELS: Final[Mapping[str, float]] = {"mmlu": 0.35}
USUAL_LEVEL: Final = 0.5
GAIN_PART: Final = 0.2
DIFFICULTY_PART: Final = 0.9
"""How much of a row's distance from its suite's mean follows the gain, and how much the difficulty."""
ROUTING_WEIGHT: Final = 0.4
EVERYDAY_WEIGHT: Final = 6.0
USERS: Final = frozenset({"arena_hard_v0.1", "self_instruct", "vicuna_bench"})
"""Sources of tiers whose prompts people wrote for an assistant: they say what everyday requests ask for."""
EFFORT_PART: Final = 0.4
"""How much of an own row's weight counts in the head for everyday requests, where there is little else."""
PATTERN_WEIGHT: Final = 2.0
PATTERN_REPEATS: Final = 6
PHRASE_WEIGHT: Final = 0.5
PHRASE_REPEATS: Final = 4
OWN: Final = "tierway"
"""The source of the rows that were written for this project."""
_HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Lesson:
    """A weight of 0 says that nothing is known."""

    prompt: str
    source: str
    level: float = 0.0
    level_weight: float = 0.0
    gain: float = 0.0
    gain_weight: float = 0.0
    effort: float = 0.0
    effort_weight: float = 0.0
    task: int = -1
    task_weight: float = 0.0


def lessons_of(rows: Rows, seed: int) -> list[Lesson]:
    """All there is to learn: from the rows, and from what was written for this project."""
    return [
        *_from_routing(rows.routing),
        *map(_from_tier, rows.tier),
        *map(_from_task, rows.task),
        *_everyday(_read(_HERE / "effort.yaml"), EVERYDAY_WEIGHT),
        *_everyday(_filled(_read(_HERE / "asks.yaml"), random.Random(seed)), PATTERN_WEIGHT),
        *_phrases(_read(_HERE / "phrases.yaml"), random.Random(seed)),
    ]


def _from_routing(rows: Sequence[RoutingRow]) -> Iterator[Lesson]:
    for suite in sorted({row.suite for row in rows}):
        members = [row for row in rows if row.suite == suite]
        suite_level = SUITE_LEVELS.get(suite, USUAL_LEVEL)
        usual_gain = _mean(row.strong - row.weak for row in members)
        usual_difficulty = _mean(map(_difficulty, members))
        for row in members:
            gain = row.strong - row.weak - usual_gain
            level = suite_level + GAIN_PART * gain + DIFFICULTY_PART * (_difficulty(row) - usual_difficulty)
            yield Lesson(row.prompt, suite, level, ROUTING_WEIGHT, gain, 1.0)


def _difficulty(row: RoutingRow) -> float:
    """How surely it is too much for a small model: by many models where many were asked, else by the weak one."""
    return 1 - row.weak if row.hard is None else min(1.0, max(0.0, 2 * row.hard - 0.5))


def _from_tier(row: TierRow) -> Lesson:
    everyday = 1.0 if row.source in USERS else 0.0
    effort = EVERYDAY_LEVELS[row.tier]
    return Lesson(row.prompt, row.source, TIER_LEVELS[row.tier], 1.0, effort=effort, effort_weight=everyday)


def _from_task(row: TaskRow) -> Lesson:
    return Lesson(row.prompt, row.source, task=TASKS.index(row.task), task_weight=1.0)


def _everyday(texts: Mapping[str, Sequence[str]], weight: float) -> Iterator[Lesson]:
    for tier, prompts in texts.items():
        level = EVERYDAY_LEVELS[TIER_NAMES.index(tier)]
        for prompt in prompts:
            yield Lesson(prompt, OWN, level, weight, effort=level, effort_weight=EFFORT_PART * weight)


def _filled(texts: Mapping[str, Any], draw: random.Random) -> dict[str, list[str]]:
    """The patterns of every tier, each with several of what its braces name."""
    slots: Mapping[str, Sequence[str]] = texts["slots"]
    tiers = {tier: patterns for tier, patterns in texts.items() if tier != "slots"}
    return {
        tier: [_fill(pattern, slots, draw) for pattern in patterns for _ in range(PATTERN_REPEATS)]
        for tier, patterns in tiers.items()
    }


def _fill(pattern: str, slots: Mapping[str, Sequence[str]], draw: random.Random) -> str:
    for name, values in slots.items():
        pattern = pattern.replace(f"{{{name}}}", draw.choice(values))
    return pattern[:1].upper() + pattern[1:]


def _phrases(texts: Mapping[str, Sequence[str]], draw: random.Random) -> Iterator[Lesson]:
    """Each pattern with several of the things and tests it can be about."""
    slots = {"thing": texts["things"], "test": texts["tests"]}
    for task in TASKS:
        for pattern in texts[task]:
            for _ in range(PHRASE_REPEATS if "{" in pattern else 1):
                text = _fill(pattern, slots, draw)
                yield Lesson(text, OWN, task=TASKS.index(task), task_weight=PHRASE_WEIGHT)


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)
