"""The test a router must pass before it may route: is it better than the same decisions dealt out at random?

The control spends exactly as much. For choosing between two models it sends shuffled rows to the strong one, both are
compared at equal cost (not at equal numbers of calls, for a router may like long prompts), and suites are kept apart,
so that knowing which suite is hard wins nothing. For tiers and task types its decisions are the router's, shuffled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.lab.metrics import DRAWS, Curve, share

Floats = NDArray[np.float64]

ANSWER_TOKENS: Final = 400
"""What an answer is taken to cost, in tokens of prompt; output is dearer than input."""
CHARS_PER_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class Against:
    """The router's figure, the control's, and the 95 % interval of the difference."""

    router: float
    control: float
    low: float
    high: float

    @property
    def better(self) -> bool:
        return self.low > 0


def costs(prompts: Sequence[str]) -> Floats:
    """What sending each prompt to the strong model costs, up to a factor."""
    return np.array([len(prompt) / CHARS_PER_TOKEN + ANSWER_TOKENS for prompt in prompts])


def routing_control(suites: Mapping[str, tuple[Floats, Floats, Floats]], seed: int, draws: int = DRAWS) -> Against:
    """Over the suites' scores, gains and costs: the part of the whole gap that is won, averaged over shares of cost.
    Suites count by the gap they hold, so that a small one without any does not drown the others in noise."""
    random = np.random.default_rng(seed)
    curves = [(Curve(*parts), parts) for parts in suites.values()]
    router, control = [], []
    for _ in range(draws):
        ours, theirs = [], []
        for curve, (scores, gains, spent) in curves:
            counts = _drawn(random, len(scores))
            ours.append(curve.won(counts))
            theirs.append(Curve(random.permutation(scores), gains, spent).won(counts))
        router.append(_part(ours))
        control.append(_part(theirs))
    return _against(_part([curve.won() for curve, _ in curves]), np.array(router), np.array(control))


def _part(won: Sequence[tuple[float, float]]) -> float:
    total = sum(whole for _, whole in won)
    return sum(part for part, _ in won) / total if total else float("nan")


def decision_control(guesses: NDArray[Any], truths: NDArray[Any], seed: int, draws: int = DRAWS) -> Against:
    """Over the share of right decisions."""
    random = np.random.default_rng(seed)
    router, control = [], []
    for _ in range(draws):
        counts = _drawn(random, len(guesses))
        router.append(share(guesses == truths, counts))
        control.append(share(random.permutation(guesses) == truths, counts))
    return _against(share(guesses == truths), np.array(router), np.array(control))


def _drawn(random: np.random.Generator, rows: int) -> Floats:
    return random.multinomial(rows, np.full(rows, 1 / rows)).astype(np.float64)


def _against(figure: float, router: Floats, control: Floats) -> Against:
    low, high = np.nanquantile(router - control, (0.025, 0.975))
    return Against(figure, float(np.nanmean(control)), float(low), float(high))
