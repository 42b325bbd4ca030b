"""The composition root: settings in, objects built and handed to each other, an ASGI application out."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from fastapi import APIRouter
from pydantic import SecretStr

from app.access.idempotency import Idempotency
from app.access.keys import Keys
from app.api.admin import admin_router
from app.api.app import fastapi_app
from app.api.audit import audit_router
from app.api.auth import Door
from app.api.baseline import baseline_router
from app.api.budgets import budgets_router
from app.api.chat import ChatEndpoint
from app.api.costs import costs_router
from app.api.decisions import decisions_router
from app.api.embeddings import EmbeddingsEndpoint
from app.api.feedback import feedback_router
from app.api.flags import flags_router
from app.api.front import Front, TokenPath
from app.api.health import Readiness, health_router
from app.api.idempotent import Idempotent
from app.api.inbound import Receive, Scope, Send
from app.api.models import models_router
from app.api.pressure import CLIENTS, clients_of
from app.api.reply import Pace
from app.api.resumable import Resumable
from app.api.rollouts import rollouts_router
from app.api.route import RouteEndpoint
from app.api.sessions import sessions_router
from app.api.settings import settings_router
from app.api.stopping import LAST_WORDS_SECONDS, Stopping
from app.api.streams import streams_router
from app.api.upstreams import upstreams_router
from app.config.settings import Settings
from app.core.caller import Caller
from app.core.card import Card
from app.core.clock import SystemClock
from app.core.errors import StoreUnavailable
from app.core.plan import Plan
from app.core.record import Record
from app.core.request import Request
from app.core.tasks import TaskOwner
from app.gateway.attempts import Attempts
from app.gateway.discovery import BUILTIN, Discovery, Found
from app.gateway.finding import discovered
from app.gateway.gateway import Gateway
from app.gateway.overload import Overload
from app.gateway.planning import Planning
from app.gateway.resumable import streams_of
from app.gateway.routed import Basis, Routed
from app.gateway.runtime import Runtime
from app.gateway.sessions import Conversing
from app.gateway.settle import Settlement
from app.gateway.spending import Spending
from app.gateway.standing import Standing
from app.gateway.tuning import Tuning
from app.recall.embedder import load_embedder, wheel_folder
from app.routing.defaults import with_defaults
from app.routing.registry import Registry
from app.sessions.sessions import Sessions
from app.store.broadcast import Broadcast
from app.store.client import Store
from app.store.errors import StoreUnusable
from app.store.opening import open_store
from app.telemetry.lag import watch_lag
from app.telemetry.logs import get_logger, log_request
from app.telemetry.metrics import Metrics, exposition, new_registry
from app.telemetry.money_metrics import MoneyMetrics
from app.telemetry.operation_metrics import OperationMetrics
from app.telemetry.overload_metrics import OverloadMetrics
from app.telemetry.session_metrics import SessionMetrics
from app.telemetry.stream_metrics import StreamMetrics
from app.upstreams.health import Health
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


class Lasting(NamedTuple):
    """What outlives the connection of a request: answers for who asks again, streams for who comes back."""

    answers: Idempotency
    resumable: Resumable


STARTUP_ERRORS: Final = (StartupError, StoreUnusable, StoreUnavailable)

Announce = Callable[[Ready], None]


class Application:
    """The ASGI application: everything is built when the server starts it, and closed when it stops."""

    def __init__(self, settings: Settings, announce: Announce = lambda ready: None) -> None:
        self._settings = settings
        self._announce = announce
        self._front: Front | None = None
        self.stopping = Stopping(_log_error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope.get("state", {}), receive, send)
        else:
            assert self._front is not None, "a server starts the application before it sends requests"
            with self.stopping.request():
                await self._front(scope, receive, send)

    async def _lifespan(self, state: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """`state` is what the server hands to everything that belongs to it."""
        await receive()
        try:
            async with running(self._settings, self._announce, self.stopping, state) as self._front:
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await self.stopping.ended(LAST_WORDS_SECONDS)
        except STARTUP_ERRORS as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})  # which the server logs
            return
        await send({"type": "lifespan.shutdown.complete"})


@contextlib.asynccontextmanager
async def running(
    settings: Settings, announce: Announce, stopping: Stopping, state: MutableMapping[str, Any]
) -> AsyncIterator[Front]:
    """A whole gateway, from its store to its front."""
    async with contextlib.AsyncExitStack() as stack:
        clock = SystemClock()
        registry = new_registry()
        metrics = Metrics(registry)
        tasks, watchers = TaskOwner(_log_error), TaskOwner(_log_error)
        stack.push_async_callback(tasks.cancel)
        store = await stack.enter_async_context(
            open_store(_secret(settings.redis_url), settings.data_dir, observer=metrics.store_call)
        )
        broadcast = Broadcast(store)
        keys = Keys(store, clock)
        await keys.refresh()
        door = _door(settings, keys)
        runtime = Runtime(store, clock, settings.flags, metrics.flag)
        await runtime.open(broadcast)
        embedder = load_embedder(wheel_folder())
        basis = Basis(
            settings,
            store,
            metrics,
            clock,
            tasks,
            _log_error,
            lambda: runtime.switches.flags,
            lambda: gateway,
            lambda: discovery.found,
        )
        routed = Routed(basis, embedder)
        spending = Spending(
            basis, routed, MoneyMetrics(registry), lambda: [each.caller() for each in keys.ring.records]
        )
        operation = OperationMetrics(registry)
        overload = Overload(settings, clock, OverloadMetrics(registry))
        streams = streams_of(basis)
        readers = (*routed.readers, spending.costs.note, streams.note, operation.observe, _request_log(settings))
        routing = settings.routing
        gateway = Gateway(
            routed.planning,
            Attempts(
                routed.health,
                routing.fallback.max_attempts,
                emergency=routed.local_watch.trigger_after,
                seating=overload.seating,
            ),
            Settlement(readers, tasks, _log_error, spending.admission.leave),
            clock,
            admit=spending.admission,
            prepare=lambda request, card, task: with_defaults(request, card, task, routing.defaults),
        )
        gateway.converse = talks = _conversing(basis, routed, SessionMetrics(registry))
        held = StreamMetrics(registry)
        state[CLIENTS] = clients_of(settings.streaming, held)
        discovery, simulated = await discovered(settings, gateway, embedder, stack, clock, held.held)
        await spending.open(stack)
        stack.push_async_callback(routed.success.aclose)
        stack.push_async_callback(tasks.drain, DRAIN_SECONDS)
        shadows = TaskOwner(_log_error)
        routed.shadow(shadows)
        for owner in (shadows, watchers):  # these never end by themselves, or nobody waits for them
            stack.push_async_callback(owner.cancel)
        tuning = Tuning(
            runtime.versions,
            settings,
            lambda name: gateway.registry.lookup(name) is not None,
            overload.after(routed.configure),
        )
        stack.enter_context(runtime.heard_by(tuning.apply))
        await routed.start(broadcast, watchers)
        spending.start(broadcast, watchers)
        keys.follow(broadcast)
        await stack.enter_async_context(broadcast.running())
        watchers.spawn(discovery.run(), "discovery")
        watchers.spawn(watch_lag(metrics.event_loop_lag.observe, overload.pressure.observe), "event loop lag")
        standing = Standing(operation, store, lambda: discovery.found, lambda: gateway.registry, routed.success)
        watchers.spawn(standing.run(), "standing")
        pace = Pace(settings.streaming.commit_after, settings.streaming.ping, settings.streaming.send_timeout)
        resumable = Resumable(streams, gateway, chat, pace, TaskOwner(_log_error), stopping.request)
        stack.push_async_callback(resumable.aclose)  # first of all: it needs all the rest
        routers = [
            models_router(door, gateway, _state_of(discovery, routed.health)),
            health_router(_readiness(discovery, store, stopping), lambda: exposition(registry)),
            sessions_router(door, talks.sessions),
            feedback_router(door, routed.decisions, metrics.feedback),
            admin_router(door, keys),
            flags_router(door, runtime.switches),
            settings_router(door, runtime, tuning),
            decisions_router(door, routed.decisions),
            upstreams_router(door, routed.operations),
            budgets_router(door, spending.admin),
            costs_router(door, spending.costs),
            rollouts_router(door, routed.rollouts, lambda: gateway.registry),
            baseline_router(door, routed.baselines, lambda: gateway.registry),
            audit_router(door, routed.audit),
            streams_router(door, streams, pace),
        ]
        lasting = Lasting(Idempotency(store), resumable)
        front = _front(settings, door, gateway, metrics, routers, routed.planning, lasting, overload)
        front.stopping = lambda: stopping.begun
        announce(Ready(settings, gateway.registry, discovery.found, simulated, not door.open))
        yield front


def _conversing(basis: Basis, routed: Routed, metrics: SessionMetrics) -> Conversing:
    kept, on_error = basis.settings.sessions, basis.on_error
    sessions = Sessions(
        basis.store, basis.clock, basis.tasks, on_error, ttl_days=kept.ttl_days, max_bytes=kept.max_bytes
    )
    return Conversing(sessions, routed.planning.conversations, basis.flags, basis.clock, metrics.turn, on_error)


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
        admin_key=_secret(settings.admin_key),
        open_at_first=loopback or settings.allow_anonymous,
    )


def _front(
    settings: Settings,
    door: Door,
    gateway: Gateway,
    metrics: Metrics,
    routers: Sequence[APIRouter],
    planning: Planning,
    lasting: Lasting,
    overload: Overload,
) -> Front:
    bounds, resumable = settings.limits, lasting.resumable
    limits = Limits(bounds.body_bytes, bounds.messages, bounds.tools, bounds.depth)

    def peek(request: Request, caller: Caller) -> Plan:
        return planning.peek(request, caller, gateway.registry)

    paths = {
        "/v1/chat/completions": TokenPath(
            ChatEndpoint(door, gateway, chat, limits, resumable.pace, metrics.streams_active.inc, resumable),
            chat.write_error,
            "chat",
        ),
        "/v1/embeddings": TokenPath(EmbeddingsEndpoint(door, gateway, limits), objects.write_error, "embeddings"),
        "/v1/route": TokenPath(RouteEndpoint(door, peek, chat, limits), chat.write_error, "route"),
    }
    for path in REPEATABLE:
        endpoint = Idempotent(paths[path].endpoint, door, lasting.answers, bounds.body_bytes)
        paths[path] = replace(paths[path], endpoint=endpoint)
    return Front(
        paths,
        fastapi_app(routers),
        in_flight_limit=bounds.in_flight,
        on_error=_log_error,
        watch=metrics.in_flight.set,
        refused=gateway.refused,
        pressure=lambda: overload.pressure.cause,
        shed=overload.metrics.shed,
    )


def _readiness(discovery: Discovery, store: Store, stopping: Stopping) -> Callable[[], Readiness]:
    """Ready from the first upstream that answered on, until it stops; the store's absence is told, and lets free
    traffic go on."""

    def readiness() -> Readiness:
        upstreams = {found.upstream: found.error or "ok" for found in discovery.found if found.kind != BUILTIN}
        answered = any(found.models for found in discovery.found if found.kind != BUILTIN)
        checks = {"configuration": "ok", "store": "ok" if store.healthy else "away", "upstreams": upstreams}
        if stopping.begun:
            checks["stopping"] = "no more requests are taken"
        return Readiness(answered and not stopping.begun, checks)

    return readiness


def _state_of(discovery: Discovery, health: Health) -> Callable[[Card], str]:
    """A word for people on how a model is doing."""

    def state(card: Card) -> str:
        if card.simulated:
            return "simulated"
        if any(found.error is not None for found in discovery.found if found.upstream == card.upstream):
            return "unreachable"
        return health.demoted(card) or "ready"

    return state


def _request_log(settings: Settings) -> Callable[[Record], None]:
    logger = get_logger()

    def write(record: Record) -> None:
        log_request(logger, record, {"config_version": record.config_version or settings.version})

    return write


def _log_error(where: str, error: BaseException) -> None:
    log.error("a fault of the gateway", where=where, exc_info=error)


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
