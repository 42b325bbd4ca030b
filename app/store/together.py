"""Makes one call of all that is asked in one turn of the event loop, where a script answers many as cheaply as one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import compress
from typing import Any, Final, Generic, TypeVar

import hiredis

from app.core.errors import InternalError, StoreUnavailable

AT_ONCE: Final = 50  # no script keeps others waiting for longer

T = TypeVar("T")


class Places(dict[str, int]):
    """At which place of a growing list each key stands, from 1 on as scripts count."""

    def __init__(self, keys: list[str]) -> None:
        self._keys = keys

    def __missing__(self, key: str) -> int:
        self._keys.append(key)
        self[key] = place = len(self._keys)
        return place


class Together(Generic[T]):
    """`send` asks for many at once, and is answered with a reply for each, in their order. Where the store refuses that
    as a whole, which then has changed nothing that a repetition would change again, each is asked for alone."""

    def __init__(self, send: Callable[[Sequence[T]], asyncio.Future[Any]]) -> None:
        self._send = send
        self._items: list[T] = []
        self._told: list[asyncio.Future[Any]] = []

    def ask(self, item: T) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Any] = loop.create_future()
        if not self._items:
            loop.call_soon(self._go)
        self._items.append(item)
        self._told.append(told)
        return told

    def _go(self) -> None:
        waits = [not told.done() for told in self._told]
        items, told = [*compress(self._items, waits)], [*compress(self._told, waits)]
        self._items, self._told = [], []
        for start in range(0, len(items), AT_ONCE):
            self._ask(items[start : start + AT_ONCE], told[start : start + AT_ONCE])

    def _ask(self, items: Sequence[T], told: Sequence[asyncio.Future[Any]]) -> None:
        try:
            asked = self._send(items)
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            self._fail(items, told, error)
        else:
            asked.add_done_callback(partial(self._tell, items, told))

    def _tell(self, items: Sequence[T], told: Sequence[asyncio.Future[Any]], reply: asyncio.Future[Any]) -> None:
        if error := reply.exception():
            self._fail(items, told, error)
        elif not isinstance(said := reply.result(), list) or len(said) != len(told):
            self._fail(items, told, InternalError("The store gave an answer that is none."))
        else:
            for each, one in zip(told, said, strict=True):
                _answer(each, one)

    def _fail(self, items: Sequence[T], told: Sequence[asyncio.Future[Any]], error: BaseException) -> None:
        if len(items) == 1 or isinstance(error, StoreUnavailable):
            for each in told:
                _answer(each, error)
        else:
            for item, each in zip(items, told, strict=True):
                if not each.done():
                    self._ask([item], [each])


def _answer(told: asyncio.Future[Any], said: Any) -> None:
    if told.done():
        return
    if isinstance(said, hiredis.ReplyError):
        told.set_exception(InternalError("The store refused a part of a command."))
    elif isinstance(said, BaseException):
        told.set_exception(said)
    else:
        told.set_result(said)
