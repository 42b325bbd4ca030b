"""Which limits bind a request, as counters of the store: those of the file, the key's own, what an operator changed at
run time, and what the caller set for this request or its session.

Nothing here asks the store. Every limit that matches binds: a narrower one adds to a wider one and does not replace it.
Whatever a caller chose (an agent, a session, a request id) is hashed before it becomes part of a key, together with who
the caller is, and shortened before it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Final, NamedTuple

from app.config.schema import BudgetPolicy, BudgetRule
from app.core.caller import Caller
from app.core.errors import BudgetExceeded
from app.core.money import NANO_PER_USD
from app.core.request import Terms
from app.core.spending import Counter
from app.spend.periods import span, zone_of
from app.store import layout

EVERYTHING: Final = "global:*:day"
"""The limit that always exists, if only to count."""
SHOWN: Final = 64  # characters of a name that a caller chose
REMEMBERED: Final = 10_000
DAY_MS: Final = 86_400_000
PARTITIONS: Final = {"day": "spend-day", "month": "spend-month", "total": "spend"}
OWN: Final = ":own:"  # in a key: a limit that a caller set, and no operator
OWN_SESSION: Final = f"{layout.PARTITIONS['spend-session'].prefix}{OWN}"
OWN_REQUEST: Final = f"{layout.PARTITIONS['spend-request'].prefix}{OWN}"
REQUEST_KEEP_MS: Final = layout.lifetime("spend-request") * 1_000

Subject = tuple[str, tuple[str, ...], str | None]
"""A scope, the names by which an entry may match in it, and the one that tells it from others."""


class Limit(NamedTuple):
    """One limit, for one or for each of many. `limit_nano` None counts without limiting."""

    id: str
    scope: str
    match: str
    period: str
    zone: tzinfo
    limit_nano: int | None
    shared: bool = False


class Standing(NamedTuple):
    """A limit and one that it counts for; `who` is None where it counts all together."""

    limit: Limit
    who: str | None
    counter: Counter


class Budgets:
    """`changed` are limits in nano-dollars by id, as an operator put them at run time: they win. `agents` and
    `sessions` gather who was counted and not taken from here yet."""

    def __init__(self, rules: Sequence[BudgetRule], policy: BudgetPolicy, session_days: int = 30) -> None:
        self._zone = zone_of(policy.time_zone)
        limits = {rule.id: _limit(rule, self._zone) for rule in rules}
        limits.setdefault(EVERYTHING, Limit(EVERYTHING, "global", "*", "day", self._zone, None, shared=True))
        self._limits = limits
        self._by_scope = {
            scope: tuple(limit for limit in limits.values() if limit.scope == scope)
            for scope in ("global", "tenant", "key", "agent", "session")
        }
        self._session_keep_ms = session_days * DAY_MS
        self._changed: Mapping[str, int] = {}
        self._spans: dict[tuple[str, tzinfo], tuple[int, int]] = {}
        self._made: dict[object, tuple[int, float, tuple[Counter, ...]]] = {}
        self.agents: set[str] = set()
        self.sessions: set[tuple[str, str]] = set()

    @property
    def changed(self) -> Mapping[str, int]:
        return self._changed

    @changed.setter
    def changed(self, limits: Mapping[str, int]) -> None:
        self._changed = limits
        self._made.clear()

    # --- one request ------------------------------------------------------------------------------------------------

    def counters(self, caller: Caller, terms: Terms, now_ms: int) -> tuple[Counter, ...]:
        """What this request counts on at that moment, wider ones first; each key once."""
        who = (caller.key_id, caller.name, caller.tenant, caller.budgets, terms.agent)
        made = self._made.get(who)
        if made is None or not made[0] <= now_ms < made[1]:
            made = self._made[who] = self._make(caller, terms.agent, now_ms)
        if terms.session is None and terms.max_cost_nano is None and terms.session_max_cost_nano is None:
            return made[2]
        return (*made[2], *self._of_session(caller, terms, now_ms), *self._of_request(caller, terms))

    @staticmethod
    def limited(counters: Iterable[Counter]) -> bool:
        """Whether any of them could say no."""
        for counter in counters:
            if counter.limit_nano is not None:
                return True
        return False

    def _make(self, caller: Caller, agent: str | None, now_ms: int) -> tuple[int, float, tuple[Counter, ...]]:
        """The counters, and from when to when they are the right ones."""
        if len(self._made) >= REMEMBERED:
            del self._made[next(iter(self._made))]
        if agent is not None and self._by_scope["agent"] and len(self.agents) < REMEMBERED:
            self.agents.add(agent)
        standings = _each_once(self._standings(_subjects(caller, agent), caller, now_ms))
        counters = tuple(standing.counter for standing in standings)
        starts = max(counter.starts_ms for counter in counters)
        ends = min((counter.ends_ms for counter in counters if counter.ends_ms), default=float("inf"))
        return starts, ends, counters

    def _of_session(self, caller: Caller, terms: Terms, now_ms: int) -> tuple[Counter, ...]:
        """A session is counted from its first turn, so that a limit set later knows what was spent before. Where a
        caller limits a session without naming one, the request with all it causes is the session."""
        most, session = terms.session_max_cost_nano, terms.session
        if session is None and most is None:
            return ()
        name = terms.root_id if session is None else session
        owner = _owner(caller)
        key = f"{OWN_SESSION}{_digest(owner, name)}:0"
        own = Counter(f"session:{_shown(name)}:total", "session", "total", key, most, 0, 0, self._session_keep_ms)
        rules = self._by_scope["session"]
        if not rules or session is None:
            return (own,)
        if len(self.sessions) < REMEMBERED:
            self.sessions.add((owner, session))
        subject = _session_subject(owner, session)
        return (*(self._standing(rule, subject, now_ms).counter for rule in rules if _matches(rule, subject)), own)

    @staticmethod
    def _of_request(caller: Caller, terms: Terms) -> tuple[Counter, ...]:
        if (most := terms.max_cost_nano) is None:
            return ()
        name = f"request:{_shown(terms.root_id)}:total"
        key = f"{OWN_REQUEST}{_digest(_owner(caller), terms.root_id)}:0"
        return (Counter(name, "request", "total", key, most, 0, 0, REQUEST_KEEP_MS),)

    # --- all limits -------------------------------------------------------------------------------------------------

    def limit(self, id: str, callers: Iterable[Caller] = ()) -> Limit | None:
        """The limit of that id as the file or the key has it, whatever was changed at run time."""
        return self._limits.get(id) or next(
            (own for caller in callers for own in self._own(caller) if own.id == id), None
        )

    def ids(self, callers: Iterable[Caller] = ()) -> list[str]:
        """What can be changed."""
        return [*self._limits, *(own.id for caller in callers for own in self._own(caller))]

    def standing(
        self,
        now_ms: int,
        callers: Iterable[Caller] = (),
        agents: Iterable[str] = (),
        sessions: Iterable[tuple[str, str]] = (),
    ) -> tuple[Standing, ...]:
        """What there is to count at that moment: what counts all together and what is named one by one, and what comes
        of these keys, agents and (owner, session)s."""
        callers = tuple(callers)
        subjects: dict[Subject, None] = {("global", ("*",), None): None}
        for scope in ("tenant", "agent"):
            named = (limit.match for limit in self._by_scope[scope] if _is_plain(limit.match))
            subjects.update(((scope, (name,), name), None) for name in named)
        for caller in callers:
            subjects.update(dict.fromkeys(_subjects(caller, None)))
        subjects.update(dict.fromkeys(map(_agent_subject, agents)))
        subjects.update(dict.fromkeys(_session_subject(*one) for one in sessions))
        shared = [self._standing(one, ("", (), None), now_ms) for one in self._limits.values() if one.shared]
        matching = (
            self._standing(limit, subject, now_ms)
            for subject in subjects
            for limit in self._by_scope[subject[0]]
            if _matches(limit, subject)
        )
        own = (
            self._standing(limit, ("key", (), limit.match), now_ms) for caller in callers for limit in self._own(caller)
        )
        return _each_once([*shared, *matching, *own])

    def _standings(self, subjects: Iterable[Subject], caller: Caller, now_ms: int) -> Iterable[Standing]:
        for subject in subjects:
            for limit in self._by_scope[subject[0]]:
                if _matches(limit, subject):
                    yield self._standing(limit, subject, now_ms)
            if subject[0] == "key":
                for own in self._own(caller):
                    yield self._standing(own, subject, now_ms)

    def _own(self, caller: Caller) -> Iterable[Limit]:
        """The key's own budgets."""
        if (key_id := caller.key_id) is not None:
            for period, nano in caller.budgets:
                yield Limit(f"key:{key_id}:{period}", "key", key_id, period, self._zone, nano)

    def _standing(self, limit: Limit, subject: Subject, now_ms: int) -> Standing:
        starts, ends = self._span(limit.period, limit.zone, now_ms)
        who = None if limit.shared else subject[2]
        session_total = limit.scope == "session" and limit.period == "total"
        partition = "spend-session" if session_total else PARTITIONS[limit.period]
        key = f"{layout.PARTITIONS[partition].prefix}:{limit.scope}:{_digest(limit.id, who or '')}:{starts}"
        shown = None if who is None else _shown(subject[1][-1] if limit.scope == "session" else who)
        counter = Counter(
            limit.id if shown is None or shown == limit.match else f"{limit.id} ({shown})",
            limit.scope,
            limit.period,
            key,
            self._changed.get(limit.id, limit.limit_nano),
            starts,
            ends,
            self._session_keep_ms if session_total else 0,
        )
        return Standing(limit, shown, counter)

    def _span(self, period: str, zone: tzinfo, now_ms: int) -> tuple[int, int]:
        found = self._spans.get((period, zone))
        if found is None or not found[0] <= now_ms < (found[1] or now_ms + 1):
            found = self._spans[period, zone] = span(period, zone, now_ms)
        return found


