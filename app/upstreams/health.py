"""The breakers of all (upstream, model) pairs, and what an attempt's outcome means for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from app.core.card import Card
from app.core.clock import Clock
from app.core.errors import Blame, GatewayError, Refused, Throttled
from app.upstreams.breaker import Breaker, BreakerSettings, State

THROTTLE_SECONDS: Final = 5.0  # when a 429 does not say how long
THROTTLE_MAX: Final = 3_600.0  # whatever a 429 says
DEFAULT: Final = BreakerSettings()

StateObserver = Callable[[str, str, State], None]


class Health:
    """`observe(upstream, model, state)` is told whenever a breaker changes its state."""

    def __init__(self, settings: Mapping[str, BreakerSettings], clock: Clock, observe: StateObserver) -> None:
        self._settings = settings
        self._clock = clock
        self._observe = observe
        self._breakers: dict[str, Breaker] = {}
        self._seen: dict[str, State] = {}

    def breaker(self, card: Card) -> Breaker:
        breaker = self._breakers.get(card.id)
        if breaker is None:
            breaker = self._breakers[card.id] = Breaker(self._settings.get(card.upstream, DEFAULT))
        return breaker

    def state(self, card: Card) -> State:
        return self.breaker(card).state(self._clock.monotonic())

    def demoted(self, card: Card) -> str | None:
        """Why this model should wait behind the others now, in words for people; None when it need not."""
        breaker = self._breakers.get(card.id)
        if breaker is None:
            return None
        now = self._clock.monotonic()
        if breaker.throttled_until > now:
            return "throttled"
        return None if breaker.admits(now) else "failing lately"

    def throttled_seconds(self, card: Card) -> float:
        """How long the upstream asked us to wait with this model; 0 when not at all."""
        return max(0.0, self.breaker(card).throttled_until - self._clock.monotonic())

    def started(self, card: Card) -> None:
        breaker, now = self.breaker(card), self._clock.monotonic()
        breaker.started(now)
        self._tell(card.id, breaker, now)

    def ended(self, card: Card, error: BaseException | None) -> None:
        """An attempt is over: well (None), or with this error."""
        breaker, now = self.breaker(card), self._clock.monotonic()
        match error:
            case None:
                breaker.succeeded(now)
            case Throttled():
                breaker.throttled(now + min(error.retry_after or THROTTLE_SECONDS, THROTTLE_MAX))
                breaker.abandoned(now)
            case Refused():
                self._refused(card, now)
            case GatewayError(blame=Blame.UPSTREAM):
                breaker.failed(now)
            case _:
                breaker.abandoned(now)
        self._tell(card.id, breaker, now)

    def _refused(self, card: Card, now: float) -> None:
        """Nothing listens there: that is true for all models of the upstream we know of."""
        for id_, breaker in self._breakers.items():
            if id_.startswith(f"{card.upstream}/"):
                breaker.failed(now, refused=True)
                self._tell(id_, breaker, now)

    def _tell(self, id_: str, breaker: Breaker, now: float) -> None:
        state = breaker.state(now)
        if self._seen.get(id_, State.CLOSED) is not state:
            self._seen[id_] = state
            upstream, _, model = id_.partition("/")
            self._observe(upstream, model, state)
