"""Raw values into probabilities, on rows the weights were not fitted on. One slope and one offset each, so that the
order of prompts stays and little can be overfitted."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

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
