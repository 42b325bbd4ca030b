"""The measure that all models are compared with: whoever moves it moves every comparison, so that is remembered."""

from __future__ import annotations

import pytest

from app.core.clock import ManualClock
from app.core.errors import Overloaded, Unprocessable
from app.gateway.audit import Audit
from app.gateway.baselines import TRIES, Baselines
from app.learning.outcome import Evidence
from app.learning.success import BASELINE_FIELD, Success
from app.store import layout
from app.store.client import Store


def baselines(store: Store) -> Baselines:
    clock = ManualClock(1_700_000_000.0)
    made = Baselines(store, Audit(store, clock), Success(store, clock))
    for _ in range(20):
        made.success.learn("claude/opus", "code", "simple", Evidence(0.8, 1.0))
    return made


async def test_a_baseline_is_put_told_and_audited(store: Store) -> None:
    here, there = baselines(store), Success(store, ManualClock())
    made = await here.put("claude/opus")
    assert (made.model, made.at, made.quality) == ("claude/opus", 1_700_000_000.0, {"code": 0.8, "": 0.8})
    await there.sync()
    assert here.success.baseline == there.baseline == made
    again = await here.put("claude/opus")
    assert again.model == "claude/opus"
    (_, entry) = await Audit(store, ManualClock()).entries()
    assert (entry["actor"], entry["action"], entry["subject"]) == ("admin", "baseline.put", "claude/opus")


async def test_too_little_changes_nothing(store: Store) -> None:
    here = baselines(store)
    with pytest.raises(Unprocessable):
        await here.put("gpu/none")
    assert await Audit(store, ManualClock()).entries() == []


async def test_who_is_never_first_is_told_to_come_again(store: Store) -> None:
    """What another operator says at the same moment must not be lost unseen."""
    here, tries = baselines(store), 0
    change = here._audit.change

    async def too_late(*args: object) -> bool:
        nonlocal tries
        tries += 1
        await store.call("HSET", layout.BASELINE, BASELINE_FIELD, b"%d" % tries)
        return await change(*args)  # type: ignore[arg-type]  # passed on as it came

    here._audit.change = too_late  # type: ignore[method-assign, assignment]  # somebody who is faster, each time
    with pytest.raises(Overloaded):
        await here.put("claude/opus")
    assert tries == TRIES and here.success.baseline is None
