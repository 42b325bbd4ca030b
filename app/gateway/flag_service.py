"""Hears from a flag service what the flags are that nobody here has a word on: for everybody, and for each caller and
agent type that comes.

Requests never wait for a service that is slow: it is asked beside them, in a thread, every second, and what it said
last counts until it says something else. Only who comes for the first time waits a moment for its word. How one service
is asked is left to whoever is handed in.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple, TypeVar

from app.core.caller import Caller
from app.core.clock import Clock
from app.flags import Served
from app.telemetry.logs import get_logger

POLL_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 5.0
"""How long one asking may take until the service counts as away."""
FIRST_SECONDS: Final = 0.25
"""How long a caller that was never asked about waits."""
START_SECONDS: Final = 3.0
START_PAUSE: Final = 0.05
REST_SECONDS: Final = 60.0
"""Who did not come for so long is not asked about any more, until it comes again."""
BATCH: Final = 50
"""How many are asked about at once, so that new ones need not wait for all."""
MOST: Final = 5_000
BREATH_SECONDS: Final = 0.0002
"""Between two callers, so that the thread takes no turn of the event loop's that can be felt."""
OK, FAILED = "ok", "failed"

T = TypeVar("T")

log = get_logger("tierway.flags")


class ServiceUnusable(Exception):
    """The flag service cannot be asked at all; the message says what to do."""


class Who(NamedTuple):
    """Whom flags are about: a key by id and name, its tenant, an agent type; of nobody in particular, everybody."""

    key_id: str | None = None
    key: str | None = None
    tenant: str | None = None
    agent: str | None = None

    @classmethod
    def of(cls, caller: Caller, agent: str | None) -> Who:
        return cls(caller.key_id, caller.name, caller.tenant, agent)


EVERYBODY: Final = Who()


class Told(NamedTuple):
    """What the service said: a share, or None for a flag it does not know. What is missing it could not say, and
    `error` is the first reason for that; `dead`: it answers nothing at all."""

    shares: Mapping[str, float | None]
    error: str | None = None
    dead: bool = False


Ask = Callable[[Who, Sequence[str]], Told]
Meet = Callable[[Caller, str | None], Awaitable[None]]
Serve = Callable[[Mapping[str, float], Served], None]


class Service(NamedTuple):
    """`ask` may take its time; it is called in threads, one at a time. `close` returns at once."""

    ask: Ask
    close: Callable[[], None]


def load_service(provider: str) -> Service:
    """The service of a provider, `module:name`. Raises `ServiceUnusable`."""
    try:
        adapter = importlib.import_module("app.gateway.openfeature")
    except ModuleNotFoundError:
        raise ServiceUnusable(
            "TIERWAY_FLAG_PROVIDER needs the SDK of OpenFeature: pip install 'tierway[openfeature]'"
        ) from None
    made: Service = adapter.service_of(provider)
    return made


