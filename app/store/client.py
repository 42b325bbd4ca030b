"""The one door to the store: commands and scripts over one connection, gathered per turn of the event loop.

All calls of one turn leave in one write, and replies are matched by their order, so a call costs a future and nothing
else. Time is kept by one timer for the oldest call. A call that was not sent yet waits for a restart of the server; one
that was sent is only sent again where its caller says that this does no harm. While the server stays away every call
fails at once, and a probe beside them finds its return. Keys are the callers' affair (`layout`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import hiredis

from app.core.errors import InternalError, InvalidValue, StoreUnavailable
from app.core.tasks import TaskOwner
from app.store import layout
from app.store.address import Address
from app.store.errors import StoreUnusable
from app.store.link import Command, Link, Unreachable, Value, open_link, pack
from app.store.scripts import Script

Observer = Callable[[str, float], None]

CALL_SECONDS: Final = 0.4  # paid requests are refused within half a second
OPEN_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 0.4  # how long a lost server may take to come back before calls fail at once
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.25
MAX_PENDING: Final = 10_000
LATE_SECONDS: Final = 0.05

NOT_NOW: Final = frozenset(
    "OOM READONLY LOADING MISCONF BUSY MASTERDOWN CLUSTERDOWN TRYAGAIN MOVED ASK NOREPLICAS NOAUTH NOPERM".split()
)
"""Error replies that say something of the server's state, nothing of the command."""

log = logging.getLogger("tierway.store")


def _unobserved(name: str, seconds: float) -> None:
    """Nobody asked for timings."""


class _Call:
    """One command on its way. `again`: it may be sent twice. `script`: the script that was asked for."""

    __slots__ = ("again", "began", "command", "due", "future", "packed", "script")

    def __init__(
        self,
        command: Command,
        packed: bytes,
        future: asyncio.Future[Any],
        due: float,
        again: bool,
        script: Script | None,
    ) -> None:
        self.command = command
        self.packed = packed
        self.future = future
        self.due = due
        self.again = again
        self.script = script
        self.began = time.perf_counter()  # the loop's own clock may count in milliseconds

    @property
    def name(self) -> str:
        return str(self.command[0]) if self.script is None else self.script.name


