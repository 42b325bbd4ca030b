"""The application as the server sees it: lays the ground, lets one gateway follow another on it whenever the
configuration changes, and hands every request to the current one."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, MutableMapping
from typing import Any, Final

from app.access.keys import Keys
from app.api.front import InFlight
from app.api.inbound import Receive, Scope, Send
from app.api.shedding import FULL, Fields
from app.api.stopping import LAST_WORDS_SECONDS, Stopping
from app.assembly import Assembled, Ground, Ready, StartupError, assembled, log_error, secret_of
from app.config.load import load
from app.config.settings import Settings
from app.core.clock import SystemClock
from app.core.errors import StoreUnavailable
from app.core.tasks import TaskOwner
from app.gateway.flag_service import FlagService, ServiceUnusable, load_service
from app.gateway.generations import Generations
from app.gateway.reloading import Read, Reloading
from app.gateway.runtime import Runtime
from app.recall.embedder import load_embedder, wheel_folder
from app.store.broadcast import Broadcast
from app.store.errors import StoreUnusable
from app.store.opening import open_store
from app.telemetry.meters import Meters
from app.telemetry.metrics import Metrics, new_registry
from app.telemetry.tracing import open_tracing

STARTUP_ERRORS: Final = (StartupError, StoreUnusable, StoreUnavailable, ServiceUnusable)

Announce = Callable[[Ready], None]


class Application:
    """The ASGI application: everything is built when the server starts it, and closed when it stops. `read` makes the
    settings again, of the environment and the file as they are then."""

    def __init__(self, settings: Settings, announce: Announce = lambda ready: None, read: Read | None = None) -> None:
        self._settings = settings
        self._announce = announce
        self._read = read or (lambda text: load(os.environ, config_path=settings.config_path, text=text))
        self._gateways: Generations[Settings, Assembled] | None = None
        self._reloading: Reloading | None = None
        self._tasks = TaskOwner(log_error)
        self.stopping = Stopping(log_error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope.get("state", {}), receive, send)
            return
        living = None if self._gateways is None else self._gateways.current
        assert living is not None, "a server starts the application before it sends requests"
        living.users += 1
        task = self.stopping.begins()
        try:
            await living.value.front(scope, receive, send)
        finally:
            self.stopping.ends(task)
            living.users -= 1

    def reload(self, why: str) -> None:
        """Reads the configuration again; what comes of it is in the log."""
        if self._reloading is not None:
            self._tasks.spawn(self._reloading.reload(why), "reload")

    async def _lifespan(self, state: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """`state` is what the server hands to everything that belongs to it."""
        await receive()
        sys.set_asyncgen_hooks(firstiter=None)  # else the loop notes each, to close what nobody did: all of ours are
        try:
            async with contextlib.AsyncExitStack() as stack:
                await self._start(state, stack)
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await self.stopping.ended(LAST_WORDS_SECONDS)
        except STARTUP_ERRORS as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})  # which the server logs
            return
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self, state: MutableMapping[str, Any], stack: contextlib.AsyncExitStack) -> None:
        ground = await stack.enter_async_context(_grounded(self._settings, self.stopping, state))
        runtime, broadcast = ground.runtime, Broadcast(ground.store)
        gateways = self._gateways = Generations(
            lambda settings, before: assembled(ground, settings, before), log_error, lambda one: one.busy()
        )
        stack.push_async_callback(gateways.aclose)

        async def follow(settings: Settings) -> Ready:
            made = await gateways.follow(settings)
            runtime.switches.configure(settings.flags)
            return made.ready

        reloading = Reloading(self._settings, self._read, runtime.versions, follow, ground.metrics.config_reload)
        ground.reload = lambda: reloading.reload_all("an operator said so")
        runtime.file = lambda: reloading.file
        await runtime.open()
        if self._settings.openfeature is not None:
            await self._ask_flags(ground, self._settings.openfeature, stack)
        ready = await follow(await reloading.open())
        stack.push_async_callback(self._tasks.cancel)
        runtime.versions.follow(broadcast)
        ground.keys.follow(broadcast)
        reloading.follow(broadcast)
        await stack.enter_async_context(broadcast.running())
        self._tasks.spawn(reloading.run(), "configuration file")
        self._reloading = reloading
        state[FULL] = self._turned_away
        self._announce(ready)

    async def _ask_flags(self, ground: Ground, provider: str, stack: contextlib.AsyncExitStack) -> None:
        """Hears from a flag service what the environment does not say."""
        ask, close = load_service(provider)
        stack.callback(close)
        settings, switches = self._settings.flags, ground.runtime.switches
        names = tuple(name for name in settings.start if name not in settings.named)
        service = FlagService(ask, names, switches.serve, ground.metrics.flag_service, ground.clock)
        await service.open()
        ground.meet = service.meet
        stack.push_async_callback(self._tasks.cancel)
        self._tasks.spawn(service.run(), "flag service")

    def _turned_away(self, target: bytes, headers: Fields) -> bytes | None:
        living = None if self._gateways is None else self._gateways.current
        return None if living is None else living.value.front.turned_away(target, headers)


@contextlib.asynccontextmanager
async def _grounded(settings: Settings, stopping: Stopping, state: MutableMapping[str, Any]) -> AsyncIterator[Ground]:
    """What stays whatever is configured: the store, the keys, what was changed at run time, the metrics."""
    clock, registry = SystemClock(), new_registry()
    metrics = Metrics(registry)
    store = open_store(secret_of(settings.redis_url), settings.data_dir, observer=metrics.store_call)
    async with store as opened:
        keys = Keys(opened, clock)
        await keys.refresh()
        runtime = Runtime(opened, clock, settings.flags, metrics.flag)
        embedder = load_embedder(wheel_folder())
        in_flight = InFlight(metrics.in_flight.set)
        meters = Meters.of(registry)
        tracing = open_tracing(os.environ, clock, meters.trace.told)
        ground = Ground(
            clock=clock,
            registry=registry,
            metrics=metrics,
            meters=meters,
            in_flight=in_flight,
            store=opened,
            keys=keys,
            runtime=runtime,
            embedder=embedder,
            stopping=stopping,
            state=state,
            reload=_not_yet,
            tracing=tracing,
        )
        try:
            yield ground
        finally:
            if tracing is not None:
                await tracing.aclose()


async def _not_yet() -> Any:
    raise AssertionError("the first gateway is being built")
