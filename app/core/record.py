"""What a request came to: `Served` is what the caller is told about it, `Record` what we remember.

A Record is made exactly once per request, when it is over, and read by ledger, metrics, log and learning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from app.core.card import Ability
from app.core.money import Tokens
from app.core.outcome import Ask, Noticed
from app.core.plan import Plan
from app.core.spending import RateState
from app.core.steps import Steps
from app.core.value import value


@dataclass(slots=True)
class Served:
    """Who answered and why, for response headers and the `tierway` object of the body."""

    request_id: str
    model: str  # the full id: upstream/model
    upstream: str
    reason: str
    attempts: int
    tier: str | None = None
    score: float | None = None
    fallback: str | None = None  # the full id of the model this one stands in for
    session: str | None = None
    defaults: tuple[str, ...] = ()  # parameters that the operator's defaults filled in
    simulated: bool = False
    rates: tuple[RateState, ...] = ()  # how the caller's limits stand
    context: str | None = None  # what the model was not sent of the conversation, in words
    continued_from: str | None = None  # the full id of the model that began the answer and broke off


@value(frozen=True, slots=True)
class Attempt:
    """One try at one candidate. `outcome` is `ok`, a kind of upstream fault, or `left`; seconds; `cost_nano` is
    what was charged for it, None where that is unknown. `machine_seconds` are its share of the upstream's time, which
    those who ran there at the same moment divide among them. `leased`: its cost and tokens are booked with the
    settlement of its lease, and nobody else books them."""

    model: str
    upstream: str
    outcome: str
    blame: str | None
    seconds: float
    cost_nano: int | None = None
    tokens: Tokens | None = None
    machine_seconds: float | None = None
    leased: bool = False


@value(frozen=True, slots=True)
class Record:
    """One finished request. `status` is what the client was sent: 200 for a stream that broke after it began, with
    `error_code` saying how. `consent` is the key's `store_content` (`off`, `session` or `training`), `retention_days`
    its own bound on what is kept. `needs` is what a model had to be able to do to answer it.
    `config_version` names the configuration that it was planned by, `stream_id` the stream that it was, where that can
    be resumed. `passed_over` is the code of what kept it from asking the model that another stands in for. `steps` are
    what it noted for its trace, where it is traced."""

    request_id: str
    parent_id: str | None
    root_id: str
    depth: int
    endpoint: str
    model_requested: str
    stream: bool
    status: int
    started_at: float  # seconds since 1970, UTC
    seconds: float
    overhead_seconds: float
    error_code: str | None = None
    key_id: str | None = None
    tenant: str | None = None
    agent: str | None = None
    session: str | None = None
    model: str | None = None
    upstream: str | None = None
    local: bool | None = None
    tier: str | None = None
    score: float | None = None
    strategy: str | None = None
    reason: str | None = None
    fallback_from: str | None = None
    passed_over: str | None = None
    attempts: tuple[Attempt, ...] = ()
    tokens: Tokens | None = None
    usage_estimated: bool = False
    truncated: bool = False
    cost_nano: int | None = None
    first_token_seconds: float | None = None
    finish: str | None = None
    client_gone: bool = False
    trace_id: str | None = None
    plan: Plan | None = None
    flags: dict[str, Any] = field(default_factory=dict)
    noticed: Noticed | None = None
    ask: Ask | None = None
    consent: str = "session"
    retention_days: int | None = None
    needs: frozenset[Ability] = frozenset()
    config_version: str | None = None
    stream_id: str | None = None
    steps: Steps | None = field(default=None, compare=False, repr=False)
