"""Finished requests for tests: a plan of three models, answered by the first."""

from __future__ import annotations

from typing import Any

from app.core.plan import Candidate, Estimate, Excluded, Plan
from app.core.record import Attempt, Record
from app.core.verdict import Verdict
from tests.core.nouns import card, paid

VERDICT = Verdict(0.12, 0.9, "code", "router-1", features=(0.5, -1.0))
PLAN = Plan(
    candidates=(
        Candidate(card("gpu/qwen"), "cheapest that can do it", estimate=Estimate(2_000_000, 0.4, 0.91)),
        Candidate(card("ollama/rnj"), "its queue is long", estimate=Estimate(0, 0.2, 0.62)),
        Candidate(paid("claude/opus"), "it can do this", estimate=Estimate(90_000_000, 1.0, 0.99)),
    ),
    strategy="cost",
    excluded=(Excluded("claude/haiku", "this key may not use it"),),
    verdict=VERDICT,
)


def attempt(model: str, outcome: str = "ok", blame: str | None = None) -> Attempt:
    return Attempt(model, model.partition("/")[0], outcome, blame, 0.5)


def record(**fields: Any) -> Record:
    """A good answer of `gpu/qwen`, but for what is said."""
    return Record(
        **{
            "request_id": "req-1",
            "parent_id": None,
            "root_id": "req-1",
            "depth": 0,
            "endpoint": "chat",
            "model_requested": "auto",
            "stream": False,
            "status": 200,
            "started_at": 1_700_000_000.0,
            "seconds": 2.0,
            "overhead_seconds": 0.001,
            "key_id": "key-a",
            "model": "gpu/qwen",
            "upstream": "gpu",
            "local": True,
            "tier": "simple",
            "score": 0.12,
            "strategy": "cost",
            "reason": "cheapest that can do it",
            "attempts": (attempt("gpu/qwen"),),
            "cost_nano": 1_900_000,
            "finish": "stop",
            "plan": PLAN,
            **fields,
        }
    )
