"""Raw values into probabilities, on rows the weights were not fitted on. One slope and one offset each, so that the
order of prompts stays and little can be overfitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.core.verdict import TASKS
from app.lab.evaluate import HARD, Judged
from app.routing.classifier import TEXT_HEADS

Floats = NDArray[np.float64]

GAIN_LEVEL: Final = 0.25
FAMILIAR_QUANTILE: Final = 0.05
PLAIN: Final[Mapping[str, float]] = {
    "slope": 1.0,
    "offset": 0.0,
    "gain_slope": 1.0,
    "gain_offset": 0.0,
    "gain_level": GAIN_LEVEL,
    "task_scale": 1.0,
    "familiar": 1.0,
}
_HEADS_AT: Final = 3  # where a verdict's features hold the linear heads, behind level, gain and familiarity
ROUNDS: Final = 50
_SCALES: Final = np.linspace(1.0, 20.0, 77)


def platt(values: Floats, truths: NDArray[Any]) -> tuple[float, float]:
    """Slope and offset of the log-odds of truths that are 0 or 1, by Newton's method."""
    inputs = np.column_stack((values, np.ones(len(values))))
    wanted = truths.astype(np.float64)
    found = np.zeros(2)
    for _ in range(ROUNDS):
        shares = 1 / (1 + np.exp(-inputs @ found))
        curve = (inputs * (shares * (1 - shares))[:, None]).T @ inputs + 1e-6 * np.eye(2)
        step = np.linalg.solve(curve, inputs.T @ (wanted - shares))
        found += step
        if np.abs(step).max() < 1e-9:
            break
    return float(found[0]), float(found[1])


def task_scale(values: Floats, truths: NDArray[Any]) -> float:
    """The scale at which the shares of the task types are most likely."""

    def loss(scale: float) -> float:
        powers = np.exp(scale * (values - values.max(axis=1, keepdims=True)))
        shares = powers / powers.sum(axis=1, keepdims=True)
        return float(-np.log(shares[np.arange(len(truths)), truths]).mean())

    return float(min(_SCALES, key=loss))


def calibrated(raw: Judged) -> dict[str, float]:
    """The calibration for verdicts that were made with the plain one."""
    tier, routing, task = (
        np.array([verdict.features for _, verdict in kind]) for kind in (raw.tier, raw.routing, raw.task)
    )
    slope, offset = platt(tier[:, 0], np.array([row.tier >= HARD for row, _ in raw.tier]))
    gain = routing[:, 1] + GAIN_LEVEL * routing[:, 0]
    gain_slope, gain_offset = platt(gain, np.array([row.strong > row.weak for row, _ in raw.routing]))
    heads = task[:, _HEADS_AT + len(TEXT_HEADS) :][:, : len(TASKS)]
    return {
        "slope": slope,
        "offset": offset,
        "gain_slope": gain_slope,
        "gain_offset": gain_offset,
        "gain_level": GAIN_LEVEL,
        "task_scale": task_scale(heads, np.array([TASKS.index(row.task) for row, _ in raw.task])),
        "familiar": float(np.quantile(np.concatenate((tier, routing, task))[:, 2], FAMILIAR_QUANTILE)),
    }
