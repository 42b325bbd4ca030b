"""Builds what routing stands on: health and load, what was learnt, rollouts and shadows, and the planner over them all.

A part of the composition root, kept apart because it is one story of its own. What it builds follows the broadcast and
runs in the tasks it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.config.settings import Settings, same_upstreams
from app.core.caller import Caller
from app.core.clock import Clock
from app.core.outcome import quality
from app.core.plan import Plan
from app.core.record import Record
from app.core.request import Request
from app.core.tasks import ErrorHandler, TaskOwner
from app.flags import Flags
from app.gateway.adapters import breaker_settings
from app.gateway.audit import Audit
from app.gateway.baselines import Baselines
from app.gateway.conversations import Conversations
from app.gateway.deciding import decided_flags
from app.gateway.discovery import Found
from app.gateway.emergency_share import EmergencyShare
from app.gateway.gateway import Gateway
from app.gateway.local_watch import LocalWatch
from app.gateway.operations import Around, Operations
from app.gateway.planning import Planning
from app.gateway.reading import Reading
from app.gateway.recent import RecentScores
from app.gateway.rollback import Rollouts
from app.gateway.shadow import Room, Shadowed, Shadows, Tap
from app.learning import outcome
from app.learning.decisions import Decisions
from app.learning.success import Success
from app.recall.embedder import StaticEmbedder
from app.recall.words import WordEmbedder
from app.routing.classifier import Classifier
from app.routing.signals import Signals
from app.routing.weights import WeightsUnusable
from app.store.broadcast import Broadcast
from app.store.client import Store
from app.telemetry.logs import get_logger
from app.telemetry.metrics import Metrics
from app.upstreams.health import Health
from app.upstreams.traffic import Traffic
from app.upstreams.vllm import VllmUpstream

SHADOW_LOAD_MOST: Final = 0.5
"""The share of its ceiling up to which an upstream has time for shadows."""

log = get_logger("routing")


@dataclass(frozen=True, slots=True)
class Basis:
    """What everything here is built on."""

    settings: Settings
    store: Store
    metrics: Metrics
    clock: Clock
    tasks: TaskOwner
    on_error: ErrorHandler
    flags: Callable[[], Flags]
    gateway: Callable[[], Gateway]
    found: Callable[[], tuple[Found, ...]]


class Routed:
    """The routing services of one gateway."""

    def __init__(self, basis: Basis, embedder: StaticEmbedder | None) -> None:
        settings, metrics, clock = basis.settings, basis.metrics, basis.clock
        self._basis = basis
        self.traffic = Traffic({n: u.max_concurrency for n, u in settings.upstreams.items()}, self._waiting)
        breakers = {name: breaker_settings(upstream) for name, upstream in settings.upstreams.items()}
        self.health = Health(breakers, clock, metrics.breaker, self.traffic, self._is_awake)
        self.audit = Audit(basis.store, clock)
        self.rollouts = Rollouts(basis.store, self.audit, metrics.rollout_share)
        around = Around(lambda: basis.gateway().upstreams, lambda: basis.gateway().registry, basis.found)
        self.operations = Operations(basis.store, self.audit, self.health, around)
        self.success = Success(basis.store, clock, metrics.quality)
        self.baselines = Baselines(basis.store, self.audit, self.success)
        self.decisions = Decisions(
            basis.store,
            self.success,
            basis.tasks,
            clock,
            metrics.decisions_lost,
            rescored=self.rollouts.scored,
        )
        self.local_watch = LocalWatch(self._is_local, self._local_quality, self._local_reachable, clock)
        self.emergency_share = EmergencyShare(clock, metrics.emergency_share.set)
        self.planning = Planning(
            settings.routing,
            basis.flags,
            Signals(self.health.demoted, self.traffic.load, self.traffic.first_token, self.success.observed),
            Reading(
                _classifier(),
                None if embedder is None else WordEmbedder(embedder),
                metrics.classifier_seconds.observe,
                basis.on_error,
            ),
            self.rollouts.assign,
            Conversations(),
            self.local_watch,
            RecentScores(settings.routing.target_local),
            metrics.plan_seconds.observe,
            self.success.counts,
        )
        self.readers: tuple[Callable[[Record], None], ...] = (
            metrics.observe,
            self.traffic.observe,
            self.rollouts.observe,
            self.local_watch.observe,
            self.decisions.note,
            self._scored,
            self.emergency_share.observe,
        )

    async def start(self, broadcast: Broadcast, watchers: TaskOwner) -> None:
        """Reads what is shared, and follows it from now on."""
        await self.operations.refresh()
        await self.rollouts.adopt(self._basis.settings.routing.rollouts)
        self.rollouts.follow(broadcast)
        self.operations.follow(broadcast)
        watchers.spawn(self.success.run(), "learned success")
        watchers.spawn(self.rollouts.run(), "rollouts")
        watchers.spawn(self.emergency_share.run(), "share of emergencies")
        for upstream in self._basis.gateway().upstreams.values():
            if isinstance(upstream, VllmUpstream):
                watchers.spawn(upstream.watch(), f"probe {upstream.name}")

    def inherit(self, before: Routed) -> None:
        """What the gateway before knows of conversations, scores, and those upstreams that stay what they were. It is
        shared from then on, and changed by nothing but `configure`."""
        self.planning.conversations = before.planning.conversations
        self.planning.recent = before.planning.recent
        self.health.inherit(before.health, same_upstreams(before._basis.settings, self._basis.settings))
        self.traffic.inherit(before.traffic)

    def configure(self, settings: Settings) -> None:
        """What may change while requests run: how is routed, when an upstream is left alone, how much it should get."""
        self.planning.configure(settings.routing, settings.version)
        self.health.configure({name: breaker_settings(upstream) for name, upstream in settings.upstreams.items()})
        self.traffic.configure({name: upstream.max_concurrency for name, upstream in settings.upstreams.items()})

    def shadow(self, shadow_tasks: TaskOwner) -> None:
        """Lets answers have shadows, in tasks of their own."""
        basis = self._basis
        shadows = Shadows(
            basis.gateway().answer,
            self._shadowed,
            tasks=shadow_tasks,
            clock=basis.clock,
            room=Room(basis.clock),
            is_free=self._is_free,
        )

        def repeat(caller: Caller, request: Request, plan: Plan) -> Tap | None:
            if not decided_flags(basis.flags, request, caller)["SHADOW"]:
                return None
            return shadows.tap(caller, request, plan, self.rollouts.running)

        basis.gateway().repeat = repeat

    # --- what the parts ask of each other ---------------------------------------------------------------------------

    def _waiting(self, name: str) -> int:
        upstream = self._basis.gateway().upstreams.get(name)
        return upstream.pool.waiting if isinstance(upstream, VllmUpstream) else 0

    def _is_awake(self, name: str) -> bool:
        upstream = self._basis.gateway().upstreams.get(name)
        return not isinstance(upstream, VllmUpstream) or upstream.pool.awake

    def _is_local(self, name: str) -> bool:
        upstream = self._basis.gateway().upstreams.get(name)
        return upstream is not None and upstream.local

    def _local_quality(self) -> float | None:
        return self.success.against_own(card.id for card in self._basis.gateway().registry.cards if card.local)

    def _local_reachable(self) -> bool:
        local = [found for found in self._basis.found() if found.local and found.kind != "builtin"]
        return not local or any(found.error is None and not self.health.refuses(found.upstream) for found in local)

    def _is_free(self, model: str) -> bool:
        card = self._basis.gateway().registry.lookup(model)  # None also for a name that is offered more than once
        return card is not None and self.traffic.load(card) < SHADOW_LOAD_MOST

    def _scored(self, record: Record) -> None:
        if (plan := record.plan) is None or plan.arm is None:
            return
        if (value := quality(outcome.of_record(record))) is not None:
            self.rollouts.scored(plan.arm, value)

    def _shadowed(self, shadowed: Shadowed) -> None:
        log.info("shadow", rollout=shadowed.rollout, request_id=shadowed.request_id, of=shadowed.of)
        self._basis.tasks.spawn(
            self.decisions.add(shadowed.request_id, shadowed.outcome), f"outcome of {shadowed.request_id}"
        )


def _classifier(load: Callable[[], Classifier] = Classifier.load) -> Classifier | None:
    try:
        return load()
    except (WeightsUnusable, OSError) as error:
        log.warning("there is no classifier; auto goes by the order of the configuration", why=str(error))
        return None
