"""For whoever pays: what it costs, what it saves, how much stays at home, and whether the answers are any good."""

from __future__ import annotations

from typing import Final

from grafana.panels import GREEN, YELLOW, Dashboard, Query, Row, grown, lines, or_zero, stat, table
from grafana.panels import Panel as P

SPENT: Final = "tierway_cost_usd_total"
SAVED: Final = "tierway_savings_usd_total"
OWN: Final = "tierway_imputed_cost_usd_total"
ANSWERED: Final = 'tierway_requests_total{status="200",model!="none"}'
LOCAL: Final = "tierway_local_requests_total"
GOOD: Final = 'tierway_feedback_total{rating="good"}'

EXECUTIVE: Final = Dashboard(
    "tierway-executive",
    "Tierway / Executive",
    "Spend, net savings, local share, quality against the baseline, availability and return, over the time chosen.",
    (
        Row("Today, unless another time is chosen above"),
        stat(
            "Spent",
            or_zero(grown(SPENT)),
            "currencyUSD",
            about="What upstreams bill. The time of own machines is beside it.",
        ),
        stat(
            "Saved, net",
            or_zero(grown(SAVED)),
            "currencyUSD",
            about="What the dearest capable model would have cost more. `tierway report` says how it is worked out.",
        ),
        stat(
            "Own machines' time",
            or_zero(grown(OWN)),
            "currencyUSD",
            about="The imputed price of local answers: `cost_per_hour` of their upstreams. Not billed.",
        ),
        stat(
            "Return",
            f"({grown(SAVED)}) / (({grown(SPENT)}) + ({or_zero(grown(OWN))}) > 0)",
            "percentunit",
            about="Saved for each dollar spent, own machines' time included. Empty while nothing was spent.",
        ),
        stat(
            "Answered at home",
            f"({grown(LOCAL)}) / (({grown(ANSWERED)}) > 0)",
            "percentunit",
            about="Share of answers that came from local models.",
            low_is_bad=True,
            steps=((0.5, YELLOW), (0.8, GREEN)),
        ),
        stat(
            "Quality against the baseline",
            "tierway:quality:ratio",
            "percentunit",
            about="Mean of what answered, by traffic, over the model that PUT /admin/baseline made the measure. Empty"
            " until one is.",
            low_is_bad=True,
            steps=((0.9, YELLOW), (0.95, GREEN)),
        ),
        stat("Requests", or_zero(grown("tierway_requests_total"))),
        stat(
            "Available",
            "avg_over_time(tierway:availability:ratio5m[$__range])",
            "percentunit",
            about="Requests that were not the callers' own mistakes and were answered to the end.",
            low_is_bad=True,
            steps=((0.99, YELLOW), (0.995, GREEN)),
        ),
        stat(
            "Errors of the gateway itself",
            "avg_over_time(tierway:gateway_errors:ratio5m[$__range])",
            "percentunit",
            about="At most 0.05 % is the aim.",
            steps=((0.0005, YELLOW), (0.005, "red")),
        ),
        stat(
            "Cost of 1,000 answers",
            f"1000 * ({grown(SPENT)}) / (({grown(ANSWERED)}) > 0)",
            "currencyUSD",
        ),
        stat("Tokens", or_zero(grown("tierway_tokens_total"))),
        stat(
            "Good ratings",
            f"({grown(GOOD)}) / (({grown('tierway_feedback_total')}) > 0)",
            "percentunit",
            about="Of all that callers gave. Empty while nobody gave any.",
        ),
        Row("Over time"),
        P(
            "Spent and saved, per hour",
            (
                Query(or_zero(f"3600 * sum(rate({SPENT}[$__rate_interval]))"), "spent"),
                Query(or_zero(f"3600 * sum(rate({SAVED}[$__rate_interval]))"), "saved, net"),
            ),
            unit="currencyUSD",
            width=12,
        ),
        lines(
            "Local share",
            f"sum(rate({LOCAL}[$__rate_interval])) / (sum(rate({ANSWERED}[$__rate_interval])) > 0)",
            "local share",
            "percentunit",
            width=12,
            most=1,
        ),
        table(
            "Spent by model",
            f"sort_desc({grown(SPENT, by='model')})",
            "currencyUSD",
            width=12,
            about="Local models bill nothing and are not in here.",
        ),
        table("Answers by model", f"sort_desc({grown(ANSWERED, by='model')})", width=12),
    ),
    since="now/d",
)
