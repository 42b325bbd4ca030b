"""The breakers of all (upstream, model) pairs, and what an attempt's outcome means for them."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Final

from app.core.card import Card
from app.core.clock import Clock
from app.core.errors import Blame, GatewayError, Refused, Throttled, UpstreamFault
from app.upstreams.breaker import Breaker, BreakerSettings, State
from app.upstreams.traffic import Traffic

THROTTLE_SECONDS: Final = 5.0  # when a 429 does not say how long
THROTTLE_MAX: Final = 3_600.0  # whatever a 429 says
DEFAULT: Final = BreakerSettings()
SEVERITY: Final = (State.CLOSED, State.HALF_OPEN, State.OPEN)

StateObserver = Callable[[str, str, State], None]


@dataclass(frozen=True, slots=True)
class ModelHealth:
    """One model at one moment. `open_seconds`: for how long its breaker stays open; `throttled_seconds`: how long its
    upstream asked us to wait."""

    model: str
    state: State
    open_seconds: float
    throttled_seconds: float


def _awake(upstream: str) -> bool:
    return True


class Health:
    """`observe(upstream, model, state)` is told whenever a breaker changes its state. `drained` are the upstreams that
    an operator wants to get nothing new, `awake` tells of those that would let a request wait for ever; like the sick,
    they wait behind the others and are never shut out. `traffic` is told of every call as well.

    Whether a connection can be made concerns all models of an upstream, called before or not, so each upstream that
    ever refused one has a breaker of its own: its door."""

    def __init__(
        self,
        settings: Mapping[str, BreakerSettings],
        clock: Clock,
        observe: StateObserver,
        traffic: Traffic | None = None,
        awake: Callable[[str], bool] = _awake,
    ) -> None:
        self.traffic = Traffic() if traffic is None else traffic
        self.drained: frozenset[str] = frozenset()
        self._settings = settings
        self.clock = clock
        self._observe = observe
        self._awake = awake
        self._breakers: dict[str, Breaker] = {}
        self._doors: dict[str, Breaker] = {}
        self._seen: dict[str, State] = {}

    def configure(self, settings: Mapping[str, BreakerSettings]) -> None:
        """From now on these count, per upstream; what is known of health stays."""
        self._settings = settings
        for id_, breaker in self._breakers.items():
            breaker.configure(settings.get(id_.partition("/")[0], DEFAULT))
        for upstream, door in self._doors.items():
            door.configure(settings.get(upstream, DEFAULT))

    def inherit(self, before: Health, upstreams: Container[str]) -> None:
        """What is known of the health of these upstreams, shared with whoever knows it already. To be configured
        afterwards: until then it goes by what counted before."""
        kept = {id_: one for id_, one in before._breakers.items() if id_.partition("/")[0] in upstreams}
        self._breakers, self._seen = kept, {id_: one for id_, one in before._seen.items() if id_ in kept}
        self._doors = {name: one for name, one in before._doors.items() if name in upstreams}

    def state(self, card: Card) -> State:
        return self._state(card.id, card.upstream, self.clock.monotonic())

    def demoted(self, card: Card) -> str | None:
        """Why this model should wait behind the others now, in words for people; None when it need not."""
        if card.upstream in self.drained:
            return "drained by an operator"
        if not self._awake(card.upstream):
            return "asleep or away"
        breaker, door = self._breakers.get(card.id), self._doors.get(card.upstream)
        if breaker is None and door is None:
            return None
        now = self.clock.monotonic()
        if breaker is not None and breaker.throttled_until > now:
            return "throttled"
        admitted = (breaker is None or breaker.admits(now)) and (door is None or door.admits(now))
        return None if admitted else "failing lately"

    def refuses(self, upstream: str) -> bool:
        """Whether no connection could be made there lately."""
        door = self._doors.get(upstream)
        return door is not None and door.state(self.clock.monotonic()) is not State.CLOSED

    def throttled_seconds(self, card: Card) -> float:
        """How long the upstream asked us to wait with this model; 0 when not at all."""
        return max(0.0, self._breaker(card).throttled_until - self.clock.monotonic())

    def snapshot(self, upstream: str) -> tuple[ModelHealth, ...]:
        """The models of an upstream that were called so far."""
        now, door = self.clock.monotonic(), self._doors.get(upstream)
        shut = 0.0 if door is None else door.open_seconds(now)
        return tuple(
            ModelHealth(
                id_,
                self._state(id_, upstream, now),
                max(shut, one.open_seconds(now)),
                max(0.0, one.throttled_until - now),
            )
            for id_, one in self._breakers.items()
            if _is_at(id_, upstream)
        )

    def reset(self, upstream: str) -> None:
        """Forgets all failures and throttles of an upstream's models."""
        self._doors.pop(upstream, None)
        now = self.clock.monotonic()
        for id_, breaker in self._breakers.items():
            if _is_at(id_, upstream):
                breaker.reset()
                breaker.throttled_until = 0.0
                self._tell(id_, upstream, now)

    def started(self, card: Card) -> None:
        self.traffic.started(card.upstream)
        breaker, now = self._breaker(card), self.clock.monotonic()
        breaker.started(now)
        if (door := self._doors.get(card.upstream)) is None:
            self._tell(card.id, card.upstream, now)
        else:
            door.started(now)
            self._tell_all(card.upstream, now)

    def ended(self, card: Card, error: BaseException | None) -> None:
        """An attempt is over: well (None), or with this error."""
        self.traffic.ended(card.upstream)
        breaker, now = self._breaker(card), self.clock.monotonic()
        match error:
            case None:
                breaker.succeeded(now)
            case Throttled():
                breaker.throttled(now + min(error.retry_after or THROTTLE_SECONDS, THROTTLE_MAX))
                breaker.abandoned(now)
            case GatewayError(blame=Blame.UPSTREAM) if not isinstance(error, Refused):
                breaker.failed(now)
            case _:
                breaker.abandoned(now)
        if isinstance(error, Refused) or card.upstream in self._doors:
            self._passed(card.upstream, error, now)
            self._tell_all(card.upstream, now)
        else:
            self._tell(card.id, card.upstream, now)

    def _passed(self, upstream: str, error: BaseException | None, now: float) -> None:
        """What an attempt's end says about the way there."""
        door = self._doors.get(upstream) or Breaker(self._settings.get(upstream, DEFAULT))
        self._doors[upstream] = door
        connected = (
            isinstance(error, UpstreamFault) and door.state(now) is State.HALF_OPEN
        )  # else it may be from before
        if isinstance(error, Refused):
            door.failed(now, refused=True)
        elif error is None or connected:
            door.succeeded(now)
        else:
            door.abandoned(now)
        if door.state(now) is State.CLOSED:
            del self._doors[upstream]

    def _breaker(self, card: Card) -> Breaker:
        breaker = self._breakers.get(card.id)
        if breaker is None:
            breaker = self._breakers[card.id] = Breaker(self._settings.get(card.upstream, DEFAULT))
        return breaker

    def _state(self, id_: str, upstream: str, now: float) -> State:
        """The worse of the model's own and its upstream's."""
        own, door = self._breakers.get(id_), self._doors.get(upstream)
        state = State.CLOSED if own is None else own.state(now)
        return state if door is None else max(state, door.state(now), key=SEVERITY.index)

    def _tell_all(self, upstream: str, now: float) -> None:
        for id_ in self._breakers:
            if _is_at(id_, upstream):
                self._tell(id_, upstream, now)

    def _tell(self, id_: str, upstream: str, now: float) -> None:
        state = self._state(id_, upstream, now)
        if self._seen.get(id_, State.CLOSED) is not state:
            self._seen[id_] = state
            self._observe(upstream, id_.partition("/")[2], state)


def _is_at(id_: str, upstream: str) -> bool:
    return id_.startswith(f"{upstream}/")