class Store:
    """Open with `open`, close with `aclose`. Every failure of the server is a `StoreUnavailable`."""

    def __init__(
        self,
        address: Address,
        *,
        timeout: float = CALL_SECONDS,
        observer: Observer = _unobserved,
        make_durable: Callable[[], Awaitable[None]] | None = None,
        max_pending: int = MAX_PENDING,
    ) -> None:
        self._address = self._configured = address
        self._timeout = timeout
        self._observer = observer
        self._make_durable = make_durable
        self._max_pending = max_pending
        self._link: Link | None = None
        self._outbox: deque[_Call] = deque()
        self._sent: deque[_Call] = deque()
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._down = True
        self._closed = False
        self._tasks = TaskOwner(lambda name, error: log.error("%s failed: %r", name, error))

    # --- what callers use -------------------------------------------------------------------------------------------

    def run(
        self, script: Script, keys: Sequence[str] = (), args: Sequence[Value] = (), *, again: bool = False
    ) -> asyncio.Future[Any]:
        """The script's reply, to be awaited; it is asked for at once. All keys it touches are named; `again`: running
        it twice does no harm."""
        return self._send(("EVALSHA", script.sha, len(keys), *keys, *args), again, script)

    async def call(self, *command: Value, again: bool = False) -> Any:
        """The reply of one command; bulk strings are bytes."""
        return await self._send(command, again, None)

    async def ping(self) -> None:
        await self.call("PING", again=True)

    @property
    def healthy(self) -> bool:
        """Whether calls are taken; costs nothing."""
        return not self._down

    async def make_durable(self) -> None:
        """From now on an acknowledged write survives a loss of power too, where the server is ours to configure."""
        if self._make_durable is not None:
            await self._make_durable()

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Calls `heard` when subscribed and at each message; returns when the connection is lost."""
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def lost() -> None:
            if not gone.done():
                gone.set_result(None)

        try:
            link = await open_link(self._address, lambda _: heard(), lost)
        except Unreachable as error:
            raise StoreUnavailable("The store cannot be reached.", retry_after=1) from error
        try:
            link.write(pack(("SUBSCRIBE", channel)))
            await gone
        finally:
            await link.aclose()

    # --- opening and closing ----------------------------------------------------------------------------------------

    async def open(self, timeout: float = OPEN_SECONDS) -> None:
        """Connects and checks the layout's version. Raises `StoreUnusable`."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout
        while True:
            try:
                await self._connect()
                break
            except Unreachable as error:
                if error.refused or loop.time() >= give_up:
                    raise StoreUnusable(f"the store at {self._address.where} cannot be used: {error}") from None
            await asyncio.sleep(FIRST_PAUSE)
        try:
            await self._check_layout()
        except BaseException:  # also when cancelled: nothing may stay open
            await self.aclose()
            raise

    async def _check_layout(self) -> None:
        await self.call("SET", layout.LAYOUT, layout.VERSION, "NX", again=True)
        found = await self.call("GET", layout.LAYOUT, again=True)
        if found not in {str(version).encode() for version in layout.READS}:
            shown = found.decode("ascii", "replace")[:20] if isinstance(found, bytes) else found
            raise StoreUnusable(
                f"the store was written by another release (layout {shown}, this one reads"
                f" {', '.join(map(str, sorted(layout.READS)))}): upgrade tierway, or use an empty store"
            )

    async def aclose(self) -> None:
        self._closed = self._down = True
        await self._tasks.cancel()
        if self._timer is not None:
            self._timer.cancel()
        link, self._link = self._link, None
        self._fail_all("The store was closed.")
        if link is not None:
            await link.aclose()

    # --- sending ----------------------------------------------------------------------------------------------------

    def _send(self, command: Command, again: bool, script: Script | None) -> asyncio.Future[Any]:
        """Never raises: what cannot be sent has failed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._down:
            future.set_exception(StoreUnavailable("The store is away.", retry_after=1))
        elif len(self._outbox) + len(self._sent) >= self._max_pending:
            future.set_exception(StoreUnavailable("The store has too much to do.", retry_after=1))
        else:
            try:
                call = _Call(command, pack(command), future, loop.time() + self._timeout, again, script)
            except InvalidValue as error:
                future.set_exception(error)
                return future
            self._post(call)
            if self._timer is None:
                self._wake_at(call.due)
        return future

    def _post(self, call: _Call) -> None:
        self._outbox.append(call)
        if not self._flushing:
            self._flushing = True
            call.future.get_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._link is None or self._link.closing:
            return
        wanted = [call for call in self._outbox if not call.future.done()]
        self._outbox.clear()
        if wanted:
            self._sent.extend(wanted)
            self._link.write(b"".join([call.packed for call in wanted]))

    # --- receiving --------------------------------------------------------------------------------------------------

    def _on_reply(self, reply: Any) -> None:
        if not self._sent:  # nobody asked: the two ends no longer agree
            self._abort()
            return
        call = self._sent.popleft()
        if call.future.done():
            return
        if isinstance(reply, hiredis.ReplyError):
            self._on_error(call, reply)
        else:
            self._observer(call.name, time.perf_counter() - call.began)
            call.future.set_result(reply)

    def _fail(self, call: _Call, error: Exception) -> None:
        if not call.future.done():
            self._observer(call.name, time.perf_counter() - call.began)
            call.future.set_exception(error)

    def _on_error(self, call: _Call, error: hiredis.ReplyError) -> None:
        kind = str(error).partition(" ")[0]
        if kind == "NOSCRIPT" and call.script is not None and call.command[0] == "EVALSHA":
            call.command = ("EVAL", call.script.source, *call.command[2:])
            call.packed = pack(call.command)
            self._post(call)
        elif kind == "MOVED" and self._follow_to(str(error)):
            self._outbox.append(call)
            self._abort()
        elif kind in NOT_NOW:
            self._fail(call, StoreUnavailable(f"The store cannot serve now ({kind}).", retry_after=1))
            if kind == "READONLY":  # a failover: the name may lead to the new primary
                self._abort()
        else:
            ours = InternalError("The store refused a command.")
            ours.__cause__ = error
            self._fail(call, ours)

    def _follow_to(self, moved: str) -> bool:
        """All our keys share one slot of a cluster, so one address at a time is enough."""
        host, _, port = moved.rpartition(" ")[2].rpartition(":")
        if not (port.isdecimal() and len(port) < 6 and 0 < int(port) < 1 << 16):
            return False
        self._address = replace(self._address, path=None, host=host or self._address.host, port=int(port))
        return True

    def _expire(self) -> None:
        """Fails what is due. A link on which nothing came for twice a call's time is given up. The time for which this
        process was late itself is not the store's: the reply may lie in the socket."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        if (late := now - self._timer_at) > LATE_SECONDS:
            for call in (*self._sent, *self._outbox):
                call.due += late
        following: float | None = None
        for call in (*self._sent, *self._outbox):
            if call.future.done():
                continue
            if call.due > now:
                following = call.due if following is None else min(following, call.due)
            else:
                self._fail(call, StoreUnavailable("The store did not answer in time.", retry_after=1))
        if self._sent and self._sent[0].due + self._timeout <= now:
            self._abort()
        elif self._sent:
            following = min(following or now + self._timeout, self._sent[0].due + self._timeout)
        if following is not None:
            self._wake_at(following)

    def _wake_at(self, when: float) -> None:
        self._timer_at = when
        self._timer = asyncio.get_running_loop().call_at(when, self._expire)

    # --- the connection ---------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        link = await open_link(self._address, self._on_reply, self._on_lost)
        if link.lost:
            raise Unreachable("the connection was closed at once")
        self._link = link
        self._down = False
        self._flush()

    def _abort(self) -> None:
        if self._link is not None:
            self._link.abort()

    def _on_lost(self) -> None:
        if self._link is None or self._closed:
            return
        self._link = None
        unanswered = [call for call in self._sent if not call.future.done()]
        self._sent.clear()
        for call in reversed(unanswered):
            if call.again:
                call.again = False
                self._outbox.appendleft(call)
            else:
                self._fail(call, StoreUnavailable("The store went away before it answered.", retry_after=1))
        self._tasks.spawn(self._reconnect(), "store-reconnect")

    async def _reconnect(self) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + PATIENCE_SECONDS
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._connect()
            except Unreachable as error:
                self._address = self._configured
                if not self._down and loop.time() >= give_up:
                    self._down = True
                    log.warning("the store is away: %s", error)
                    self._fail_all("The store is away.")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE) if self._down else pause

    def _fail_all(self, why: str) -> None:
        for call in (*self._sent, *self._outbox):
            self._fail(call, StoreUnavailable(why, retry_after=1))
        self._sent.clear()
        self._outbox.clear()
