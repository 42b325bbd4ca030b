"""Without this a wrong date is a report on other days than those somebody thinks it is about."""

from __future__ import annotations

from datetime import date

import pytest

from app.core.errors import Unprocessable
from app.spend.span import Span, span_of
from tests.spend.worth import NOON

TODAY = date(2024, 10, 4)


def test_the_usual_is_seven_days_with_today() -> None:
    assert span_of(NOON) == span_of(NOON, "7d") == Span(date(2024, 9, 28), TODAY)
    assert len(list(span_of(NOON).days())) == 7
    assert span_of(NOON, "1d") == Span(TODAY, TODAY)
    assert span_of(NOON, "30d").first == date(2024, 9, 5)


def test_days_by_their_dates() -> None:
    assert span_of(NOON, None, "2024-10-01", "2024-10-02") == Span(date(2024, 10, 1), date(2024, 10, 2))
    assert span_of(NOON, None, "2024-10-01") == Span(date(2024, 10, 1), TODAY)
    assert span_of(NOON, None, None, "2024-10-02") == Span(date(2024, 9, 26), date(2024, 10, 2))
    assert span_of(NOON, None, None, "2024-09-06") == Span(date(2024, 9, 5), date(2024, 9, 6))


@pytest.mark.parametrize(
    ("asked", "param", "words"),
    [
        (("31d",), "since", "from 1d to 30d"),
        (("0d",), "since", "from 1d to 30d"),
        (("7h",), "since", "'7h'"),
        (("٧d",), "since", "no number of days"),
        (("7d", "2024-10-01"), "since", "either"),
        (("7d", None, "2024-10-01"), "since", "either"),
        ((None, "2024-13-01"), "from", "no date like"),
        ((None, "20241001"), "from", "no date like"),
        ((None, "1700000000"), "from", "no date like"),
        ((None, "٢٠٢٤-10-01"), "from", "no date like"),
        ((None, None, "2024-02-30"), "to", "no date like"),
        ((None, "2024-09-04"), "from", "the first day there is, is 2024-09-05"),
        ((None, None, "2024-09-04"), "to", "kept for 30 days"),
        ((None, None, "0001-01-01"), "to", "kept for 30 days"),
        ((None, "0001-01-01", "9999-12-31"), "from", "kept for 30 days"),
        ((None, None, "9999-12-31"), "to", "is yet to come"),
        ((None, "2024-10-03", "2024-10-01"), "from", "is after 2024-10-01"),
        ((None, "2024-10-03", "2024-10-05"), "to", "today is 2024-10-04"),
    ],
)
def test_what_is_no_span_is_said_in_words(asked: tuple[str | None, ...], param: str, words: str) -> None:
    with pytest.raises(Unprocessable) as caught:
        span_of(NOON, *asked)
    assert caught.value.param == param and words in caught.value.message
