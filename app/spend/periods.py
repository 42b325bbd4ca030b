"""Where the day or the month that a moment belongs to begins and ends, in any time zone; pure.

A day begins at the first instant that its date has a midnight, or at the instant at which midnight was skipped. So days
tile time without gap or overlap whatever clocks do: where they are turned back across midnight, what happens in the
second evening belongs to the day that had already begun.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

ALWAYS: Final = (0, 0)
"""The period of a total: it ends never."""

_DAY: Final = timedelta(days=1)
_LONGEST_MONTH: Final = timedelta(days=31)


def zone_of(name: str) -> tzinfo:
    """The zone of a name that the configuration took; UTC needs no database of zones."""
    return UTC if name == "UTC" else ZoneInfo(name)


def span(period: str, zone: tzinfo, now_ms: int) -> tuple[int, int]:
    """The period (`day`, `month`, `total`) that holds the moment: its first millisecond, and the next one's."""
    if period == "total":
        return ALWAYS
    monthly = period == "month"
    # From the day before on, because the date of a moment may be one that has not begun: clocks were turned.
    first = datetime.fromtimestamp(now_ms / 1_000, zone).date() - _DAY
    if monthly:
        first = first.replace(day=1)
    while (ends_ms := _midnight(_after(first, monthly), zone)) <= now_ms:
        first = _after(first, monthly)
    return _midnight(first, zone), ends_ms


def _midnight(day: date, zone: tzinfo) -> int:
    """The earlier one of two; of a skipped one, the instant of the skip (PEP 495: what `fold=0` means in both)."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1_000


def _after(day: date, monthly: bool) -> date:
    return (day + _LONGEST_MONTH).replace(day=1) if monthly else day + _DAY
