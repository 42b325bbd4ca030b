"""The models still in the running for a request, and what each is expected to do, as columns: a plan looks at every
model, so nothing is made per model that is not needed. Who is left out is kept with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import compress, repeat
from typing import Final, NamedTuple, cast

from app.core.card import Card
from app.core.errors import GatewayError
from app.core.plan import Candidate, Estimate
from app.routing.profiles import Profile

_Estimate: Final = cast(
    Callable[[tuple[int | None, float | None, float | None]], Estimate], partial(tuple.__new__, Estimate)
)
_Candidate: Final = cast(Callable[[tuple[Card, str, None, Estimate]], Candidate], partial(tuple.__new__, Candidate))


class Why(NamedTuple):
    """Why a model is left out: words for people, and the error if that leaves none."""

    words: str
    error: Callable[[], GatewayError]


Left = Sequence[tuple[Card, Why]]
Rule = Callable[[Profile, int | None], Why | None]
"""Why a Profile that costs so many nano-dollars must be left out, if so."""


class Field:
    """`costs` in nano-dollars, `seconds` to the first token; None is unknown. `successes` are None without a verdict.
    No window is smaller than `smallest`, in tokens."""

    __slots__ = ("costs", "left", "profiles", "seconds", "smallest", "successes")

    def __init__(
        self,
        profiles: Sequence[Profile],
        costs: list[int | None],
        seconds: list[float | None],
        successes: list[float] | None,
        smallest: int = 0,
    ) -> None:
        self.profiles = profiles
        self.costs = costs
        self.seconds = seconds
        self.successes = successes
        self.smallest = smallest
        self.left: list[tuple[Card, Why]] = []

    def index(self, model_id: str | None) -> int | None:
        """Where the model with this full id is."""
        if model_id is None:
            return None
        return next((at for at, each in enumerate(self.profiles) if each.card.id == model_id), None)

    def leave_out(self, rule: Rule, *, but_never_all: bool = False) -> None:
        """Takes out whom the rule gives a reason."""
        reasons = list(map(rule, self.profiles, self.costs))
        if not any(reasons) or (but_never_all and all(reasons)):
            return
        self.left += [(each.card, why) for each, why in zip(self.profiles, reasons, strict=True) if why is not None]
        rest = self.only([why is None for why in reasons])
        self.profiles, self.costs, self.seconds, self.successes = (
            rest.profiles,
            rest.costs,
            rest.seconds,
            rest.successes,
        )

    def only(self, which: Sequence[bool]) -> Field:
        """Those for which it says so, as a field of their own."""
        return Field(
            list(compress(self.profiles, which)),
            list(compress(self.costs, which)),
            list(compress(self.seconds, which)),
            None if self.successes is None else list(compress(self.successes, which)),
            self.smallest,
        )

    def candidates(self, order: Sequence[int], reasons: Sequence[str]) -> list[Candidate]:
        """In this order, each with its reason and its estimate."""
        profiles, successes = self.profiles, self.successes or repeat(None)
        estimates = list(map(_Estimate, zip(self.costs, self.seconds, successes, strict=False)))
        return [_Candidate((profiles[at].card, reasons[at], None, estimates[at])) for at in order]