def exceeded(counter: Counter, used_nano: int, held_nano: int, needs_nano: int = 0) -> BudgetExceeded:
    """What the caller is told whose request does not fit any more: one that may cost `needs_nano`, if that is known."""
    limit = counter.limit_nano or 0
    until = datetime.fromtimestamp(counter.ends_ms / 1_000, UTC)
    return BudgetExceeded(
        f"The {counter.scope} budget {counter.id} of {dollars(limit)} USD has no room for this request:"
        f" {dollars(used_nano)} USD are used"
        + (f" and {dollars(held_nano)} USD held by requests that run" if held_nano else "")
        + (f", and it may cost up to {dollars(needs_nano)} USD: a lower max_tokens asks for less" if needs_nano else "")
        + (f". It begins anew at {until:%Y-%m-%d %H:%M} UTC." if counter.ends_ms else ".")
    )


def is_operators(counter: Counter) -> bool:
    """Whether an operator limits this, not a caller that limits itself."""
    return counter.limit_nano is not None and OWN not in counter.key


def dollars(nano: int) -> str:
    """Exactly, with at least two decimals."""
    whole, part = divmod(nano, NANO_PER_USD)
    return f"{whole}.{f'{part:09d}'.rstrip('0'):0<2}"


def _limit(rule: BudgetRule, zone: tzinfo) -> Limit:
    own = zone if rule.time_zone is None else zone_of(rule.time_zone)
    shared = rule.shared or rule.scope == "global"
    return Limit(rule.id, rule.scope, rule.match, rule.period, own, rule.limit_nano, shared)


