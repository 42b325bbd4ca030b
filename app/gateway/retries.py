"""Tries of the same candidate again may be a share of all requests, so that retries never feed an outage.

Moving on to another upstream does not press the sick one, and is not counted.
"""

from __future__ import annotations


class RetryBudget:
    """Every request adds its `share`, up to the `reserve`; every retry takes one."""

    def __init__(self, share: float = 0.2, reserve: float = 10.0) -> None:
        self._share = share
        self._reserve = reserve
        self._tokens = reserve

    def request(self) -> None:
        self._tokens = min(self._reserve, self._tokens + self._share)

    def take(self) -> bool:
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
