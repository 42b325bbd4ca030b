"""Tells when a limit reaches a level: a metric, a line of the log, and an optional webhook.

Once per level, limit and period over all gateways: whoever writes the mark into the store tells. All of it happens
beside the requests, and a webhook that does not answer costs nobody anything but the message.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import httpx2
from pydantic import SecretStr

from app.core.clock import Clock
from app.core.money import usd
from app.core.spending import Counter
from app.core.tasks import TaskOwner
from app.spend.budgets import dollars
from app.store import layout
from app.store.client import Store
from app.telemetry.logs import get_logger

FULL: Final = 1.0
PAUSES: Final = (0.0, 1.0, 5.0, 25.0)
"""Seconds before each try of a webhook."""
POST_SECONDS: Final = 5.0
TOLD_AT_MOST: Final = 10_000

Post = Callable[[dict[str, Any]], Awaitable[None]]

log = get_logger("tierway.spend")


class Reading(NamedTuple):
    """How a counter with a limit stands. `refused`: a request was, for want of room in it."""

    counter: Counter
    used_nano: int
    held_nano: int
    refused: bool = False

    @property
    def share(self) -> float:
        """Of the limit, what is used or held; one of nothing is reached when something was asked for."""
        if limit := self.counter.limit_nano:
            return (self.used_nano + self.held_nano) / limit
        return FULL if self.refused else 0.0

    def reaches(self, level: float) -> bool:
        """Requests are refused before the last cent is spent; then the limit is reached, unless less than half of it
        was used, and it was the request that was too large."""
        return self.share >= level or (self.refused and level <= FULL and self.share >= FULL / 2)


class Alerts:
    """`levels` are shares of a limit. `post` sends one alert somewhere, in a task of `tasks`."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        tasks: TaskOwner,
        levels: Sequence[float],
        count: Callable[[str, str], None],
        post: Post | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._tasks = tasks
        self._levels = tuple(levels)
        self._count = count
        self._post = post
        self._name = secrets.token_hex(8).encode()
        self._asked: set[str] = set()
        self._told: dict[str, None] = {}

    async def look(self, readings: Sequence[Reading]) -> None:
        """Tells what nobody has told yet. Raises `StoreUnavailable`; then what is left is told next time."""
        for reading in readings:
            for level in self._levels:
                if reading.reaches(level):
                    await self._once(reading, level)

    async def _once(self, reading: Reading, level: float) -> None:
        counter = reading.counter
        mark = _mark(counter, level)
        if mark in self._told:
            return
        end = layout.lifetime("budgets-alert")
        if counter.ends_ms:
            end = min(end, max(1, counter.ends_ms // 1_000 - int(self._clock.now())))
        lost = mark in self._asked  # and its answer did not come: the mark may be ours
        self._asked.add(mark)
        first = await self._store.call("SET", mark, self._name, "NX", "EX", end)
        if first is None and lost:
            first = await self._store.call("GET", mark, again=True) == self._name
        self._asked.discard(mark)
        if len(self._told) >= TOLD_AT_MOST:
            del self._told[next(iter(self._told))]
        self._told[mark] = None
        if first:
            self._tell(reading, level)

    def _tell(self, reading: Reading, level: float) -> None:
        said = said_of(reading, level, self._clock.now())
        self._count(reading.counter.scope, said["level"])
        about = {name: value for name, value in said.items() if name not in ("event", "text", "level")}
        log.warning("budget", reached=said["level"], **about)  # a line has a level of its own
        if self._post is not None:
            self._tasks.spawn(self._deliver(said), "budget alert")

    async def _deliver(self, said: dict[str, Any]) -> None:
        assert self._post is not None
        why: Exception | None = None
        for pause in PAUSES:
            await asyncio.sleep(pause)
            try:
                return await self._post(said)
            except Exception as error:  # noqa: BLE001 - whatever is wrong there, it is tried again and then said
                why = error
        log.error("a budget alert was not taken by its webhook", budget=said["budget"], why=type(why).__name__)


def webhook(url: SecretStr) -> Post:
    """Posts JSON. Every other answer than 2xx is an error; its words are never logged, since they may hold the URL."""
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every URL, and this one may hold a token

    async def post(said: dict[str, Any]) -> None:
        async with httpx2.AsyncClient(timeout=POST_SECONDS) as client, asyncio.timeout(POST_SECONDS):
            (await client.post(url.get_secret_value(), json=said)).raise_for_status()

    return post


def said_of(reading: Reading, level: float, now: float) -> dict[str, Any]:
    """What a webhook gets; `text` is what chats show. Moments are seconds since 1970."""
    counter = reading.counter
    limit = counter.limit_nano or 0
    reached = f"{100 * level:g}%"
    text = (
        f"Tierway: the budget {counter.id} has reached {reached}:"
        f" {dollars(reading.used_nano)} of {dollars(limit)} USD are used, {dollars(reading.held_nano)} USD held"
    )
    return {
        "event": "budget_alert",
        "text": text + (", and requests are refused." if reading.refused else "."),
        "budget": counter.id,
        "scope": counter.scope,
        "period": counter.period,
        "level": reached,
        "share": round(reading.share, 6),
        "limit_usd": usd(limit),
        "used_usd": usd(reading.used_nano),
        "held_usd": usd(reading.held_nano),
        "refused": reading.refused,
        "starts_at": counter.starts_ms / 1_000 if counter.ends_ms else None,
        "ends_at": counter.ends_ms / 1_000 if counter.ends_ms else None,
        "at": now,
    }


def _mark(counter: Counter, level: float) -> str:
    """With the limit, so that one that was raised can be reached once more."""
    written = f"{counter.key} {counter.limit_nano} {level!r}"
    return layout.key("budgets-alert", blake2b(written.encode(), digest_size=16).hexdigest())