def _subjects(caller: Caller, agent: str | None) -> list[Subject]:
    """Who a request is by, apart from its session. Nobody in particular is in no scope."""
    found: list[Subject] = [("global", ("*",), None)]
    if caller.tenant is not None:
        found.append(("tenant", (caller.tenant,), caller.tenant))
    if caller.key_id is not None:
        names = (caller.key_id,) if caller.name is None else (caller.key_id, caller.name)
        found.append(("key", names, caller.key_id))
    if agent is not None:
        found.append(_agent_subject(agent))
    return found


def _agent_subject(agent: str) -> Subject:
    return "agent", (agent,), agent


def _session_subject(owner: str, session: str) -> Subject:
    return "session", (session,), f"{len(owner)}:{owner}{session}"


def _matches(limit: Limit, subject: Subject) -> bool:
    return any(fnmatchcase(name, limit.match) for name in subject[1])


def _is_plain(match: str) -> bool:
    return not any(mark in match for mark in "*?[")


def _owner(caller: Caller) -> str:
    """Whose the sessions and the request ids of a caller are."""
    if caller.tenant is not None:
        return f"tenant:{caller.tenant}"
    return "" if caller.key_id is None else f"key:{caller.key_id}"


def _each_once(standings: Iterable[Standing]) -> tuple[Standing, ...]:
    """Of those that count on the same counter, which else would be charged twice, the one with the lower limit."""
    found: dict[str, Standing] = {}
    for standing in standings:
        key = standing.counter.key
        if key not in found or _tighter(standing.counter, found[key].counter):
            found[key] = standing
    return tuple(found.values())


def _tighter(one: Counter, other: Counter) -> bool:
    return other.limit_nano is None or (one.limit_nano is not None and one.limit_nano < other.limit_nano)


def _digest(one: str, other: str) -> str:
    return blake2b(f"{len(one)}:{one}{other}".encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _shown(name: str) -> str:
    return name if len(name) <= SHOWN else f"{name[: SHOWN - 9]}…{_digest('', name)[:8]}"
