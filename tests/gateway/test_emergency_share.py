"""Emergencies that are no longer rare must be heard of, once each time, and not from the bill."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from app.core.clock import ManualClock
from app.core.plan import Plan
from app.core.record import Record
from app.gateway.emergency_share import EVENTS, LEAST, SLICE_SECONDS, WINDOW_SECONDS, EmergencyShare
from app.routing.emergency import GONE

PAID = Record("r", None, "r", 0, "chat", "auto", True, 200, 0.0, 1.0, 0.0, model="claude/opus", local=False,
              plan=Plan((), "cost", trigger=GONE))  # fmt: skip
LOCAL = replace(PAID, model="gpu/qwen", local=True, plan=Plan((), "cost"))


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield cast(list[Any], lines)


class Case:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.told: list[float] = []
        self.share = EmergencyShare(self.clock, self.told.append)

    def see(self, local: int, paid: int = 0) -> float:
        for record in [LOCAL] * local + [PAID] * paid:
            self.share.observe(record)
        return self.told[-1]


def alerts(logs: list[Any]) -> list[tuple[str, str]]:
    return [(line["log_level"], line["event"]) for line in logs if line["event"] in EVENTS]


def test_every_paid_answer_of_an_emergency_is_an_event_and_nothing_else_is(logs: list[Any]) -> None:
    share = Case().share
    for record in (LOCAL, replace(PAID, local=True), replace(PAID, plan=None), replace(PAID, plan=Plan((), "cost"))):
        share.observe(record)
    assert logs == []
    share.observe(PAID)
    (line,) = logs
    assert (line["event"], line["trigger"], line["model"], line["request_id"]) == (
        "emergency cloud",
        GONE,
        "claude/opus",
        "r",
    )


def test_each_level_is_told_once_when_it_is_crossed(logs: list[Any]) -> None:
    """An alert a second is one nobody reads."""
    case = Case()
    assert case.see(LEAST - 1, 1) == 0.01 and alerts(logs) == []
    case.see(0, 3)
    assert alerts(logs) == [("warning", EVENTS[0])]
    case.see(0, 20)
    assert alerts(logs) == [("warning", EVENTS[0]), ("error", EVENTS[1])]
    line = next(line for line in logs if line["event"] == EVENTS[1])
    assert line["above"] == 0.05 and line["share"] > 0.05 and line["requests"] > LEAST


def test_of_few_requests_no_share_is_told(logs: list[Any]) -> None:
    """The first request of a day would be a hundred percent."""
    case = Case()
    assert case.see(0, LEAST - 1) == 0 and alerts(logs) == []
    assert case.see(1) > 0.9 and alerts(logs) == [("error", EVENTS[1])]


def test_it_is_told_again_after_it_has_clearly_fallen(logs: list[Any]) -> None:
    """A share that wavers about a level is one crossing."""
    case = Case()
    case.see(95, 10)
    assert case.see(120) < 0.05 and case.see(0, 5) > 0.05
    often, very_often = ("warning", EVENTS[0]), ("error", EVENTS[1])
    assert alerts(logs) == [often, very_often]
    assert 0.01 < case.see(800) < 0.025
    case.see(0, 60)
    assert alerts(logs) == [often, very_often, very_often]


def test_what_is_over_an_hour_ago_does_not_count() -> None:
    case = Case()
    case.see(90, 10)
    case.clock.advance(WINDOW_SECONDS / 2)
    assert case.see(100) == 0.05
    case.clock.advance(WINDOW_SECONDS / 2)
    assert case.see(100) == 0


async def test_a_share_ends_though_nobody_asks_any_more() -> None:
    """The gauge would call somebody all night."""
    case = Case()
    assert case.see(90, 10) == 0.1
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        case.clock.advance(WINDOW_SECONDS)
        if len(waits) > 1:
            await asyncio.Event().wait()

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await case.share.run(sleep)
    assert waits == [SLICE_SECONDS] * 2 and case.told[-1] == 0
