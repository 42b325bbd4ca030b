"""What the plan must be told because only I/O or time can tell: health, load, what was observed, what came before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.core.card import Card
from app.core.value import value


def well(card: Card) -> str | None:
    """Nothing speaks against any model."""
    return None


def idle(card: Card) -> float:
    """Nothing is in use."""
    return 0.0


def unknown(card: Card) -> float | None:
    """Nothing was observed."""
    return None


@value(frozen=True, slots=True)
class Observed:
    """What this installation saw of a model on a task type and tier: mean quality, and of how many scored answers."""

    mean: float
    count: int


def unseen(card: Card, task_type: str, tier: str) -> Observed | None:
    return None


@value(frozen=True, slots=True)
class Signals:
    """`demoted` says in words why a model should wait behind the others; `load` is the share of an upstream's ceiling
    in use (above 1: a queue); `first_token` its usual seconds to the first token. `previous` is the full id of the
    model that served the conversation before, `in_tool_loop` that this turn only carries tool results,
    `history_tokens` what a switch would have to be read again. `draw` is chance, 0 to 1, handed in so that plans can be
    repeated. `emergency` is the trigger that allows paid upstreams under `cloud: emergency`."""

    demoted: Callable[[Card], str | None] = well
    load: Callable[[Card], float] = idle
    first_token: Callable[[Card], float | None] = unknown
    observed: Callable[[Card, str, str], Observed | None] = unseen
    previous: str | None = None
    in_tool_loop: bool = False
    history_tokens: int = 0
    draw: float = 1.0
    emergency: str | None = None


QUIET: Final = Signals()
"""Nothing is known, and nothing speaks against anything."""
