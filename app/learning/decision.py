"""What a decision remembers: enough to explain it to a person, to replay it, and to learn from it. No text. Pure.

Filled in and written once, when the request is over, within a bound on its bytes; what is learnt later stands beside
it. What the fields say to a person is `explained`'s affair, where they are kept that of `decisions`.
"""

from __future__ import annotations

import math
import struct
from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Final

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from app.core.outcome import Outcome
from app.core.plan import Plan
from app.core.record import Record
from app.core.verdict import tier_of

BYTES_MAX: Final = 4_096
LISTED_MAX: Final = 20
NAME_CHARS: Final = 160
REASON_CHARS: Final = 120
FLAGS_MAX: Final = 40
ATTEMPTS_MAX: Final = 10
FEATURES_MAX: Final = 512
HALF_MOST: Final = 65_520.0  # what is below is rounded to a half-precision float
SECONDS_MAX: Final = 1e9
AT_MAX: Final = 253_402_300_799.0  # the end of the year 9999, beyond which no date is written
_NAMES: Final = ("model_requested", "previous", "model", "fallback_from", "tenant", "agent", "session")
FINITE: Final = ConfigDict(allow_inf_nan=False)


@dataclass(slots=True)
class Considered:
    """One candidate with its estimates, as the plan had it. None is unknown. `top` is the highest score it is for."""

    __pydantic_config__: ClassVar[ConfigDict] = FINITE

    model: str
    reason: str
    local: bool
    cost_nano: int | None = None
    first_token_seconds: Annotated[float, Field(ge=0, le=SECONDS_MAX)] | None = None
    success: float | None = None
    top: float | None = None


@dataclass(slots=True)
class LeftOut:
    model: str
    reason: str


@dataclass(slots=True)
class Tried:
    __pydantic_config__: ClassVar[ConfigDict] = FINITE

    model: str
    outcome: str
    seconds: float


@dataclass(slots=True)
class Decision:
    """`at` in seconds since 1970, UTC. `features` are what the classifier looked at: half-precision floats in base64.
    `expected_in` and `expected_out` are the tokens that its estimates took for granted; `previous` is the model that
    served the conversation before, if it could serve this too. `more_candidates` and
    `more_excluded` count those for which there was no room. Without `model`, none was called."""

    __pydantic_config__: ClassVar[ConfigDict] = FINITE

    request_id: str
    at: Annotated[float, Field(ge=0, le=AT_MAX)]
    model_requested: str
    strategy: str
    candidates: tuple[Considered, ...]
    excluded: tuple[LeftOut, ...] = ()
    more_candidates: int = 0
    more_excluded: int = 0
    expected_in: int | None = None
    expected_out: int | None = None
    probability: float = 1.0
    arm: str | None = None
    trigger: str | None = None
    previous: str | None = None
    score: float | None = None
    confidence: float | None = None
    task_type: str | None = None
    tier: str | None = None
    uncorrected: float | None = None
    classifier: str | None = None
    abstained: bool = False
    features: str = ""
    model: str | None = None
    upstream: str | None = None
    reason: str | None = None
    fallback_from: str | None = None
    passed_over: str | None = None
    attempts: tuple[Tried, ...] = ()
    status: int | None = None
    error_code: str | None = None
    finish: str | None = None
    cost_nano: int | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    seconds: float | None = None
    first_token_seconds: float | None = None
    parent_id: str | None = None
    root_id: str | None = None
    key_id: str | None = None
    tenant: str | None = None
    agent: str | None = None
    session: str | None = None
    flags: dict[str, bool | int | float | str | None] | None = None
    consent: str = "session"

    @property
    def learnt_tier(self) -> str | None:
        """The tier under which it is learnt from: that of the score before it was corrected."""
        return self.tier if self.uncorrected is None else tier_of(self.uncorrected)


