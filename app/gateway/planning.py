"""Hands the pure plan what it cannot know by itself: the operator's rules, the flags for this caller, health."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.config.schema import Routing
from app.core.caller import Caller
from app.core.plan import Plan
from app.core.request import EmbeddingRequest, Request
from app.flags import Flags
from app.routing.policy import Demoted, plan
from app.routing.registry import Registry
from app.routing.rules import Rules
from app.routing.signals import Signals


@dataclass(frozen=True, slots=True)
class Planning:
    """Called once per request. `flags` gives the snapshot of the moment."""

    routing: Routing
    flags: Callable[[], Flags]
    demoted: Demoted

    def __call__(self, request: Request | EmbeddingRequest, caller: Caller, registry: Registry) -> Plan:
        return plan(request, caller, registry, self._rules(request, caller), Signals(self.demoted))

    def _rules(self, request: Request | EmbeddingRequest, caller: Caller) -> Rules:
        flags, terms = self.flags(), request.terms
        unit = terms.session or caller.key_id or terms.request_id

        def on(name: str) -> bool:
            return flags.evaluate(name, unit, caller=caller, agent=terms.agent)

        return Rules(
            strategy=self.routing.strategy,
            routed=on("MULTI_MODEL_ROUTER"),
            default_model=self.routing.default_model,
            local=on("LOCAL_MODELS"),
            paid=on("CLOUD_FALLBACK") and self.routing.cloud != "never",
            fallback=self.routing.fallback.on,
        )
