"""What happens once a request is over: exactly one Record, handed to every reader.

It runs in a tracked task of its own, so that neither a client that leaves nor a shutdown loses it. A reader that fails
does not keep the others from theirs. What the request owes is paid after that in the same task: no reader waits for the
store, and no fault in a record keeps money held.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from app.core.errors import ClientGone, GatewayError, InternalError
from app.core.record import Record
from app.core.tasks import ErrorHandler, TaskOwner
from app.gateway.account import Account
from app.gateway.exchange import Exchange
from app.gateway.recording import NOTHING, looked_back, record_of

Reader = Callable[[Record], None]
Leave = Callable[[Account, int], Coroutine[Any, Any, None]]


async def _owing_nothing(account: Account, tokens_used: int) -> None:
    """Nobody limits anything."""


class Settlement:
    """`leave` pays what a request owes; `readers` are told of every finished one: metrics, log, and whatever joins."""

    def __init__(
        self, readers: Sequence[Reader], tasks: TaskOwner, on_error: ErrorHandler, leave: Leave = _owing_nothing
    ) -> None:
        self._readers = tuple(readers)
        self._leave = leave
        self._tasks = tasks
        self._on_error = on_error

    def close(self, exchange: Exchange, error: BaseException | None) -> None:
        """Ends the exchange. `error` is what ended it early: an error of ours, or a caller that left (a cancelled or
        closed generator)."""
        exchange.ends(None if error is None else _as_error(error))
        if not exchange.account.is_open:
            self._tasks.spawn(self._settle(exchange), f"settle {exchange.request.id}")
            return
        used = exchange.used
        paying = self._leave(exchange.account, 0 if used is None else used.tokens.total)
        self._tasks.spawn(self._settle_and_pay(exchange, paying), f"pay {exchange.request.id}")

    def tell(self, record: Record) -> None:
        """Gives the record of what never was an exchange to every reader, in a task of its own."""
        self._tasks.spawn(self._tell(record), f"settle {record.request_id}")

    async def _tell(self, record: Record) -> None:
        self._read(record)

    async def _settle_and_pay(self, exchange: Exchange, paying: Coroutine[Any, Any, None]) -> None:
        try:
            await self._settle(exchange)
        except Exception as error:  # noqa: BLE001 - the money is given back all the same
            self._on_error(f"settle {exchange.request.id}", error)
        await paying

    async def _settle(self, exchange: Exchange) -> None:
        learnt = NOTHING
        try:
            learnt = looked_back(exchange)
        except Exception as error:  # noqa: BLE001 - what is learnt is not worth a record
            self._on_error(f"settle {exchange.request.id}", error)
        self._read(record_of(exchange, learnt))

    def _read(self, record: Record) -> None:
        for reader in self._readers:
            try:
                reader(record)
            except Exception as error:  # noqa: BLE001 - one reader must not take the record from the others
                self._on_error(f"settle {record.request_id}", error)


def _as_error(error: BaseException) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, Exception):
        return InternalError("An error of the gateway.")
    return ClientGone("The client left.")
