"""Without these an owner is told of savings that are none, or that an investment pays when it does not."""

from __future__ import annotations

from datetime import date

import pytest

from app.core.clock import ManualClock
from app.spend.costs import Costs
from app.spend.goals import goals_of
from app.spend.report import DAYS_A_MONTH, Report, Wanted, report
from app.spend.span import span_of
from app.store.client import Store
from tests.spend.test_costs import settle
from tests.spend.worth import DAY, NOON, attempt, bought, costs_on, record

HOUR = 3_600


def wanted(now: float = NOON, since: str = "7d", **more: object) -> Wanted:
    return Wanted(span_of(now, since), **more)  # type: ignore[arg-type]


async def busy(store: Store) -> tuple[Costs, ManualClock]:
    """Yesterday at noon and today at noon: three local answers, one that was paid for, one that failed."""
    clock = ManualClock(NOON - DAY)
    service = costs_on(store, clock)
    service.note(record(attempts=(attempt(machine_seconds=0.001),)))
    service.note(record(attempts=(attempt(machine_seconds=0.001),)))
    clock.advance(DAY)
    service.note(record(attempts=(attempt(machine_seconds=0.001),)))
    paid = bought(seconds=9.0, fallback_from="gpu/qwen")
    await settle(service, paid.attempts[0], "key-a", "acme", "coder", stands_in=True)
    service.note(paid)
    service.note(record(None, status=503, error_code="no_upstream_available"))
    service.scored("gpu/qwen", 800, 1_000)
    return service, clock


async def made(service: Costs, asked: Wanted) -> Report:
    found = await report(service, asked)
    assert Report.model_validate_json(found.model_dump_json()) == found
    return found


async def test_what_was_spent_and_saved(store: Store) -> None:
    service, _ = await busy(store)
    found = await made(service, wanted())
    assert (found.first_day, found.last_day) == (date(2024, 9, 28), date(2024, 10, 4))
    total = found.total
    assert (total.requests, total.answers, total.failed, total.cost_usd) == (5, 4, 1, 7.5e-6)
    assert total.imputed_usd == pytest.approx(3e-6)
    assert total.dearest_usd == pytest.approx(30e-6)
    assert total.savings_usd == pytest.approx(3 * 7.5e-6 - 3e-6)
    assert (total.coverage, found.availability, found.local_share) == (1.0, 0.8, 0.75)
    assert (found.fallback_share, total.fallback_cost_usd) == (0.25, 7.5e-6)
    assert found.cost_usd_per_request == pytest.approx(10.5e-6 / 4)
    assert found.savings_share == pytest.approx(0.65)


async def test_by_model_and_day_and_kind(store: Store) -> None:
    service, _ = await busy(store)
    found = await made(service, wanted())
    assert [(each.model, each.requests) for each in found.models] == [("claude/opus", 1), (None, 1), ("gpu/qwen", 3)]
    assert [(each.day.day, each.requests) for each in found.days][-3:] == [(2, 0), (3, 2), (4, 3)]
    assert [(each.place, each.kind, each.answers, each.share) for each in found.kinds] == [
        ("local", None, 3, 0.75),
        ("local", "vllm", 3, 0.75),
        ("paid", None, 1, 0.25),
        ("paid", "anthropic", 1, 0.25),
    ]
    local, _, paid, _ = found.kinds
    assert (local.quality, paid.quality) == (0.8, None)
    assert local.seconds.p99 == pytest.approx(2.0, rel=0.2) and paid.seconds.p50 == pytest.approx(9.0, rel=0.2)
    assert [(each.model, each.answers, each.cost_usd) for each in found.all_time] == [
        ("claude/opus", 1, 7.5e-6),
        ("gpu/qwen", 3, 0),
    ]


async def test_rates_by_the_month_rest_on_the_time_since_the_first_request(store: Store) -> None:
    """A gateway that was started yesterday is not one that was idle for five days."""
    service, _ = await busy(store)
    found = await made(service, wanted())
    assert found.observed_days == 1.5
    assert found.cost_usd_per_month == pytest.approx(10.5e-6 / 1.5 * DAYS_A_MONTH)


