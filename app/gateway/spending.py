"""Builds what money stands on: the ledger with its journal and outbox, the limits and who watches them, cost data, and
the admission over them all.

A part of the composition root, kept apart because it is one story of its own. What it builds follows the broadcast and
runs in the tasks it is given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from app.config.settings import Settings
from app.core.caller import Caller
from app.core.record import Attempt
from app.core.request import AnyRequest
from app.core.spending import CostCell, Counter
from app.core.tasks import TaskOwner
from app.gateway.admission import Admission
from app.gateway.budget_admin import TOPIC, BudgetAdmin
from app.gateway.deciding import decided_flags
from app.gateway.routed import Basis, Routed
from app.spend.alerts import Alerts, webhook
from app.spend.budgets import Budgets
from app.spend.calibration import Calibration
from app.spend.costs import Around, Costs, Place, hourly_of
from app.spend.dearest import Dearest
from app.spend.journal import Journal
from app.spend.known import Known
from app.spend.ledger import Ledger
from app.spend.outbox import Outbox
from app.spend.remembered import Remembered
from app.spend.watch import Watch
from app.store.broadcast import Broadcast
from app.store.leases import HeldLease
from app.store.ledger import LedgerStore
from app.telemetry.money_metrics import MoneyMetrics

FOLDER: Final = "ledger"
"""Where in the data folder the journal, the outbox and the epoch are."""


class Spending:
    """The services of money of one gateway. `callers` are the keys there are."""

    def __init__(
        self, basis: Basis, routed: Routed, metrics: MoneyMetrics, callers: Callable[[], Sequence[Caller]]
    ) -> None:
        settings, store, clock = basis.settings, basis.store, basis.clock
        policy, folder = settings.budget, settings.data_dir / FOLDER
        self._basis = basis
        self._metrics = metrics
        self._callers = callers
        self._calls = LedgerStore(store)
        self._journal, self._outbox, self._remembered = Journal(folder, clock), Outbox(folder), Remembered(folder)
        self.budgets = Budgets(settings.budgets, policy, settings.sessions.ttl_days)
        post = None if policy.webhook is None else webhook(policy.webhook)
        alerts = Alerts(store, clock, basis.tasks, policy.alert_at, metrics.alerted, post)
        self._watch = Watch(self.budgets, self._calls.used, alerts, Known(store), metrics.stand, clock)
        self.ledger = Ledger(
            self._calls,
            clock,
            self._journal,
            self._outbox,
            on_crash=policy.on_crash,
            over_reserved=metrics.over_reserved,
            alert=self._watch.note,
        )
        around = Around(
            Dearest(lambda: basis.gateway().registry.cards),
            self._place,
            hourly_of(settings.upstreams),
            metrics.saved,
            metrics.imputed,
        )
        self.costs = Costs(store, clock, around)
        routed.success.learnt = self.costs.scored
        self.admin = BudgetAdmin(store, routed.audit, self.budgets, self._calls, callers, clock)
        self.admission = Admission(
            self.ledger,
            self.budgets,
            Calibration(metrics.calibrated) if policy.estimate == "calibrated" else None,
            clock,
            self._guarded,
            self._denied,
            self.costs.cells_of,
            lower=policy.lower_max_tokens,
        )

    async def open(self, stack: contextlib.AsyncExitStack) -> None:
        """Before the first request. What is closed at the end is pushed on the stack."""
        await self._journal.open()
        stack.push_async_callback(self._journal.aclose)
        await self._outbox.open(self._journal.left_over)
        stack.push_async_callback(self._outbox.aclose)
        stack.push_async_callback(self.costs.aclose)
        await self.ledger.open(self._remembered)
        stack.push_async_callback(self.ledger.aclose)
        await self.admin.refresh()
        await self._make_durable()

    def start(self, broadcast: Broadcast, watchers: TaskOwner) -> None:
        """What goes on beside the requests."""
        self.admin.follow(broadcast)
        for topic in (TOPIC, "keys"):
            broadcast.watch(topic, self._make_durable)
        watchers.spawn(self.ledger.run(self._cells_of), "ledger")
        watchers.spawn(self._watch.run(), "limits")
        watchers.spawn(self.costs.run(), "cost data")

    async def _make_durable(self) -> None:
        """Once anything limits spend, what the store acknowledges must survive a loss of power."""
        if is_limited(self._basis.settings, self.budgets.changed.values(), self._callers()):
            await self.ledger.make_durable()

    def _guarded(self, request: AnyRequest, caller: Caller) -> bool:
        return decided_flags(self._basis.flags, request, caller)["BUDGET_GUARD"]

    def _denied(self, scope: str, counter: Counter | None) -> None:
        self._metrics.denied(scope)
        if counter is not None:
            self._watch.refused(counter)

    def _place(self, upstream: str) -> Place | None:
        found = self._basis.gateway().upstreams.get(upstream)
        return None if found is None else Place(found.kind, found.local)

    def _cells_of(self, due: HeldLease, nano: int) -> tuple[CostCell, ...]:
        """As what the charge for a lease is summed up that nobody settled."""
        attempt = Attempt(due.model, due.model.partition("/")[0], "expired", None, 0.0, nano, leased=True)
        said = due.about
        return self.costs.cells_of(attempt, said.get("key"), said.get("tenant"), said.get("agent"))


def is_limited(settings: Settings, changed: Iterable[int], callers: Iterable[Caller]) -> bool:
    """Whether anybody has set a limit on spend that outlasts a request."""
    return bool(settings.budgets) or any(True for _ in changed) or any(caller.budgets for caller in callers)
