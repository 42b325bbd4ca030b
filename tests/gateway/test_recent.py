"""The share of traffic that the operator wants to stay local is kept by what lately came, and not by a guess."""

from __future__ import annotations

import pytest

from app.gateway.recent import EVERY, KEPT, RecentScores


def filled(share: float | None, *scores: float) -> RecentScores:
    recent = RecentScores(share)
    for score in scores:
        recent.add(score)
    return recent


def test_too_little_was_seen_to_say() -> None:
    recent = filled(0.8, *[0.5] * (EVERY - 1))
    assert recent.threshold() is None
    recent.add(0.5)
    assert recent.threshold() is not None


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9])
def test_so_much_of_what_came_lately_is_below_the_threshold(share: float) -> None:
    scores = [number / 100 for number in range(100)]
    threshold = filled(share, *scores).threshold()
    assert threshold is not None
    assert sum(score < threshold for score in scores) == share * 100


def test_when_requests_become_harder_the_threshold_follows() -> None:
    """Old traffic is forgotten, so that the share holds today."""
    recent = filled(0.5, *[0.1] * KEPT)
    before = recent.threshold()
    for _ in range(KEPT):
        recent.add(0.9)
    after = recent.threshold()
    assert before is not None and after is not None
    assert before < 0.2 and after > 0.8


def test_it_is_worked_out_now_and_then_and_not_for_every_request() -> None:
    """Sorting two thousand scores each time would cost more than the plan."""
    recent = filled(0.5, *[0.2] * EVERY)
    before = recent.threshold()
    for _ in range(EVERY - 1):
        recent.add(0.9)
        assert recent.threshold() == before
    recent.add(0.9)
    assert recent.threshold() == before, "half of all still lies at 0.2"
    for _ in range(2 * EVERY):
        recent.add(0.9)
    assert recent.threshold() != before


def test_without_a_share_there_is_none_to_keep_until_one_is_aimed_at() -> None:
    """An operator who sets a share at run time need not wait until enough has come since; a rollout may try one."""
    recent = filled(None, *[number / 100 for number in range(100)])
    tried = recent.threshold(0.5)
    assert recent.threshold() is None and tried is not None
    recent.aim(0.5)
    assert recent.threshold() == tried
    recent.aim(None)
    assert recent.threshold() is None


def test_a_rollout_may_try_another_share() -> None:
    recent = filled(0.5, *[number / 100 for number in range(100)])
    usual, tried = recent.threshold(), recent.threshold(0.9)
    assert usual is not None and tried is not None
    assert usual < 0.55 < 0.85 < tried
    assert recent.threshold() == usual, "who is not in the rollout sees nothing of it"
