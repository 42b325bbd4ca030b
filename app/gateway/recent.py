"""The scores of recent requests, and the threshold below which they stay local (`routing.target_local`)."""

from __future__ import annotations

from collections import deque
from typing import Final

from app.routing.threshold import local_threshold

KEPT: Final = 2_000
EVERY: Final = 50


class RecentScores:
    """`share` None: no share is aimed at for now. The threshold is made anew every so many scores."""

    def __init__(self, share: float | None) -> None:
        self.share = share
        self._scores: deque[float] = deque(maxlen=KEPT)
        self._since = 0
        self._threshold: float | None = None

    def aim(self, share: float | None) -> None:
        """From now on, with the scores there are."""
        if share != self.share:
            self.share = share
            self._reckon()

    def add(self, score: float) -> None:
        self._scores.append(score)
        self._since += 1
        if self._since >= EVERY:
            self._reckon()

    def threshold(self, share: float | None = None) -> float | None:
        """For the configured share, or for another one that a rollout tries."""
        return self._threshold if share is None else local_threshold(self._scores, share)

    def _reckon(self) -> None:
        self._since = 0
        self._threshold = None if self.share is None else local_threshold(self._scores, self.share)
