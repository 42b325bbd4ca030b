"""`POST /v1/route`: which model would answer a chat request, why, and for how much. Nothing is called or remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from app.api.auth import Door
from app.api.headers import whole_headers
from app.api.inbound import Inbound
from app.api.terms import read_terms
from app.core.caller import Caller
from app.core.money import usd
from app.core.plan import Candidate, Plan
from app.core.request import Request
from app.gateway.flag_service import Meet
from app.learning.decision import Remembered, of_plan
from app.learning.explained import summary
from app.wire.codec import ClientCodec, Limits

Peek = Callable[[Request, Caller], Plan]

MEMORY_HITS: Final = 0
"""Nothing is recalled for requests in this version."""


@dataclass(frozen=True, slots=True)
class RouteEndpoint:
    """`peek` makes the plan of a request without remembering it; `codec` reads the body, as for an answer."""

    door: Door
    peek: Peek
    codec: ClientCodec
    limits: Limits
    meet: Meet | None = None

    async def __call__(self, inbound: Inbound) -> None:
        caller = self.door.viewer(inbound.headers, inbound.peer)
        terms = read_terms(inbound, caller)
        if self.meet is not None:
            await self.meet(caller, terms.agent)
        request = self.codec.read_request(await inbound.body(self.limits.body_bytes), terms, self.limits)
        inbound.taken = True  # what comes of it is no request of the log or the metrics
        body = orjson.dumps(routed(self.peek(request, caller), request))
        await inbound.begin(200, whole_headers(body, inbound, None, terms.ignored, None))
        await inbound.write(body)


def routed(plan: Plan, request: Request) -> dict[str, Any]:
    """The decision as its caller sees it."""
    verdict = plan.verdict
    decision = of_plan(plan, request.id, request.model, 0.0)
    return {
        "score": plan.score,
        "tier": plan.tier,
        "task_type": None if verdict is None else verdict.task_type,
        "confidence": None if verdict is None else verdict.confidence,
        "strategy": plan.strategy,
        "model": plan.candidates[0].card.id,
        "memory_hits": MEMORY_HITS,
        "explanation": summary(Remembered(decision)),
        "candidates": [_candidate(each) for each in plan.candidates],
        "excluded": [{"model": each.model, "reason": each.reason} for each in plan.excluded],
    }


def _candidate(each: Candidate) -> dict[str, Any]:
    cost, seconds, success = each.estimate
    return {
        "model": each.card.id,
        "cost_usd": None if cost is None else usd(cost),
        "latency_ms": None if seconds is None else round(seconds * 1_000),
        "predicted": None if success is None else round(success, 4),
        "reason": each.reason,
    }
