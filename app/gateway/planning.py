"""Hands the pure plan what it cannot know by itself: the operator's rules, flags, health, load, what was learnt, the
conversation's last model, and the rollout arm the request is in."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from app.config.schema import Routing
from app.core.caller import Caller
from app.core.plan import Plan
from app.core.request import AnyRequest, EmbeddingRequest, Request
from app.core.verdict import Verdict
from app.flags import Flags
from app.gateway.conversations import Conversations, conversation_of, goes_on, history_tokens, is_bound
from app.gateway.deciding import decided_flags, unit_of
from app.gateway.local_watch import LocalWatch
from app.gateway.reading import UNREAD, Read, Reading
from app.gateway.recent import RecentScores
from app.routing.correction import Counts, corrected
from app.routing.features import only_tool_results
from app.routing.policy import alone, plan
from app.routing.registry import Registry
from app.routing.rollouts import NOWHERE, Assigned, placed, treated_in
from app.routing.rules import Rules
from app.routing.signals import Signals

CountsOf = Callable[[Iterable[str], str, str], Counts | None]
RULES_KEPT: Final = 64
"""Those of the flags and thresholds of late; with one more, all are made anew."""
NO_FLAGS: Final[Mapping[str, bool]] = MappingProxyType({})


class Assign(Protocol):
    def __call__(self, unit: str, *, chosen: bool) -> Assigned:
        """The arms of the rollouts that the unit is in; of none that change what the caller has chosen."""
        ...


class Planned(NamedTuple):
    """The plan, and what was read and found on the way to it. `conversation` is for remembering who answered, `flags`
    are what they are for this request, `version` is that of the configuration it was planned by."""

    plan: Plan
    read: Read = UNREAD
    conversation: bytes | None = None
    flags: Mapping[str, bool] = NO_FLAGS
    version: str = ""


@dataclass(slots=True)
class Planning:
    """Called once per request. `routing` and the configuration's `version` are swapped when an operator changes a
    setting. `flags` gives the snapshot of the moment; `signals` what does not depend on the request;
    `assign(unit, chosen=)` its rollout; `observe` is told the seconds a plan took; `counts(models, task type, tier)`
    says how these models did, where that is known."""

    routing: Routing
    flags: Callable[[], Flags]
    signals: Signals
    reading: Reading
    assign: Assign
    conversations: Conversations
    local_watch: LocalWatch
    recent: RecentScores
    observe: Callable[[float], None] = lambda seconds: None
    counts: CountsOf = lambda models, task_type, tier: None
    draw: Callable[[], float] = random.random
    version: str = ""
    _prefer: dict[str, tuple[str, ...]] = field(init=False)
    _rules_kept: dict[tuple[bool, bool, bool, float | None], Rules] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._prefer = {name: tuple(task.prefer) for name, task in self.routing.tasks.items()}

    def configure(self, routing: Routing, version: str) -> None:
        """For every request from now on, whole: a plan is made by one configuration."""
        self.routing, self.version = routing, version
        self._rules_kept.clear()
        self.recent.aim(routing.target_local)

    def __call__(self, request: AnyRequest, caller: Caller, registry: Registry) -> Planned:
        started = time.perf_counter()
        try:
            return self._planned(request, caller, registry)
        finally:
            self.observe(time.perf_counter() - started)

    def peek(self, request: Request, caller: Caller, registry: Registry) -> Plan:
        """The plan of such a request at this moment, for explaining: nothing is remembered, and chance has no say."""
        return self._planned(request, caller, registry, peeking=True).plan

    def answered(self, planned: Planned, model: str) -> None:
        """Remembers who answered the conversation."""
        self.conversations.answered(planned.conversation, model, treated_in(planned.plan.arm))

    def _planned(self, request: AnyRequest, caller: Caller, registry: Registry, *, peeking: bool = False) -> Planned:
        flags = decided_flags(self.flags, request, caller)
        rules = self._rules(flags)
        if isinstance(request, EmbeddingRequest) or not rules.routed or registry.find(request.model).card is not None:
            made, read, conversation = plan(request, caller, registry, rules, self.signals), UNREAD, None
        else:
            made, read, conversation = self._routed(request, caller, registry, rules, peeking)
        arm = request.terms.arm
        return Planned(made if arm is None else replace(made, arm=arm), read, conversation, flags, self.version)

    def _routed(
        self, request: Request, caller: Caller, registry: Registry, rules: Rules, peeking: bool
    ) -> tuple[Plan, Read, bytes | None]:
        read = self.reading(request)
        verdict = None if read.verdict is None else self._corrected(read.verdict, registry)
        if verdict is not None and not peeking:
            self.recent.add(verdict.score)
        assigned = self._assigned(request, caller)
        conversation = conversation_of(request, caller)
        rollout = None if assigned.treatment is None else assigned.treatment.name
        signals = self._signals(request, conversation, rollout, rules, draw=1.0 if peeking else self.draw())
        # Whom a rollout puts first may stand further back: nobody is cut off before it had its turn.
        made = plan(request, caller, registry, self._with_arm(rules, assigned), signals, verdict)
        if assigned is not NOWHERE:
            made = placed(made, assigned, signals.demoted, movable=not (signals.in_tool_loop or is_bound(request)))
        return made if rules.fallback else alone(made), read, conversation

    def _corrected(self, verdict: Verdict, registry: Registry) -> Verdict:
        """By how local models did here with such requests."""
        if not registry.local_ids:
            return verdict
        tier = verdict.tier
        counts = self.counts(registry.local_ids, verdict.task_type, tier)
        return verdict if counts is None else corrected(verdict, {(verdict.task_type, tier): counts})

    def _rules(self, flags: Mapping[str, bool]) -> Rules:
        """Made once for all requests to which the same applies."""
        routed, local, paid = flags["MULTI_MODEL_ROUTER"], flags["LOCAL_MODELS"], flags["CLOUD_FALLBACK"]
        threshold = self.recent.threshold()
        rules = self._rules_kept.get((routed, local, paid, threshold))
        if rules is None:
            if len(self._rules_kept) >= RULES_KEPT:
                self._rules_kept.clear()
            rules = self._rules_kept[routed, local, paid, threshold] = self._new_rules(routed, local, paid, threshold)
        return rules

    def _new_rules(self, routed: bool, local: bool, paid: bool, threshold: float | None) -> Rules:
        routing = self.routing
        return Rules(
            strategy=routing.strategy,
            routed=routed,
            default_model=routing.default_model,
            local=local,
            paid=paid and routing.cloud != "never",
            emergency=routing.cloud == "emergency",
            fallback=routing.fallback.on,
            degrade=routing.degrade,
            threshold=threshold,
            max_local_latency=routing.max_local_latency,
            prefer=self._prefer,
            chains=routing.fallback.abilities,
        )

    def _assigned(self, request: Request, caller: Caller) -> Assigned:
        if request.terms.depth or request.terms.arm is not None:
            return NOWHERE
        chosen = request.terms.strategy is not None or ":" in request.model
        return self.assign(unit_of(request, caller), chosen=chosen)

    def _with_arm(self, rules: Rules, assigned: Assigned) -> Rules:
        if not rules.fallback:
            rules = replace(rules, fallback=True)
        if (treatment := assigned.treatment) is None:
            return rules
        if treatment.strategy is not None:
            rules = replace(rules, strategy=treatment.strategy)
        if treatment.target_local is not None:
            rules = replace(rules, threshold=self.recent.threshold(treatment.target_local))
        return rules

    def _signals(
        self, request: Request, conversation: bytes | None, rollout: str | None, rules: Rules, draw: float
    ) -> Signals:
        steady, going = self.signals, goes_on(request)
        in_tool_loop = going and only_tool_results(request.messages)
        return Signals(
            steady.demoted,
            steady.load,
            steady.first_token,
            steady.observed,
            previous=self.conversations.previous(conversation, rollout, stays=in_tool_loop) if going else None,
            in_tool_loop=in_tool_loop,
            history_tokens=history_tokens(request) if going else 0,
            draw=draw,
            emergency=self.local_watch.trigger() if rules.emergency else None,
        )
