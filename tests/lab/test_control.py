"""A router that knows nothing must not pass."""

from __future__ import annotations

import numpy as np

from app.lab.control import costs, decision_control, routing_control
from app.lab.metrics import Curve

RANDOM = np.random.default_rng(2)
GAINS = (RANDOM.random(800) < 0.3).astype(float)
NOISE = RANDOM.random(800)


def test_knowledge_passes_and_noise_does_not() -> None:
    """The exit code of `eval` hangs on this: no claim without proof."""
    flat = np.ones(800)
    assert routing_control({"a": (GAINS + NOISE, GAINS, flat)}, 1, draws=100).better
    assert not routing_control({"a": (NOISE, GAINS, flat)}, 1, draws=100).better


def test_knowing_the_suite_wins_nothing() -> None:
    """To tell examinations apart is no routing: within each the order is noise, and so it must fail."""
    hard = (RANDOM.random(800) < 0.8).astype(float)
    suites = {"easy": (NOISE, GAINS, np.ones(800)), "hard": (NOISE + 5, hard, np.ones(800))}
    assert not routing_control(suites, 1, draws=100).better


def test_the_control_spends_the_same() -> None:
    """Picking dear prompts that gain no more than others looks like chance by calls, and is worse at equal cost."""
    spent = 1 + 50 * NOISE
    assert abs(Curve(spent, GAINS).area() - 0.5) < 0.05
    result = routing_control({"a": (spent, GAINS, spent)}, 1, draws=100)
    assert result.high < -0.05


def test_decisions_are_compared_with_their_own_shuffle() -> None:
    truths = RANDOM.integers(0, 3, 400)
    assert decision_control(truths, truths, 1, draws=100).better
    assert not decision_control(np.zeros(400, dtype=int), truths, 1, draws=100).better


def test_longer_prompts_cost_more() -> None:
    short, long = costs(["hi", "hi " * 1_000])
    assert long > short > 0
