"""For whoever sets limits: how they stand, how fast they go, and what another limit would do.

The gauges show, of each scope and period, the limit that is nearest to being used up; `GET /admin/budgets` has all.
"""

from __future__ import annotations

from typing import Final

from grafana.panels import RED, YELLOW, Box, Dashboard, Note, Query, Row, grown, lines, or_zero, rate, stat, table
from grafana.panels import Panel as P

USED: Final = "max by (scope, period) (tierway_budget_used_usd)"
HELD: Final = "max by (scope, period) (tierway_budget_held_usd)"
LIMIT: Final = "max by (scope, period) (tierway_budget_limit_usd)"
DAY_LEFT: Final = "(86400 - time() % 86400)"
MONTH_LEFT: Final = f"((scalar(days_in_month()) - scalar(day_of_month())) * 86400 + {DAY_LEFT})"
STEPS: Final = ((0.8, YELLOW), (1.0, RED))
WHAT_IF: Final = """**What happens if I lower the budget?** Put the new limit into the box at the top: the panels below
say how much of it the last day's spend is, and when it would be reached at the pace of the last hour. What does not fit
into what is left goes to a model that does fit ("Went to another model for want of money"; to which one, the dashboard
Routing says), or is refused with 429 `budget_exceeded` ("Refused for want of money"); local models go on. A limit below
the worst that one answer can cost (its longest, at the model's price) lets nobody ask that model at all.
`PUT /admin/budgets/ID` with `{"limit": 5.0}` sets it at once, on every gateway."""


def _grows(period: str) -> str:
    """Dollars a second, never below 0: a new period starts from 0 again."""
    return f'clamp_min(max by (scope, period) (deriv(tierway_budget_used_usd{{period="{period}"}}[1h])), 0)'


def _forecast(period: str, left: str) -> str:
    used = f'max by (scope, period) (tierway_budget_used_usd{{period="{period}"}})'
    return f"{used} + {_grows(period)} * {left}"


BUDGETS: Final = Dashboard(
    "tierway-budgets",
    "Tierway / Budgets",
    "Limits, what is used and held of them, how fast they go, and where they will be when their period ends (in UTC).",
    (
        Row("Now"),
        P(
            "Used of the limit",
            (Query(f"{USED} / ({LIMIT} > 0)", "{{scope}} {{period}}"),),
            "bargauge",
            "percentunit",
            width=12,
            steps=STEPS,
            most=1,
            about="Of each scope and period, the limit that is nearest to being used up.",
        ),
        stat("Refused for want of money", or_zero(grown("tierway_budget_denied_total")), steps=((1, YELLOW),)),
        stat(
            "Cost more than was held",
            or_zero(grown("tierway_over_reserve_total")),
            steps=((1, RED),),
            about="Should be none: then a limit was overrun.",
        ),
        stat("Spent in the last 24 h", or_zero(grown("tierway_cost_usd_total", "24h")), "currencyUSD"),
        stat(
            "A month at the last day's pace", or_zero("30 * " + grown("tierway_cost_usd_total", "24h")), "currencyUSD"
        ),
        stat(
            "Went to another model for want of money",
            or_zero(grown('tierway_fallbacks_total{cause="budget_exceeded"}')),
            steps=((1, YELLOW),),
            about="What a limit did not allow went to a model that costs less, or nothing.",
        ),
        stat("Held by running requests", or_zero(f"sum({HELD})"), "currencyUSD"),
        stat("Alerts sent", or_zero(grown("tierway_budget_alerts_total"))),
        Row("Limits"),
        P(
            "Limit, used and held",
            (
                Query(LIMIT, "{{scope}} {{period}} limit"),
                Query(USED, "{{scope}} {{period}} used"),
                Query(HELD, "{{scope}} {{period}} held"),
            ),
            unit="currencyUSD",
            width=12,
        ),
        lines("Left", f"{LIMIT} - {USED} - {HELD}", "{{scope}} {{period}}", "currencyUSD", width=12),
        Row("How fast"),
        lines(
            "Spent per hour by model",
            "3600 * " + rate("tierway_cost_usd_total", "model"),
            "{{model}}",
            "currencyUSD",
            stacked=True,
        ),
        lines(
            "Pace: 1 uses up a day's limit in just a day",
            f'{_grows("day")} * 86400 / (max by (scope, period) (tierway_budget_limit_usd{{period="day"}}) > 0)',
            "{{scope}}",
            steps=((1, RED),),
        ),
        P(
            "Forecast to the end of the period",
            (
                Query(_forecast("day", DAY_LEFT), "{{scope}} day"),
                Query(_forecast("month", MONTH_LEFT), "{{scope}} month"),
            ),
            unit="currencyUSD",
            about="What is used, and the pace of the last hour until the period ends in UTC. A limit in another time"
            " zone ends earlier or later; GET /admin/budgets knows.",
        ),
        lines("Refusals by scope", "60 * " + rate("tierway_budget_denied_total", "scope"), "{{scope}}", "cpm"),
        table("Alerts by scope and level", f"sort_desc({grown('tierway_budget_alerts_total', by='scope, level')})"),
        lines(
            "Own machines' time, per hour",
            "3600 * " + rate("tierway_imputed_cost_usd_total", "upstream"),
            "{{upstream}}",
            "currencyUSD",
            about="For reports. Budgets count what is billed.",
        ),
        Row("What if the daily limit were $what_if USD"),
        Note(WHAT_IF, 6),
        stat(
            "Of it spent in the last 24 h",
            or_zero(f"({grown('tierway_cost_usd_total', '24h')}) / $what_if"),
            "percentunit",
            steps=STEPS,
            width=8,
        ),
        stat(
            "A day at the last hour's pace, of it",
            or_zero(f"24 * ({grown('tierway_cost_usd_total', '1h')}) / $what_if"),
            "percentunit",
            steps=STEPS,
            width=8,
        ),
        stat(
            "Hours until it is reached, from 0, at that pace",
            f"$what_if / (({grown('tierway_cost_usd_total', '1h')}) > 0)",
            "h",
            width=8,
            about="Empty while nothing is spent: then never.",
        ),
    ),
    boxes=(Box("what_if", "What if the daily limit were, USD", "10"),),
)
