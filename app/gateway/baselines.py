"""What answers are compared with: the quality of one model as it was when an operator made it the measure of all.
Shared by all gateways, which read it within seconds, and audited.
"""

from __future__ import annotations

from typing import Final

import orjson

from app.core.errors import Overloaded
from app.gateway.audit import OPERATOR, Audit, Entry
from app.learning.success import BASELINE_FIELD, Baseline, Success
from app.store import layout
from app.store.client import Store

TOPIC: Final = "baseline"
TRIES: Final = 5


class Baselines:
    """The one way to change the baseline that `success` compares with."""

    def __init__(self, store: Store, audit: Audit, success: Success) -> None:
        self.success = success
        self._store = store
        self._audit = audit

    async def put(self, model: str) -> Baseline:
        """Makes what this model (its full id) achieved so far the measure. Raises `Unprocessable` where that is too
        little."""
        made = await self.success.measured(model)
        entry = Entry(OPERATOR, "baseline.put", model)
        for _ in range(TRIES):
            before = await self._store.call("HGET", layout.BASELINE, BASELINE_FIELD, again=True)
            after = orjson.dumps(made)
            if await self._audit.change(layout.BASELINE, BASELINE_FIELD, before, after, TOPIC, entry):
                self.success.baseline = made
                return made
        raise Overloaded("The baseline is being changed by somebody else.", retry_after=1)
