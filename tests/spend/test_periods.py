"""If days had gaps, a limit would not bind there; if they overlapped, spend would count twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.spend.periods import ALWAYS, span, zone_of

HOUR: Final = 3_600_000
ZONES: Final = (
    *("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Chatham"),
    "America/Sao_Paulo",  # skipped midnight every spring until 2018
    "America/St_Johns",  # turned back at 00:01 until 2011, into the day before
    "Pacific/Apia",  # had no 30 December 2011
    *("Asia/Beirut", "Africa/Cairo", "America/Havana", "Africa/Casablanca", "Asia/Gaza", "Pacific/Kwajalein"),
)
moments = st.integers(min_value=0, max_value=4_102_444_800_000)
zones = st.sampled_from(ZONES).map(zone_of)
periods = st.sampled_from(["day", "month"])


def at(zone: str, *moment: int, fold: int = 0) -> int:
    return int(datetime(*moment, tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1_000)  # type: ignore[misc,arg-type]


def turned(zone: tzinfo, near: int) -> int:
    """A moment within a minute of the next change of the zone's clocks, else the one given."""
    moment = datetime.fromtimestamp(near / 1_000, UTC)
    for _ in range(400):
        later = moment + timedelta(days=1)
        if moment.astimezone(zone).utcoffset() != later.astimezone(zone).utcoffset():
            low, high = int(moment.timestamp()), int(later.timestamp())
            before = moment.astimezone(zone).utcoffset()
            while high - low > 1:
                middle = (low + high) // 2
                same = datetime.fromtimestamp(middle, zone).utcoffset() == before
                low, high = (middle, high) if same else (low, middle)
            return high * 1_000
        moment = later
    return near


def tiles(period: str, zone: tzinfo, now: int) -> None:
    starts, ends = span(period, zone, now)
    assert starts <= now < ends
    assert span(period, zone, starts) == span(period, zone, ends - 1) == (starts, ends)
    assert span(period, zone, ends)[0] == ends
    assert span(period, zone, starts - 1)[1] == starts


@given(periods, zones, moments)
def test_periods_tile_time(period: str, zone: tzinfo, now: int) -> None:
    tiles(period, zone, now)


@given(periods, zones, moments, st.integers(min_value=-26 * HOUR, max_value=26 * HOUR))
def test_periods_tile_time_around_changes_of_the_clock(period: str, zone: tzinfo, near: int, off: int) -> None:
    tiles(period, zone, turned(zone, near) + off)


@given(zones, moments)
def test_a_month_is_made_of_whole_days(zone: tzinfo, now: int) -> None:
    """Or a daily limit and a monthly one would disagree about when they begin."""
    (day_starts, day_ends), (starts, ends) = span("day", zone, now), span("month", zone, now)
    assert starts <= day_starts and day_ends <= ends
    assert span("day", zone, starts)[0] == starts and span("day", zone, ends)[0] == ends


@pytest.mark.parametrize(
    ("zone", "moment", "hours"),
    [
        ("Europe/Berlin", (2026, 3, 29, 12), 23),
        ("Europe/Berlin", (2026, 10, 25, 12), 25),
        ("Europe/Berlin", (2026, 7, 1, 0), 24),
        ("America/Sao_Paulo", (2018, 11, 4, 1), 23),
        ("Australia/Lord_Howe", (2026, 4, 5, 12), 24.5),
    ],
)
def test_a_day_is_as_long_as_it_is_there(zone: str, moment: tuple[int, ...], hours: float) -> None:
    starts, ends = span("day", ZoneInfo(zone), at(zone, *moment))
    assert ends - starts == hours * HOUR
    assert datetime.fromtimestamp(starts / 1_000, ZoneInfo(zone)).day == moment[2]


def test_an_evening_that_comes_twice_belongs_to_the_day_that_had_begun() -> None:
    """In Newfoundland a minute of Sunday was followed by an hour of Saturday: going back would open Saturday again."""
    zone = ZoneInfo("America/St_Johns")
    sunday = at("America/St_Johns", 2006, 10, 29, 0, 0, 30)
    again = at("America/St_Johns", 2006, 10, 28, 23, 30, fold=1)
    assert sunday < again and span("day", zone, sunday) == span("day", zone, again)
    assert span("day", zone, sunday - 60_000)[1] == span("day", zone, sunday)[0]


def test_a_day_that_was_skipped_is_none() -> None:
    before, after = at("Pacific/Apia", 2011, 12, 29, 12), at("Pacific/Apia", 2011, 12, 31, 12)
    zone = ZoneInfo("Pacific/Apia")
    assert span("day", zone, before)[1] == span("day", zone, after)[0]


def test_a_total_never_ends() -> None:
    assert span("total", UTC, 1) == span("total", UTC, 10**13) == ALWAYS == (0, 0)


def test_utc_needs_no_database() -> None:
    assert zone_of("UTC") is UTC and zone_of("Europe/Berlin") == ZoneInfo("Europe/Berlin")
