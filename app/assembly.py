"""Builds one gateway of one configuration, over what outlasts configurations: the store, the keys, what was changed at
run time, the metrics. Objects are made here and handed to each other; nothing is decided.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from app.access.idempotency import Idempotency
from app.access.keys import Keys
from app.api.admin import admin_router
from app.api.app import fastapi_app, forget_endpoints
from app.api.audit import audit_router
from app.api.auth import Door
from app.api.backpressure import CLIENTS, clients_of
from app.api.baseline import baseline_router
from app.api.bounded import Bounded
from app.api.budgets import budgets_router
from app.api.chat import ChatEndpoint
from app.api.costs import costs_router
from app.api.decisions import decisions_router
from app.api.embeddings import EmbeddingsEndpoint
from app.api.feedback import feedback_router
from app.api.flags import flags_router
from app.api.front import Front, InFlight, TokenPath
from app.api.health import health_router
from app.api.idempotent import Idempotent
from app.api.line import LineTimes
from app.api.models import models_router
from app.api.reload import reload_router
from app.api.resumable import Resumable
from app.api.rollouts import rollouts_router
from app.api.route import RouteEndpoint
from app.api.sessions import sessions_router
from app.api.settings import settings_router
from app.api.states import readiness_of, state_of
from app.api.stopping import Stopping
from app.api.streams import streams_router
from app.api.upstreams import upstreams_router
from app.config.settings import Settings, same_upstreams
from app.core.caller import Caller
from app.core.clock import Clock
from app.core.plan import Plan
from app.core.record import Record
from app.core.request import Request
from app.core.tasks import TaskOwner
from app.gateway.attempts import Attempts
from app.gateway.discovery import Discovery, Found
from app.gateway.finding import discovered, nothing_known
from app.gateway.flag_service import Meet
from app.gateway.gateway import Gateway
from app.gateway.live import Bounds
from app.gateway.overload import Overload
from app.gateway.reloading import Outcome
from app.gateway.resumable import Streams
from app.gateway.routed import Basis, Routed
from app.gateway.runtime import Runtime
from app.gateway.sessions import Conversing
from app.gateway.settle import Settlement
from app.gateway.spending import Spending
from app.gateway.standing import Standing
from app.gateway.traced import Captured, Stages, traced
from app.gateway.tuning import Tuning
from app.gateway.unstreamed import Unstreamed
from app.recall.embedder import StaticEmbedder
from app.routing.defaults import with_defaults
from app.routing.registry import Registry
from app.sessions.sessions import Sessions
from app.store.broadcast import Broadcast
from app.store.client import Store
from app.store.streams import StreamStore
from app.telemetry.lag import watch_lag
from app.telemetry.logs import get_logger, log_request
from app.telemetry.meters import Meters
from app.telemetry.metrics import Metrics, exposition
from app.telemetry.session_metrics import SessionMetrics
from app.telemetry.tracing import Tracing
from app.wire import chat, objects
from app.wire.codec import Limits

DRAIN_SECONDS: Final = 10.0
"""How long settling may still take once the last request is over."""

REPEATABLE: Final = ("/v1/chat/completions", "/v1/embeddings")
"""Where an `Idempotency-Key` counts."""

log = get_logger("tierway")


class StartupError(Exception):
    """The gateway cannot start like this; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a started gateway tells whoever announces it."""

    settings: Settings
    registry: Registry
    found: tuple[Found, ...]
    simulated: bool
    keys_needed: bool


@dataclass(slots=True)
class Ground:
    """What outlasts configurations. `state` is what the server hands to its connections; `reload` reads the
    configuration again, everywhere; `meet` asks a flag service about who comes."""

    clock: Clock
    registry: CollectorRegistry
    metrics: Metrics
    meters: Meters
    in_flight: InFlight
    store: Store
    keys: Keys
    runtime: Runtime
    embedder: StaticEmbedder | None
    stopping: Stopping
    state: MutableMapping[str, Any]
    reload: Callable[[], Awaitable[Outcome]]
    meet: Meet | None = None
    tracing: Tracing | None = None


@dataclass(frozen=True, slots=True)
class Assembled:
    """One gateway. `busy`: it makes streams that nobody waits for at the moment."""

    settings: Settings
    front: Front
    ready: Ready
    routed: Routed
    overload: Overload
    discovery: Discovery
    busy: Callable[[], bool]


class Parts(NamedTuple):
    """What a gateway is made of, for those who look at it."""

    door: Door
    routed: Routed
    spending: Spending
    overload: Overload
    streams: Streams
    gateway: Gateway
    answers: Unstreamed
    talks: Conversing
    tasks: TaskOwner
    watchers: TaskOwner


@contextlib.asynccontextmanager
async def assembled(ground: Ground, settings: Settings, before: Assembled | None) -> AsyncIterator[Assembled]:
    """A gateway of this configuration, from its upstreams to its front. It takes over what the one before knows."""
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(forget_endpoints)
        parts = _parts(ground, settings, before, lambda: discovery.found)
        gateway, routed, spending, streams = parts.gateway, parts.routed, parts.spending, parts.streams
        stack.push_async_callback(parts.tasks.cancel)
        held = ground.meters.stream
        discovery, simulated = await discovered(
            settings, gateway, ground.embedder, stack, ground.clock, held.held, _known(settings, before)
        )
        await spending.open(stack)
        stack.push_async_callback(routed.success.aclose)
        stack.push_async_callback(parts.tasks.drain, DRAIN_SECONDS)
        shadows = TaskOwner(log_error)
        routed.shadow(shadows)
        for owner in (shadows, parts.watchers):  # these never end by themselves, or nobody waits for them
            stack.push_async_callback(owner.cancel)
        tuning = Tuning(
            ground.runtime.versions,
            settings,
            lambda name: gateway.registry.lookup(name) is not None,
            parts.overload.after(routed.configure),
        )
        streaming, makers = settings.streaming, TaskOwner(log_error)
        times = LineTimes(streaming.commit_after, streaming.ping, streaming.send_timeout)
        resumable = Resumable(streams, parts.answers, chat, times, makers, ground.stopping.request)
        routers = [*_routers(ground, parts, discovery), settings_router(parts.door, ground.runtime, tuning)]
        routers.append(streams_router(parts.door, streams, times))
        front = _front(ground, settings, parts, routers, resumable)
        ready = Ready(settings, gateway.registry, discovery.found, simulated, not parts.door.open)
        broadcast = Broadcast(ground.store)
        await routed.start(broadcast, parts.watchers)
        # Nothing fails from here on: one that does not come to be has changed nothing of the one before.
        spending.start(broadcast, parts.watchers)
        await stack.enter_async_context(broadcast.running())
        _watch(ground, parts, discovery)
        stack.push_async_callback(resumable.aclose)  # first of all: it needs all the rest
        ground.runtime.tell(tuning.apply)
        ground.state[CLIENTS] = clients_of(settings.streaming, held)
        yield Assembled(settings, front, ready, routed, parts.overload, discovery, lambda: len(makers) > 0)


def _known(settings: Settings, before: Assembled | None) -> Callable[[Discovery], None]:
    """Tells a discovery of the models that there were before, so that a server that is just being restarted does not
    lose them to a reload."""
    if before is None:
        return nothing_known
    same, earlier = same_upstreams(before.settings, settings), before.discovery
    return lambda discovery: discovery.inherit(earlier, same)


def _parts(
    ground: Ground, settings: Settings, before: Assembled | None, found: Callable[[], tuple[Found, ...]]
) -> Parts:
    clock, meters, keys = ground.clock, ground.meters, ground.keys
    tasks = TaskOwner(log_error)
    door = _door(settings, keys)
    basis = Basis(
        settings=settings,
        store=ground.store,
        metrics=ground.metrics,
        clock=clock,
        tasks=tasks,
        on_error=log_error,
        flags=lambda: ground.runtime.switches.flags,
        gateway=lambda: gateway,
        found=found,
    )
    routed = Routed(basis, ground.embedder)
    overload = Overload(settings, clock, meters.overload)
    if before is not None:
        routed.inherit(before.routed)
        overload.inherit(before.overload)
    spending = Spending(basis, routed, meters.money, lambda: [each.caller() for each in keys.ring.records])
    streams = _streams(basis)
    readers = [*routed.readers, spending.costs.note, streams.note, meters.operation.observe, _request_log(settings)]
    if (tracing := ground.tracing) is not None:
        readers.append(tracing.observe)
    admission = spending.admission
    stages = traced(Stages(routed.planning, admission, admission.leave), tracing)
    routing, talks = settings.routing, _conversing(basis, routed, meters.session)
    gateway = Gateway(
        stages.planner,
        Attempts(
            routed.health,
            routing.fallback.max_attempts,
            emergency=routed.local_watch.trigger_after,
            seating=overload.seating,
            pay=admission.settle,
        ),
        Settlement(readers, tasks, log_error, stages.leave),
        clock,
        admit=stages.admit,
        prepare=lambda request, card, task: with_defaults(request, card, task, routing.defaults),
        converse=talks,
        least_pace=settings.streaming.min_tokens_per_second,
    )
    answers = Unstreamed(Captured(gateway) if tracing is not None and tracing.content else gateway, basis.flags)
    return Parts(door, routed, spending, overload, streams, gateway, answers, talks, tasks, TaskOwner(log_error))


def _watch(ground: Ground, parts: Parts, discovery: Discovery) -> None:
    """What goes on beside the requests."""
    watchers, pressure, gateway = parts.watchers, parts.overload.pressure, parts.gateway
    watchers.spawn(discovery.run(), "discovery")
    watchers.spawn(watch_lag(ground.metrics.event_loop_lag.observe, pressure.observe), "event loop lag")
    standing = Standing(
        ground.meters.operation,
        ground.store,
        lambda: discovery.found,
        lambda: gateway.registry,
        parts.routed.success,
    )
    watchers.spawn(standing.run(), "standing")


def _routers(ground: Ground, parts: Parts, discovery: Discovery) -> list[APIRouter]:
    door, routed, spending, gateway = parts.door, parts.routed, parts.spending, parts.gateway
    return [
        models_router(door, gateway, state_of(discovery, routed.health)),
        health_router(readiness_of(discovery, ground.store, ground.stopping), lambda: exposition(ground.registry)),
        sessions_router(door, parts.talks.sessions),
        feedback_router(door, routed.decisions, ground.metrics.feedback),
        admin_router(door, ground.keys),
        flags_router(door, ground.runtime.switches),
        reload_router(door, ground.reload),
        decisions_router(door, routed.decisions),
        upstreams_router(door, routed.operations),
        budgets_router(door, spending.admin),
        costs_router(door, spending.costs),
        rollouts_router(door, routed.rollouts, lambda: gateway.registry),
        baseline_router(door, routed.baselines, lambda: gateway.registry),
        audit_router(door, routed.audit),
    ]


def _conversing(basis: Basis, routed: Routed, metrics: SessionMetrics) -> Conversing:
    kept, on_error = basis.settings.sessions, basis.on_error
    sessions = Sessions(
        basis.store, basis.clock, basis.tasks, on_error, ttl_days=kept.ttl_days, max_bytes=kept.max_bytes
    )
    return Conversing(sessions, routed.planning.conversations, basis.flags, basis.clock, metrics.turn, on_error)


def _streams(basis: Basis) -> Streams:
    streaming = basis.settings.streaming
    bounds = Bounds(streaming.orphan_seconds, streaming.buffer_bytes)
    return Streams(StreamStore(basis.store), basis.flags, streaming.resumable, bounds)


def _door(settings: Settings, keys: Keys) -> Door:
    """Raises `StartupError` where the gateway would be open to the network without anybody having said so."""
    loopback = is_loopback(settings.host)
    closed = loopback or settings.allow_anonymous or settings.admin_key is not None or keys.ring.any_created
    if not closed:
        raise StartupError(
            f"Listening on {settings.host} would let anybody on the network in. Create a key (tierway keys create),"
            " set TIERWAY_ADMIN_KEY, or say TIERWAY_ALLOW_ANONYMOUS=true."
        )
    return Door(
        lambda: keys.ring,
        admin_key=secret_of(settings.admin_key),
        open_at_first=loopback or settings.allow_anonymous,
    )


def _front(
    ground: Ground, settings: Settings, parts: Parts, routers: Sequence[APIRouter], resumable: Resumable
) -> Front:
    bounds, door, gateway, metrics = settings.limits, parts.door, parts.gateway, ground.metrics
    limits = Limits(bounds.body_bytes, bounds.messages, bounds.tools, bounds.depth)
    answers = Idempotency(ground.store)

    def peek(request: Request, caller: Caller) -> Plan:
        return parts.routed.planning.peek(request, caller, gateway.registry)

    paths = {
        "/v1/chat/completions": TokenPath(
            ChatEndpoint(
                door, parts.answers, chat, limits, resumable.times, metrics.streams_active.inc, resumable, ground.meet
            ),
            chat.write_error,
            "chat",
        ),
        "/v1/embeddings": TokenPath(
            EmbeddingsEndpoint(door, gateway, limits, ground.meet), objects.write_error, "embeddings"
        ),
        "/v1/route": TokenPath(RouteEndpoint(door, peek, chat, limits, ground.meet), chat.write_error, "route"),
    }
    for path in REPEATABLE:
        paths[path] = replace(paths[path], endpoint=Idempotent(paths[path].endpoint, door, answers, bounds.body_bytes))
    front = Front(
        paths,
        Bounded(fastapi_app(routers), ground.in_flight, bounds.in_flight, parts.overload.metrics.shed),
        in_flight_limit=bounds.in_flight,
        on_error=log_error,
        in_flight=ground.in_flight,
        refused=gateway.refused,
        pressure=lambda: parts.overload.pressure.cause,
        shed=parts.overload.metrics.shed,
    )
    front.begin = None if ground.tracing is None else ground.tracing.begin
    front.stopping = lambda: ground.stopping.begun
    return front


def _request_log(settings: Settings) -> Callable[[Record], None]:
    def write(record: Record) -> None:
        log_request(record, {"config_version": record.config_version or settings.version})

    return write


def log_error(where: str, error: BaseException) -> None:
    log.error("a fault of the gateway", where=where, exc_info=error)


def secret_of(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
