"""The metrics of money: how the limits stand, what they refused, what was saved. On a registry that is handed in.

No label names a key, a tenant, an agent or a session: the gauges of a scope and period show the one limit there that is
nearest to being used up, all three of the same one, so that their ratio means something.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry

from app.core.money import usd
from app.telemetry.instruments import Counter, Gauge
from app.telemetry.metrics import Children, Names

Tightest = dict[tuple[str, str], tuple[int, int, int]]
"""By scope and period: limit, used and held in nano-dollars."""

_NOTHING: Final = (0, 0)


class MoneyMetrics:
    """Counters are counted by those who know; the gauges are set together, by whoever looks at the limits."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"tierway_{name}", about, labels, registry=registry)

        def gauge(name: str, about: str) -> Children[Gauge]:
            labels = ("scope", "period")
            made = Gauge(f"tierway_{name}", about, labels, registry=registry, multiprocess_mode="livemostrecent")
            return Children(made)

        self._limit = gauge("budget_limit_usd", "The limit that is nearest to being used up.")
        self._used = gauge("budget_used_usd", "What is used of that limit.")
        self._held = gauge("budget_held_usd", "What running requests hold of that limit.")
        self._denied = Children(counter("budget_denied_total", "Refusals for want of money.", "scope"))
        self._alerts = Children(counter("budget_alerts_total", "Limits that reached a level.", "scope", "level"))
        self._over_reserve = counter("over_reserve_total", "Attempts that cost more than was held for them.")
        prompts = counter("calibrated_prompts_total", "Prompts reckoned lower than their strict bound.", "result")
        self._calibrated = {over: prompts.labels(result) for over, result in ((False, "within"), (True, "over"))}
        self._savings = counter("savings_usd_total", "What the dearest capable model would have cost more, net.")
        self._imputed = Children(
            counter("imputed_cost_usd_total", "What the time of own machines is worth, in USD.", "upstream")
        )
        self._word, self._upstream = Names(50), Names(50)
        self._shown: set[tuple[str, str]] = set()

    def stand(self, tightest: Tightest) -> None:
        """How the limits stand now. What has none any more (a session that ended) keeps its limit, unused."""
        for labels in self._shown - tightest.keys():
            self._show(labels, *_NOTHING)
        for labels, (limit, used, held) in tightest.items():
            self._limit[labels].set(usd(limit))
            self._show(labels, used, held)
        self._shown.update(tightest)

    def _show(self, labels: tuple[str, str], used: int, held: int) -> None:
        self._used[labels].set(usd(used))
        self._held[labels].set(usd(held))

    def denied(self, scope: str) -> None:
        self._denied[self._word[scope],].inc()

    def alerted(self, scope: str, level: str) -> None:
        """`level` is a share of the limit, like `80%`."""
        self._alerts[self._word[scope], self._word[level]].inc()

    def over_reserved(self, nano: int) -> None:
        """One attempt cost so much more than was held."""
        if nano > 0:
            self._over_reserve.inc()

    def calibrated(self, over: bool) -> None:
        """A prompt whose bound was lowered is billed: whether it came to more than that."""
        self._calibrated[over].inc()

    def saved(self, nano: int) -> None:
        """A counter only grows: what cost more than the comparison is no saving, and taken off nowhere."""
        if nano > 0:
            self._savings.inc(usd(nano))

    def imputed(self, upstream: str, nano: int) -> None:
        if nano > 0:
            self._imputed[self._upstream[upstream],].inc(usd(nano))