@dataclass(frozen=True, slots=True)
class Remembered:
    """A decision with all that was learnt about its answer since. `texts` are the caller's own words about it."""

    decision: Decision
    outcomes: tuple[Outcome, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()


_DECISION: Final = TypeAdapter(Decision)
_OUTCOME: Final = TypeAdapter(Outcome)
_ROW: Final = TypeAdapter(tuple[Decision, tuple[Outcome, ...]])


def of_plan(plan: Plan, request_id: str, model_requested: str, at: float) -> Decision:
    """A decision of which nothing has come yet."""
    verdict = plan.verdict
    candidates, excluded = plan.candidates[:LISTED_MAX], plan.excluded[:LISTED_MAX]
    expected_in, expected_out = plan.tokens or (None, None)
    return Decision(
        request_id=request_id,
        at=at,
        model_requested=model_requested,
        strategy=plan.strategy,
        candidates=tuple(
            [
                Considered(card.id, reason, card.local, cost, _rounded(first), _rounded(success), card.complexity[1])
                for card, reason, _, (cost, first, success) in candidates
            ]
        ),
        excluded=tuple([LeftOut(left.model, left.reason) for left in excluded]) if excluded else (),
        more_candidates=len(plan.candidates) - len(candidates),
        more_excluded=len(plan.excluded) - len(excluded),
        expected_in=expected_in,
        expected_out=expected_out,
        probability=plan.probability,
        arm=plan.arm,
        trigger=plan.trigger,
        previous=plan.previous,
        score=None if verdict is None else verdict.score,
        confidence=None if verdict is None else verdict.confidence,
        task_type=None if verdict is None else verdict.task_type,
        tier=None if verdict is None else verdict.tier,
        uncorrected=None if verdict is None else verdict.uncorrected,
        classifier=None if verdict is None else verdict.version,
        abstained=verdict is not None and verdict.abstained,
        features="" if verdict is None else pack_features(verdict.features),
    )


def of_record(record: Record) -> Decision | None:
    """What a finished request remembers; None where no plan was made. The features go where the key consents to
    nothing being kept."""
    if record.plan is None:
        return None
    made = of_plan(record.plan, record.request_id, record.model_requested, record.started_at)
    if record.consent == "off":
        made.features = ""
    made.model, made.upstream, made.reason = record.model, record.upstream, record.reason
    made.fallback_from, made.passed_over = record.fallback_from, record.passed_over
    made.attempts = tuple(
        [Tried(each.model, each.outcome, round(each.seconds, 4)) for each in record.attempts[:ATTEMPTS_MAX]]
    )
    made.status, made.error_code, made.finish = record.status, record.error_code, record.finish
    made.cost_nano = record.cost_nano
    if record.tokens is not None:
        made.tokens_in, made.tokens_out = record.tokens.prompt, record.tokens.completion
    made.seconds, made.first_token_seconds = round(record.seconds, 4), _rounded(record.first_token_seconds)
    made.parent_id, made.root_id, made.key_id = record.parent_id, record.root_id, record.key_id
    made.tenant, made.agent, made.session = record.tenant, record.agent, record.session
    made.flags, made.consent = record.flags, record.consent
    return made


# --- bytes ------------------------------------------------------------------------------------------------------------


def write(decision: Decision) -> bytes:
    """Within `BYTES_MAX`: texts are cut and lists are shortened before the features go."""
    try:
        data = orjson.dumps(decision)
    except TypeError:  # a lone surrogate, a flag that is no plain value
        data = b""
    if 0 < len(data) <= BYTES_MAX:
        return data
    decision = _cut_short(decision)
    data = orjson.dumps(decision)
    for listed, keep_features in ((8, True), (3, True), (3, False), (1, False)):
        if len(data) <= BYTES_MAX:
            break
        decision = _shortened(decision, listed, keep_features)
        data = orjson.dumps(decision)
    return data


def _cut_short(decision: Decision) -> Decision:
    """With no text longer than its bound."""
    names: dict[str, Any] = {
        name: _cut(text, NAME_CHARS) for name in _NAMES if (text := getattr(decision, name)) is not None
    }
    return replace(
        decision,
        **names,
        reason=None if decision.reason is None else _cut(decision.reason, REASON_CHARS),
        candidates=tuple(
            replace(each, model=_cut(each.model, NAME_CHARS), reason=_cut(each.reason, REASON_CHARS))
            for each in decision.candidates
        ),
        excluded=tuple(
            LeftOut(_cut(each.model, NAME_CHARS), _cut(each.reason, REASON_CHARS)) for each in decision.excluded
        ),
        attempts=tuple(replace(each, model=_cut(each.model, NAME_CHARS)) for each in decision.attempts),
        flags=None if decision.flags is None else _plain(decision.flags),
    )


def _shortened(decision: Decision, listed: int, keep_features: bool) -> Decision:
    return replace(
        decision,
        candidates=decision.candidates[:listed],
        excluded=decision.excluded[:listed],
        more_candidates=decision.more_candidates + max(0, len(decision.candidates) - listed),
        more_excluded=decision.more_excluded + max(0, len(decision.excluded) - listed),
        attempts=decision.attempts[:listed],
        features=decision.features if keep_features else "",
        flags=decision.flags if keep_features else None,
    )


def read(data: bytes) -> Decision | None:
    """None for what cannot be read; fields of a later release are passed over."""
    try:
        made = _DECISION.validate_json(data)
        orjson.dumps(made)  # what cannot be shown was not written here
    except (ValidationError, TypeError):
        return None
    return made


def write_outcome(outcome: Outcome) -> bytes:
    return orjson.dumps(outcome)


def read_outcome(data: bytes) -> Outcome | None:
    try:
        return _OUTCOME.validate_json(data)
    except ValidationError:
        return None


def read_row(data: bytes) -> Remembered | None:
    """A row of the training log: a decision and its outcomes."""
    try:
        return Remembered(*_ROW.validate_json(data))
    except ValidationError:
        return None


def pack_features(features: tuple[float, ...]) -> str:
    """Half-precision floats in base64; what is beyond their range is infinite."""
    kept = features[:FEATURES_MAX]
    try:
        return b64encode(struct.pack(f"<{len(kept)}e", *kept)).decode()
    except OverflowError:
        most = [math.copysign(math.inf, each) if abs(each) >= HALF_MOST else each for each in kept]
        return b64encode(struct.pack(f"<{len(kept)}e", *most)).decode()


def unpack_features(packed: str) -> tuple[float, ...]:
    """Raises `ValueError` for what `pack_features` did not write."""
    data = b64decode(packed, validate=True)
    if len(data) % 2:
        raise ValueError("half a number")
    return struct.unpack(f"<{len(data) // 2}e", data)


def _cut(text: str, chars: int) -> str:
    cut = text if len(text) <= chars else f"{text[: chars - 1]}…"
    return cut if cut.isascii() else cut.encode("utf-8", "replace").decode()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _plain(flags: dict[str, Any]) -> dict[str, bool | int | float | str | None]:
    """Those that are plain values."""
    plain = {
        _cut(name, 64): _cut(value, 64) if isinstance(value, str) else value
        for name, value in flags.items()
        if value is None or isinstance(value, bool | int | float | str)
    }
    return dict(list(plain.items())[:FLAGS_MAX])
