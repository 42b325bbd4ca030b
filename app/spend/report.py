"""The report on some days: what was spent and saved, how local and paid models did, whether goals are met, and when an
investment pays for itself. Reads the sums of costs; how it looks on paper is left to `report_text`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from app.core.money import usd
from app.spend import cells
from app.spend.costs import Costs
from app.spend.figures import Figures, Kind, Part, figures, kind_of, share
from app.spend.goals import Goal, Judged, Measured, judged, overall
from app.spend.span import Span
from app.spend.sums import GROUPS, Sums, ever, rows

DAYS_A_MONTH: Final = 365.25 / 12
PLACES: Final = ("local", "paid")


class Day(Figures):
    day: date


class OfModel(Figures):
    model: str | None
    """Null: requests that no model was called for."""


class AllTime(Part):
    """What a model came to since the beginning."""

    model: str
    answers: int
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    unpriced: int


class Machine(Part):
    """An upstream whose time is worth something, or would be if it had a price."""

    upstream: str
    usd_per_hour: float | None
    """As configured now; null where it is not."""
    busy_hours: float
    """In which it worked on our requests: those that run at once share them. Several gateways at the same moment count
    them more than once."""
    imputed_usd: float
    whole_span_usd: float | None
    """What it costs if it stands there all the time, used or not."""


class Investment(Part):
    """What was put in, and what comes back, at the rate of these days."""

    investment_usd: float
    running_usd_per_month: float
    """What it takes a month beyond what is imputed, as stated."""
    savings_usd_per_month: float | None
    net_usd_per_month: float | None
    return_per_year: float | None
    """Net savings of a year over the investment."""
    months_to_break_even: float | None
    """Null: unknown, or never at this rate."""
    says: str


class Report(Part):
    object: str = "report"
    first_day: date
    last_day: date
    observed_days: float
    """From the first of these days that saw a request to now, or to the end; what rates by the month rest on."""
    total: Figures
    availability: float | None
    """Answers over answers and failures."""
    local_share: float | None
    """Of the answers."""
    fallback_share: float | None
    """Of the answers."""
    cost_usd_per_request: float | None
    """Billed and imputed, over the answers; null where any price is unknown."""
    cost_usd_per_month: float | None
    savings_share: float | None
    """Of what the dearest capable model would have taken."""
    kinds: list[Kind]
    models: list[OfModel]
    machines: list[Machine]
    days: list[Day]
    all_time: list[AllTime]
    goals: list[Judged]
    verdict: str
    """met, missed or unknown; none without goals."""
    investment: Investment | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a report is to say. `investment_usd` None: nothing was stated."""

    span: Span
    goals: tuple[Goal, ...] = ()
    investment_usd: float | None = None
    running_usd_per_month: float = 0.0


async def report(costs: Costs, wanted: Wanted) -> Report:
    """Raises `StoreUnavailable`."""
    await costs.sync()
    read = await _Read.of(costs, wanted.span)
    return _made(read, wanted, costs.clock.now(), costs.hourly, await ever(costs.store))


class _Read:
    """The sums of these days, by all that a report tells apart."""

    def __init__(self) -> None:
        self.total = Sums()
        self.days: dict[date, Sums] = {}
        self.models: dict[str, Sums] = {}
        self.kinds: dict[tuple[str, str | None], Sums] = {}
        self.upstreams: dict[str, Sums] = {}

    @classmethod
    async def of(cls, costs: Costs, span: Span) -> _Read:
        read = cls()
        read.days = {day: Sums() for day in span.days()}
        async for day, row in rows(costs.store, span):
            if row.family == cells.TRAFFIC:
                model = GROUPS["model"](day, cells.Who(*row.names))
                into = [read.total, read.days[day], read.models.setdefault(model, Sums())]
            else:
                upstream, kind, place = row.names
                into = [read.kinds.setdefault((place, each), Sums()) for each in (None, kind)]
                into.append(read.upstreams.setdefault(upstream, Sums()))
            for sums in into:
                sums[row.measure] += row.amount
        return read


