"""Answers callers for whom streaming is off: they asked for a stream and get one, with the whole answer in one piece.

The upstream is asked without a stream, so that whatever was wrong with streams there is wrong no longer. Until all of
it is here, the caller's line is kept open by those who keep it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

from app.core.caller import Caller
from app.core.events import Event, Fold
from app.core.replay import replay
from app.core.request import Request
from app.flags import Flags
from app.gateway.deciding import decided_flags
from app.gateway.stages import Answers


class Unstreamed:
    """A gateway that asks the flag first. Satisfies `Answers`."""

    def __init__(self, gateway: Answers, flags: Callable[[], Flags]) -> None:
        self._gateway = gateway
        self._flags = flags

    def answer(self, caller: Caller, request: Request) -> AsyncGenerator[Event, None]:
        if not request.stream or decided_flags(self._flags, request, caller)["STREAMING"]:
            return self._gateway.answer(caller, request)
        return self._whole(caller, replace(request, stream=False))

    async def _whole(self, caller: Caller, request: Request) -> AsyncGenerator[Event, None]:
        fold = Fold()
        async with contextlib.aclosing(self._gateway.answer(caller, request)) as events:
            async for event in events:
                fold.add(event)
        if fold.fault is not None:
            raise fold.fault
        for event in replay(fold.answer()):
            yield event
