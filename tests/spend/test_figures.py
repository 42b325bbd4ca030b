"""Without these a report says 0 where nobody knows."""

from __future__ import annotations

import pytest

from app.spend.figures import figures, kind_of, percentiles, share
from app.spend.histogram import bucket
from app.spend.sums import Sums


def test_nothing_is_no_share_and_no_comparison() -> None:
    found = figures(Sums())
    assert (found.requests, found.cost_usd, found.imputed_usd) == (0, 0, 0)
    assert found.coverage is found.dearest_usd is found.savings_usd is None
    assert share(0, 0) is None and share(1, 4) == 0.25


def test_sums_in_dollars() -> None:
    found = figures(
        Sums(requests=5, answers=4, local=3, cost=2_500_000_000, imputed=500, compared=2, dearest=10**9, saved=-5)
    )
    assert (found.cost_usd, found.imputed_usd, found.dearest_usd, found.savings_usd) == (2.5, 5e-7, 1.0, -5e-9)
    assert (found.coverage, found.local_answers) == (0.5, 3)


def test_what_was_refused_is_neither_answered_nor_failed() -> None:
    """An operator who sees fewer answers than requests must see where the others are."""
    found = figures(Sums(requests=9, answers=4, failed=2, left=1))
    assert (found.refused, found.requests) == (2, 9)
    assert figures(Sums(answers=3)).refused == 0, "sums of gateways arrive one after the other"


def test_a_cost_of_which_nothing_is_known_is_unknown() -> None:
    assert figures(Sums(unpriced=2)).cost_usd is None
    assert figures(Sums(unpriced=2, cost=10**9)).cost_usd == 1.0


def test_how_a_kind_did() -> None:
    sums = Sums(
        {"answers": 3, "failed": 1, "value": 1_500, "weight": 2_000, f"s{bucket(2.0)}": 2, f"f{bucket(0.5)}": 2}
    )
    found = kind_of("local", "vllm", sums, 4)
    assert (found.answers, found.share, found.failed_attempts) == (3, 0.75, 1)
    assert (found.quality, found.scored) == (0.75, 2.0)
    assert found.seconds.p95 == pytest.approx(2.0, rel=0.2)
    assert found.first_token_seconds.p50 == pytest.approx(0.5, rel=0.2)


def test_a_kind_of_which_nothing_was_learnt_has_no_quality() -> None:
    for sums in (Sums(), Sums(value=5, weight=0), Sums(value=-5, weight=-5)):
        found = kind_of("paid", None, sums, 0)
        assert found.quality is found.share is found.seconds.p50 is None
        assert found.scored == 0
    assert kind_of("paid", None, Sums(value=50, weight=5), 0).quality == 1.0


def test_buckets_that_are_none_are_passed_over() -> None:
    assert percentiles(Sums({"s": 4, "sx": 2, "s999": 1, "saved": 9, "": 1, "s3": -1}), "s").p50 is None