def _made(read: _Read, wanted: Wanted, now: float, hourly: Mapping[str, int], totals: Mapping[str, Sums]) -> Report:
    total, span = figures(read.total), wanted.span
    observed = _observed(read.days, now)
    kinds = [
        kind_of(place, kind, sums, total.answers)
        for (place, kind), sums in sorted(read.kinds.items(), key=lambda each: (each[0][0], each[0][1] or ""))
        if place in PLACES
    ]
    net = None if total.savings_usd is None else _monthly(total.savings_usd, observed)
    spent = None if total.unpriced or total.cost_usd is None else total.cost_usd + total.imputed_usd
    known = (total.cost_usd or 0.0) + total.imputed_usd
    measured = Measured(total, share(known, total.answers), read.kinds)
    goals = [judged(goal, measured) for goal in wanted.goals]
    return Report(
        first_day=span.first,
        last_day=span.last,
        observed_days=observed,
        total=total,
        availability=share(total.answers, total.answers + total.failed),
        local_share=share(total.local_answers, total.answers),
        fallback_share=share(total.fallbacks, total.answers),
        cost_usd_per_request=None if spent is None else share(spent, total.answers),
        cost_usd_per_month=None if spent is None else _monthly(spent, observed),
        savings_share=None if total.savings_usd is None else share(total.savings_usd, total.dearest_usd or 0),
        kinds=kinds,
        models=[
            OfModel(model=model or None, **figures(sums).model_dump())
            for model, sums in sorted(read.models.items(), key=lambda each: (-each[1][cells.COST], each[0]))
        ],
        machines=_machines(read, hourly, _hours(span, now)),
        days=[Day(day=day, **figures(sums).model_dump()) for day, sums in read.days.items()],
        all_time=[_all_time(model, sums) for model, sums in sorted(totals.items())],
        goals=goals,
        verdict=overall(goals),
        investment=None if wanted.investment_usd is None else _returns(wanted.investment_usd, wanted, net),
    )


def _observed(days: Mapping[date, Sums], now: float) -> float:
    busy = [day for day, sums in days.items() if sums]
    return _hours(Span(busy[0], max(days)), now) / 24 if busy else 0.0


def _hours(span: Span, now: float) -> float:
    """Of these days, as far as they have passed."""
    begin = datetime.combine(span.first, datetime.min.time(), UTC).timestamp()
    end = datetime.combine(span.last + timedelta(days=1), datetime.min.time(), UTC).timestamp()
    return max(0.0, min(now, end) - begin) / 3_600


def _monthly(amount: float, days: float) -> float | None:
    return amount / days * DAYS_A_MONTH if days else None


def _machines(read: _Read, hourly: Mapping[str, int], hours: float) -> list[Machine]:
    imputed = Sums()
    for model, sums in read.models.items():
        imputed[model.partition("/")[0]] += sums[cells.IMPUTED]
    names = {name for name, sums in read.upstreams.items() if sums[cells.WORK]} | set(hourly)
    return [
        Machine(
            upstream=name,
            usd_per_hour=usd(hourly[name]) if name in hourly else None,
            busy_hours=read.upstreams.get(name, Sums())[cells.WORK] / 3_600_000,
            imputed_usd=usd(imputed[name]),
            whole_span_usd=usd(hourly[name]) * hours if name in hourly else None,
        )
        for name in sorted(names)
    ]


def _all_time(model: str, sums: Sums) -> AllTime:
    found = figures(sums)
    return AllTime(model=model, **found.model_dump(include=set(AllTime.model_fields) - {"model"}))


def _returns(invested: float, wanted: Wanted, savings: float | None) -> Investment:
    running = wanted.running_usd_per_month
    net = None if savings is None else savings - running
    months = invested / net if net is not None and net > 0 else None
    if net is None:
        says = "unknown: nothing here could be compared with a model that has a price"
    elif months is None or not math.isfinite(months):
        months, says = None, "never at this rate"
    else:
        says = f"pays for itself in {months:.1f} months at this rate"
    return Investment(
        investment_usd=invested,
        running_usd_per_month=running,
        savings_usd_per_month=savings,
        net_usd_per_month=net,
        return_per_year=None if net is None else share(12 * net, invested),
        months_to_break_even=months,
        says=says,
    )
