"""Calibration promises a measured overshoot. Broken, it would quietly break budgets, or never lower anything."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from app.spend.calibration import CLASSES, MODELS_MAX, REMEMBERED, SIZES, Calibration


def unheard(over: bool) -> None:
    """Nobody counts."""


def taught(
    shares: list[float], strict: int = 2_000, quantile: float = 0.9, told: Callable[[bool], None] = unheard
) -> Calibration:
    calibration = Calibration(told, quantile)
    for share in shares:
        calibration.learn("m", strict, calibration.fit("m", strict), round(strict * share))
    return calibration


def test_what_is_not_known_is_bounded_strictly() -> None:
    """Nine shares cannot bound the tenth with a probability of 0.95."""
    assert Calibration(unheard).fit("m", 100) == 100
    assert taught([0.1] * 15, quantile=0.95).fit("m", 2_000) == 2_000
    assert taught([0.1] * 64, quantile=0.95).fit("m", 2_000) < 300
    assert taught([0.1] * 64, quantile=0.95).fit("other", 2_000) == 2_000


def test_sizes_are_apart() -> None:
    """Short prompts are mostly framing; what they teach says nothing of long ones."""
    calibration = taught([0.1] * 64, strict=500)
    assert calibration.fit("m", 500) < 100
    for size in SIZES:
        assert calibration.fit("m", size) == size


def test_the_bound_is_never_raised() -> None:
    calibration = taught([3.0] * 100)
    assert calibration.fit("m", 2_000) == 2_000


def test_empty_prompts_do_no_harm() -> None:
    calibration = Calibration(unheard, 0.5)
    for _ in range(100):
        calibration.learn("m", 0, 0, 0)
    assert calibration.fit("m", 0) == 0


@pytest.mark.parametrize("quantile", [0.9, 0.99])
def test_the_promise_is_kept_and_measured(quantile: float) -> None:
    """Shares that scatter: of those that come later, no more than promised are above what was reckoned with."""
    chance = random.Random(7)
    shares = [min(1.0, chance.lognormvariate(-1.4, 0.3)) for _ in range(20_000)]
    told: list[bool] = []
    calibration = taught(shares, quantile=quantile, told=told.append)
    assert len(told) > 15_000 and 0 < sum(told) / len(told) <= 1 - quantile
    assert calibration.fit("m", 2_000) < 1_200


def test_an_overshoot_is_told() -> None:
    told: list[bool] = []
    calibration = taught([0.1] * 64, told=told.append)
    assert told and not any(told)
    before = len(told)
    calibration.learn("m", 2_000, calibration.fit("m", 2_000), 1_900)
    assert told[before:] == [True]


def test_the_old_fades() -> None:
    """A model whose tokenizer changes is learned anew, and not only after years."""
    calibration = taught([0.1] * REMEMBERED)
    for _ in range(REMEMBERED // 2):
        calibration.learn("m", 2_000, 2_000, 1_000)
    assert calibration.fit("m", 2_000) > 1_000


def test_state_is_bounded() -> None:
    """Names of models come from servers; a server that makes up names must not fill the memory."""
    calibration = Calibration(unheard)
    for number in range(MODELS_MAX + 10):
        calibration.learn(f"m{number}", 100, 100, 10)
    assert len(calibration._models) == MODELS_MAX
    assert all(len(shares.counts) == CLASSES for model in calibration._models.values() for shares in model.shares)
