"""The breakers of all (upstream, model) pairs, and what an attempt's outcome means for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from app.core.card import Card
from app.core.clock import Clock
from app.core.errors import Blame, GatewayError, Refused, Throttled
from app.upstreams.breaker import Breaker, BreakerSettings, State
from app.upstreams.traffic import Traffic

THROTTLE_SECONDS: Final = 5.0  # when a 429 does not say how long
THROTTLE_MAX: Final = 3_600.0  # whatever a 429 says
DEFAULT: Final = BreakerSettings()

StateObserver = Callable[[str, str, State], None]


@dataclass(frozen=True, slots=True)
class ModelHealth:
    """One model at one moment. `open_seconds`: for how long its breaker stays open; `throttled_seconds`: how long its
    upstream asked us to wait."""

    model: str
    state: State
    open_seconds: float
    throttled_seconds: float


class Health:
    """`observe(upstream, model, state)` is told whenever a breaker changes its state. `drained` are the upstreams that
    an operator wants to get nothing new; like the sick, they wait behind the others and are never shut out. `traffic`
    is told of every call as well."""

    def __init__(
        self,
        settings: Mapping[str, BreakerSettings],
        clock: Clock,
        observe: StateObserver,
        traffic: Traffic | None = None,
    ) -> None:
        self.traffic = Traffic() if traffic is None else traffic
        self.drained: frozenset[str] = frozenset()
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
        if card.upstream in self.drained:
            return "drained by an operator"
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

    def snapshot(self, upstream: str) -> tuple[ModelHealth, ...]:
        """The models of an upstream that were called so far."""
        now = self._clock.monotonic()
        return tuple(
            ModelHealth(id_, one.state(now), one.open_seconds(now), max(0.0, one.throttled_until - now))
            for id_, one in self._breakers.items()
            if _is_at(id_, upstream)
        )

    def reset(self, upstream: str) -> None:
        """Forgets all failures and throttles of an upstream's models."""
        now = self._clock.monotonic()
        for id_, breaker in self._breakers.items():
            if _is_at(id_, upstream):
                breaker.reset()
                breaker.throttled_until = 0.0
                self._tell(id_, breaker, now)

    def started(self, card: Card) -> None:
        self.traffic.started(card.upstream)
        breaker, now = self.breaker(card), self._clock.monotonic()
        breaker.started(now)
        self._tell(card.id, breaker, now)

    def ended(self, card: Card, error: BaseException | None) -> None:
        """An attempt is over: well (None), or with this error."""
        self.traffic.ended(card.upstream)
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
            if _is_at(id_, card.upstream):
                breaker.failed(now, refused=True)
                self._tell(id_, breaker, now)

    def _tell(self, id_: str, breaker: Breaker, now: float) -> None:
        state = breaker.state(now)
        if self._seen.get(id_, State.CLOSED) is not state:
            self._seen[id_] = state
            upstream, _, model = id_.partition("/")
            self._observe(upstream, model, state)


def _is_at(id_: str, upstream: str) -> bool:
    return id_.startswith(f"{upstream}/")
