"""Sums as people read them: dollars, shares, percentiles. What is unknown is None, never zero."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict

from app.core.money import usd
from app.spend import cells
from app.spend.histogram import LAST, percentile
from app.spend.sums import Sums

SHARES: Final = (0.5, 0.95, 0.99)


class Part(BaseModel):
    """A part of what the admin endpoints say."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Figures(Part):
    """What some traffic cost, and how it went."""

    requests: int
    answers: int
    local_answers: int
    failed: int
    """Requests that failed through an upstream or the gateway, not those that were refused."""
    refused: int
    """Requests that got no answer for their caller's own reasons: a mistake in them, a limit, a spent budget."""
    left: int
    """Requests whose client did not wait for the end."""
    caused: int
    """Requests that others caused (shadows, for one): they cost, and count as nothing else here."""
    tokens_in: int
    tokens_out: int
    estimated: int
    """Answers whose tokens are an estimate."""
    cost_usd: float | None
    """What was billed, as far as prices are known; null where none is."""
    unpriced: int
    """Attempts whose price is unknown, so that they are missing in the cost."""
    imputed_usd: float
    """The price of the machines' time."""
    compared: int
    """Answers of which it is known what the dearest capable model would have taken."""
    coverage: float | None
    """Their share of the answers."""
    dearest_usd: float | None
    """What that model would have taken for them."""
    savings_usd: float | None
    """That, less all that was billed and imputed for them, and for what came to no answer."""
    fallbacks: int
    """Answers by another model than the one that should have."""
    fallback_cost_usd: float
    """What these were billed."""
    lost_usd: float
    """What was billed for attempts that came to nothing."""


def figures(sums: Sums) -> Figures:
    cost, unpriced, answers, compared = (
        sums[each] for each in (cells.COST, cells.UNPRICED, cells.ANSWERS, cells.COMPARED)
    )
    requests, failed, left = (sums[each] for each in (cells.REQUESTS, cells.FAILED, cells.LEFT))
    return Figures(
        requests=requests,
        answers=answers,
        local_answers=sums[cells.LOCAL],
        failed=failed,
        refused=max(0, requests - answers - failed - left),
        left=left,
        caused=sums[cells.CAUSED],
        tokens_in=sums[cells.IN],
        tokens_out=sums[cells.OUT],
        estimated=sums[cells.ESTIMATED],
        cost_usd=None if unpriced and not cost else usd(cost),
        unpriced=unpriced,
        imputed_usd=usd(sums[cells.IMPUTED]),
        compared=compared,
        coverage=share(compared, answers),
        dearest_usd=usd(sums[cells.DEAREST]) if compared else None,
        savings_usd=usd(sums[cells.SAVED]) if compared else None,
        fallbacks=sums[cells.FALLBACKS],
        fallback_cost_usd=usd(sums[cells.FALLBACK_COST]),
        lost_usd=usd(sums[cells.LOST]),
    )


def share(part: float, whole: float) -> float | None:
    """None where there is nothing to have a share of."""
    return part / whole if whole else None


class Percentiles(Part):
    p50: float | None
    p95: float | None
    p99: float | None


class Kind(Part):
    """How the upstreams of one kind did."""

    place: str
    """local or paid."""
    kind: str | None
    """ollama, vllm, anthropic, ...; null for all of that place."""
    answers: int
    share: float | None
    """Of all answers."""
    failed_attempts: int
    seconds: Percentiles
    """From a request's first byte to its end, as its caller saw it."""
    first_token_seconds: Percentiles
    """To the first content, of streams."""
    quality: float | None
    """Mean of what was learnt of its answers, 0 to 1."""
    scored: float
    """How many answers' worth of evidence that rests on."""


def kind_of(place: str, kind: str | None, sums: Sums, answers: int) -> Kind:
    weight = sums[cells.WEIGHT]
    return Kind(
        place=place,
        kind=kind,
        answers=sums[cells.ANSWERS],
        share=share(sums[cells.ANSWERS], answers),
        failed_attempts=sums[cells.FAILED],
        seconds=percentiles(sums, cells.SECONDS),
        first_token_seconds=percentiles(sums, cells.FIRST),
        quality=min(1.0, max(0.0, sums[cells.VALUE] / weight)) if weight > 0 else None,
        scored=max(0, weight) / 1_000,
    )


def percentiles(sums: Sums, measure: str) -> Percentiles:
    counts = {number: count for number in range(LAST + 1) if (count := sums[f"{measure}{number}"]) > 0}
    p50, p95, p99 = (percentile(counts, each) for each in SHARES)
    return Percentiles(p50=p50, p95=p95, p99=p99)