async def test_machines_with_what_they_cost_unused(store: Store) -> None:
    service, _ = await busy(store)
    (gpu,) = (await made(service, wanted())).machines
    assert (gpu.upstream, gpu.usd_per_hour) == ("gpu", 3.6)
    assert gpu.imputed_usd == pytest.approx(3e-6)
    assert gpu.busy_hours * HOUR == pytest.approx(0.003)
    assert gpu.whole_span_usd == pytest.approx(3.6 * 24 * 6.5)


async def test_a_machine_without_a_price_is_said_to_have_none(store: Store) -> None:
    service = costs_on(store)
    service.hourly = {}
    service._around = type(service._around)(service._around.dearest, service._around.place, {})
    service.note(record())
    (gpu,) = (await made(service, wanted())).machines
    assert (gpu.usd_per_hour, gpu.whole_span_usd, gpu.imputed_usd) == (None, None, 0.0)
    assert gpu.busy_hours * HOUR == pytest.approx(2.0)


async def test_what_has_no_price_is_missing_in_no_figure_in_silence(store: Store) -> None:
    service, _ = await busy(store)
    service.note(record("acme/free", attempts=(attempt("acme/free", cost_nano=None),)))
    found = await made(service, wanted(goals=goals_of(["cost_per_request=1"])))
    assert found.cost_usd_per_request is found.cost_usd_per_month is None
    assert (found.total.unpriced, found.total.coverage, found.total.cost_usd) == (1, 0.8, 7.5e-6)
    assert found.verdict == "unknown"


async def test_goals_are_judged(store: Store) -> None:
    service, _ = await busy(store)
    found = await made(service, wanted(goals=goals_of(["local_share=0.7", "latency_p95=3", "quality=0.7"])))
    assert [(each.goal, each.verdict) for each in found.goals] == [
        ("local_share", "met"),
        ("latency_p95", "missed"),
        ("quality", "met"),
    ]
    assert found.verdict == "missed"


async def test_when_an_investment_pays_for_itself(store: Store) -> None:
    service, _ = await busy(store)
    found = (await made(service, wanted(investment_usd=0.01, running_usd_per_month=0.0001))).investment
    assert found is not None
    monthly = 19.5e-6 / 1.5 * DAYS_A_MONTH
    assert found.savings_usd_per_month == pytest.approx(monthly)
    assert found.net_usd_per_month == pytest.approx(monthly - 0.0001)
    assert found.months_to_break_even == pytest.approx(0.01 / (monthly - 0.0001))
    assert found.return_per_year == pytest.approx(12 * (monthly - 0.0001) / 0.01)
    assert found.says == f"pays for itself in {0.01 / (monthly - 0.0001):.1f} months at this rate"


async def test_an_investment_that_does_not_pay_is_said_not_to(store: Store) -> None:
    service, _ = await busy(store)
    found = (await made(service, wanted(investment_usd=100.0, running_usd_per_month=5.0))).investment
    assert found is not None
    assert (found.says, found.months_to_break_even) == ("never at this rate", None)
    assert found.return_per_year is not None and found.return_per_year < 0


async def test_nothing_put_in_is_back_at_once(store: Store) -> None:
    service, _ = await busy(store)
    found = (await made(service, wanted(investment_usd=0.0))).investment
    assert found is not None and (found.months_to_break_even, found.return_per_year) == (0.0, None)


async def test_without_traffic_everything_is_unknown(store: Store) -> None:
    found = await made(costs_on(store), wanted(investment_usd=10.0))
    assert (found.observed_days, found.kinds, found.models, found.all_time) == (0, [], [], [])
    assert found.availability is found.local_share is found.cost_usd_per_request is found.savings_share is None
    assert found.investment is not None and found.investment.says.startswith("unknown")
    assert (found.verdict, found.cost_usd_per_month) == ("none", None)


async def test_what_is_not_yet_shared_is_in_it(store: Store) -> None:
    service = costs_on(store)
    service.note(record())
    assert (await made(service, wanted())).total.requests == 1


async def test_days_that_are_over_count_whole(store: Store) -> None:
    service, clock = await busy(store)
    clock.advance(3 * DAY)
    asked = Wanted(span_of(clock.now(), None, "2024-10-03", "2024-10-04"))
    assert (await made(service, asked)).observed_days == 2
