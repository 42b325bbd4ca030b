"""Which days are asked about: `since` like 7d, or `from` and `to`, both of them included. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

from app.core.errors import Unprocessable

KEPT_DAYS: Final = 30
USUAL_DAYS: Final = 7
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_DAYS: Final = re.compile(r"([0-9]{1,4})d")


class Span(NamedTuple):
    """Days of UTC, the last one included."""

    first: date
    last: date

    def days(self) -> Iterator[date]:
        return (self.first + timedelta(days=each) for each in range((self.last - self.first).days + 1))


def span_of(now: float, since: str | None = None, first: str | None = None, last: str | None = None) -> Span:
    """What was asked for, at `now`; the last seven days where nothing was. Raises `Unprocessable`."""
    today = datetime.fromtimestamp(now, UTC).date()
    oldest = today - timedelta(days=KEPT_DAYS - 1)
    if since is not None:
        if first is not None or last is not None:
            raise Unprocessable("since: give either this or from and to", param="since")
        return Span(_since(since, today), today)
    end = today if last is None else _date(last, "to")
    _check_kept(end, "to", oldest)
    begin = max(oldest, end - timedelta(days=USUAL_DAYS - 1)) if first is None else _date(first, "from")
    _check_kept(begin, "from", oldest)
    if begin > end:
        raise Unprocessable(f"from: {begin} is after {end}, the last day that is asked about", param="from")
    if end > today:
        raise Unprocessable(f"to: {end} is yet to come; today is {today} in UTC", param="to")
    return Span(begin, end)


def _check_kept(day: date, name: str, oldest: date) -> None:
    if day < oldest:
        raise Unprocessable(
            f"{name}: costs are kept for {KEPT_DAYS} days; the first day there is, is {oldest}", param=name
        )


def _since(text: str, today: date) -> date:
    if found := _DAYS.fullmatch(text):
        count = int(found[1])
        if 1 <= count <= KEPT_DAYS:
            return today - timedelta(days=count - 1)
    raise Unprocessable(f"since: {text[:40]!r} is no number of days from 1d to {KEPT_DAYS}d", param="since")


def _date(text: str, name: str) -> date:
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise Unprocessable(f"{name}: {text[:40]!r} is no date like 2026-11-20", param=name)