class FlagService:
    """`names` are the flags to ask for. `serve` is told what the service says of everybody, whenever that is another;
    `observe` of each round of asking whether it went well."""

    def __init__(
        self, ask: Ask, names: Sequence[str], serve: Serve, observe: Callable[[str], None], clock: Clock
    ) -> None:
        self._ask = ask
        self._names = names
        self._serve = serve
        self._observe = observe
        self._clock = clock
        self._said: dict[Who, Mapping[str, float]] = {}
        self._came: dict[Who, float] = {}  # when they came last
        self._new: dict[Who, None] = {}  # who was never asked about: a set that keeps its order
        self._left: list[Who] = []  # to be asked about in this round
        self._due = float("-inf")  # when the next round begins
        self._wake, self._answered = asyncio.Event(), asyncio.Event()
        self._pending: asyncio.Future[Mapping[Who, Told]] | None = None
        self._trouble: str | None = None  # the first of this round
        self._trouble_before: str | None = None
        self._dead = False

    async def open(self) -> None:
        """Before the first request: asks for a moment. Without an answer, what is configured counts at first."""
        until = self._clock.monotonic() + START_SECONDS
        while EVERYBODY not in self._said and self._clock.monotonic() < until:
            self._trouble = None
            await self._round([EVERYBODY], START_SECONDS)
            await asyncio.sleep(0 if EVERYBODY in self._said else START_PAUSE)
        self._conclude()

    async def run(self) -> None:
        """Asks for ever; to be cancelled."""
        while True:
            if not self._left and not self._new:
                await self._rest()
            await self.turn()

    async def turn(self) -> None:
        """Asks about those who are new, and about some of the others where it is time."""
        if not self._left and self._clock.monotonic() >= self._due:
            self._forget()
            self._left = list(self._said)
        batch = dict.fromkeys([EVERYBODY, *self._new, *self._left[:BATCH]])
        of_all = bool(self._left) or not self._said
        self._new.clear()
        del self._left[:BATCH]
        await self._round(list(batch), ANSWER_SECONDS)
        if self._dead:
            self._left.clear()
        if (of_all or self._dead) and not self._left:
            self._conclude()
            self._due = self._clock.monotonic() + POLL_SECONDS

    async def meet(self, caller: Caller, agent: str | None) -> None:
        """Before the first flag of a request is asked: returns when it is known what the service says of this caller,
        or when that takes too long."""
        who = Who.of(caller, agent)
        known = who in self._said
        if not known and (self._dead or len(self._new) >= MOST):
            return
        self._came[who] = self._clock.monotonic()
        if known:
            return
        self._new[who] = None
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SECONDS):
                while who not in self._said and not self._dead:
                    await self._answered.wait()

    def of(self, caller: Caller, agent: str | None) -> Mapping[str, float]:
        """What the service said last: of this caller, else of everybody."""
        said = self._said.get(Who.of(caller, agent))
        return self._said.get(EVERYBODY, {}) if said is None else said

    async def _rest(self) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(self._due - self._clock.monotonic(), 0)):
                await self._wake.wait()

    async def _round(self, batch: Sequence[Who], seconds: float) -> None:
        """Asks about these, unless the service still owes an answer; then it is waited for that."""
        if self._pending is None:
            self._pending = _aside(lambda: _asked(self._ask, batch, self._names))
        done, _ = await asyncio.wait([self._pending], timeout=seconds)
        if not done:
            self._dead, self._trouble = True, f"no answer within {seconds:g} s"
        else:
            error, pending, self._pending = self._pending.exception(), self._pending, None
            found = {EVERYBODY: Told({}, repr(error), dead=True)} if error else pending.result()
            self._dead = found[EVERYBODY].dead
            for who, told in found.items():
                self._take(who, told)
        self._answered.set()
        self._answered = asyncio.Event()

    def _take(self, who: Who, told: Told) -> None:
        self._trouble = self._trouble or told.error
        if told.dead:
            return
        before = self._said.get(who)
        kept = {**(self._said.get(EVERYBODY, {}) if before is None else before), **told.shares}
        said = {name: share for name, share in kept.items() if share is not None}
        self._said[who] = said
        if who == EVERYBODY and said != before:
            log.info("the flag service said what flags are", flags={name: round(said[name], 6) for name in said})
            self._serve(said, self.of)

    def _conclude(self) -> None:
        """A round is over: whoever watches hears of it, and the log of every turn to the worse or the better."""
        trouble, self._trouble = self._trouble, None
        self._observe(FAILED if trouble else OK)
        if trouble and trouble != self._trouble_before:
            log.error("the flag service does not say what flags are; what it said last counts", why=trouble)
        elif self._trouble_before and not trouble:
            log.info("the flag service answers again")
        self._trouble_before = trouble

    def _forget(self) -> None:
        """Those who did not come for long; and where there are too many, those who did not for longest."""
        if self._dead:
            return
        line = self._clock.monotonic() - REST_SECONDS
        recent = [(at, who) for who, at in self._came.items() if at > line]
        self._came = {who: at for at, who in sorted(recent, key=itemgetter(0))[-MOST:]}
        self._said = {who: said for who, said in self._said.items() if who == EVERYBODY or who in self._came}


def _asked(ask: Ask, batch: Sequence[Who], names: Sequence[str]) -> Mapping[Who, Told]:
    found: dict[Who, Told] = {}
    for who in batch:
        found[who] = told = ask(who, names)
        if who == EVERYBODY and told.dead:
            break
        time.sleep(BREATH_SECONDS)  # in its own thread: the event loop gets the interpreter in between
    return found


def _aside(work: Callable[[], T]) -> asyncio.Future[T]:
    """The result of what a thread does for which nothing waits at the end of the process: it may never come back."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def tell(said: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if result.done() else said())

    def run() -> None:
        try:
            made = work()
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever waits is told
            tell(functools.partial(result.set_exception, error))
        else:
            tell(functools.partial(result.set_result, made))

    threading.Thread(target=run, name="flag service", daemon=True).start()
    return result
