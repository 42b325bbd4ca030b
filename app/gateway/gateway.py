"""The story of a request, on one page: plan it, try the candidates, relay the answer, settle.

Everything a request needs is handed in once. A request may come from a client or from another request; both take this
way.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, Mapping

from app.core.caller import Caller
from app.core.clock import Clock
from app.core.errors import GatewayError
from app.core.events import Event, Fault
from app.core.plan import Candidate
from app.core.request import EmbeddingRequest, Request
from app.core.steps import Steps
from app.core.upstream import Upstream
from app.gateway.attempts import Attempts
from app.gateway.charging import priced_usage
from app.gateway.continuing import continuing
from app.gateway.embeddings import Embedded, after, commits, replies, usage_of
from app.gateway.exchange import Exchange
from app.gateway.pace import paced
from app.gateway.planning import Planned
from app.gateway.recording import refusal
from app.gateway.relay import relay
from app.gateway.settle import Settlement
from app.gateway.shadow import Tap
from app.gateway.stages import Admit, Converse, Planner, Prepare, Repeat, as_it_came, everyone, never_again, unkept
from app.gateway.turns import Enter
from app.routing.registry import Registry


class Gateway:
    """Answers requests. `registry` and `upstreams` are snapshots that discovery swaps; `prepare` fills in the
    operator's defaults; `converse` knows what was said before; `least_pace` is asked of streams, in tokens a second.
    `repeat` picks the answers that have a shadow: set once there is a gateway, which shadows ask."""

    def __init__(
        self,
        planner: Planner,
        attempts: Attempts,
        settlement: Settlement,
        clock: Clock,
        *,
        admit: Admit = everyone,
        prepare: Prepare = as_it_came,
        converse: Converse = unkept,
        least_pace: float = 0.0,
    ) -> None:
        self.repeat: Repeat = never_again
        self._admit = admit
        self._prepare = prepare
        self._converse = converse
        self._least_pace = least_pace
        self.registry = Registry(())
        self.upstreams: Mapping[str, Upstream] = {}
        self._planner = planner
        self._attempts = attempts
        self._settlement = settlement
        self._clock = clock

    async def answer(self, caller: Caller, request: Request) -> AsyncGenerator[Event, None]:
        """The events of one answer: Start with who serves it, content, Finish, and Usage with its cost; or a Fault
        once content has gone out. Raises a `GatewayError` before that. Closing it cancels the upstream."""
        exchange = Exchange(caller, request, "chat", self._clock)
        try:
            conversation = exchange.conversation = await self._converse(caller, request)
            if conversation is not None:
                exchange.request = request = conversation.request
            planned = exchange.planned = self._planner(request, caller, self.registry)
            tap = self.repeat(caller, request, planned.plan)

            def ask() -> AsyncGenerator[Event, None]:
                stream = functools.partial(self._stream, exchange=exchange)
                return self._attempts.walk(exchange, self._door(exchange), stream, exchange.begun_by, Fault)

            whole = ask if conversation is None else functools.partial(conversation.walk, ask, planned.plan)
            walk = continuing(exchange, whole) if request.terms.continues else whole()
            answer = relay(exchange, walk, self._admit.extend)
            try:
                async for event in answer:
                    if conversation is not None:
                        await conversation.see(event)
                    if tap is not None:
                        tap.add(event)
                    yield event
            finally:
                await answer.aclose()
            self._answered(exchange, planned, tap)
        except BaseException as error:  # noted and raised again: an error of ours, or a caller that left
            self._settlement.close(exchange, error)
            raise
        self._settlement.close(exchange, None)

    async def embed(self, caller: Caller, request: EmbeddingRequest) -> Embedded:
        """One vector per input, and who made them."""
        exchange = Exchange(caller, request, "embeddings", self._clock)
        try:
            exchange.planned = self._planner(request, caller, self.registry)
            walk = self._attempts.walk(
                exchange,
                self._door(exchange),
                lambda chosen: replies(self.upstreams[chosen.card.upstream], request, chosen.card),
                commits,
                after,
            )
            async with contextlib.aclosing(walk):
                async for reply in walk:
                    exchange.running.usage = usage_of(reply, request)
                    embedded = Embedded(reply, exchange.served(), priced_usage(exchange))
        except BaseException as error:  # as above
            self._settlement.close(exchange, error)
            raise
        self._settlement.close(exchange, None)
        return embedded

    def refused(
        self, endpoint: str, request_id: str, error: GatewayError, seconds: float, steps: Steps | None = None
    ) -> None:
        """Records what was refused before it became a request: a wrong key, a body that is no JSON."""
        started_at = self._clock.now() - seconds
        self._settlement.tell(refusal(endpoint, request_id, error, started_at, seconds, steps))

    def _door(self, exchange: Exchange) -> Enter:
        """Makes the request ready for one candidate, and asks whether it may go there."""

        async def enter(candidate: Candidate, at_last: bool) -> None:
            card = candidate.card
            request = exchange.asked_of(card)
            if isinstance(request, Request):
                request, exchange.defaults = self._prepare(request, card, exchange.task_type)
            exchange.sent = await self._admit.enter(exchange.account, exchange.caller, request, card, at_last=at_last)

        return enter

    def _stream(self, candidate: Candidate, exchange: Exchange) -> AsyncGenerator[Event, None]:
        assert isinstance(exchange.sent, Request)
        events = self.upstreams[candidate.card.upstream].stream(exchange.sent, candidate.card)
        return paced(events, self._least_pace) if self._least_pace and exchange.streams else events

    def _answered(self, exchange: Exchange, planned: Planned, tap: Tap | None) -> None:
        """An answer went well: its conversation is remembered, and its shadow may begin."""
        if exchange.error is None and exchange.candidate is not None:
            self._planner.answered(planned, exchange.candidate.card.id)
            if tap is not None and exchange.stopped is None:
                tap.close()
