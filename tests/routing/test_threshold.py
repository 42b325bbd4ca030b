"""The threshold of `target_local`: a share that is missed is money spent or quality lost."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from app.routing.threshold import LEAST, local_threshold

SCORES = st.lists(st.floats(0, 1), min_size=LEAST, max_size=200)


@given(SCORES, st.floats(0, 1))
def test_the_share_stays_local_and_no_more_than_ties_ask_for(scores: list[float], share: float) -> None:
    threshold = local_threshold(scores, share)
    assert threshold is not None
    local = sum(score < threshold for score in scores)
    assert local >= share * len(scores) - 1e-6
    lower = math.nextafter(threshold, 0.0)
    fewer = sum(score < lower for score in scores)
    assert fewer < share * len(scores) or fewer == local == 0 or threshold > 1


def test_eighty_percent_of_real_traffic_is_eighty_percent() -> None:
    chance = Random(1)
    scores = [chance.betavariate(2, 3) for _ in range(1_000)]
    threshold = local_threshold(scores, 0.8)
    assert threshold is not None
    assert sum(score < threshold for score in scores) == 800


def test_nothing_and_everything_can_be_asked_for() -> None:
    scores = [0.0, 1.0] * LEAST
    nothing, everything = local_threshold(scores, 0.0), local_threshold(scores, 1.0)
    assert nothing == 0.0
    assert everything is not None and everything > 1.0


def test_a_handful_of_requests_says_nothing() -> None:
    """The first answers of the day must not decide where the others go."""
    assert local_threshold([0.5] * (LEAST - 1), 0.8) is None
