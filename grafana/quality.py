"""For whoever answers for the answers: how good they are, by model and task, and what goes wrong with them."""

from __future__ import annotations

from typing import Final

from grafana.panels import GREEN, RED, YELLOW, Dashboard, Row, grown, lines, or_zero, rate, stat, table

QUALITY: Final = Dashboard(
    "tierway-quality",
    "Tierway / Quality",
    "What answers were worth, 0 to 1, as all gateways learn it from how they ended, from what was asked next and from"
    " feedback.",
    (
        Row("Now"),
        stat(
            "Against the baseline",
            "tierway:quality:ratio",
            "percentunit",
            low_is_bad=True,
            steps=((0.9, YELLOW), (0.95, GREEN)),
            about="By traffic. Empty until PUT /admin/baseline names a model.",
        ),
        stat("Mean quality", "avg(max by (model, task) (tierway_quality))", "percentunit"),
        stat("Ratings", or_zero(grown("tierway_feedback_total"))),
        stat("Bad ratings", or_zero(grown('tierway_feedback_total{rating="bad"}'))),
        stat(
            "Answers from less than was sent",
            or_zero(grown("tierway_truncations_total")),
            about="An upstream dropped part of the prompt. Should be none.",
            steps=((1, RED),),
        ),
        stat("Streams that broke", or_zero(grown('tierway_streams_total{outcome="failed"}')), steps=((1, YELLOW),)),
        Row("By model and task"),
        table(
            "Quality by model and task",
            "sort(max by (model, task) (tierway_quality))",
            "percentunit",
            width=12,
            height=10,
        ),
        lines(
            "Quality by model",
            "avg by (model) (max by (model, task) (tierway_quality))",
            "{{model}}",
            "percentunit",
            width=12,
            height=10,
            most=1,
        ),
        lines(
            "Against the baseline, by model",
            "max by (model) (tierway_quality_ratio)",
            "{{model}}",
            "percentunit",
            width=12,
            steps=((0.9, YELLOW),),
        ),
        lines(
            "Quality by task",
            "avg by (task) (max by (model, task) (tierway_quality))",
            "{{task}}",
            "percentunit",
            width=12,
            most=1,
        ),
        Row("What goes wrong"),
        lines("Ratings over time", "60 * " + rate("tierway_feedback_total", "rating"), "{{rating}}", "cpm"),
        lines(
            "Cut by upstream",
            "60 * " + rate("tierway_truncations_total", "upstream"),
            "{{upstream}}",
            "cpm",
        ),
        lines(
            "Share of answers in which a model declined",
            f"{rate('tierway_refusals_total', 'model')} / ({rate('tierway_requests_total', 'model')} > 0)",
            "{{model}}",
            "percentunit",
            about="It said that it would not, or its provider did. Short answers in English are recognised.",
        ),
        table(
            "Failed attempts by kind",
            f"sort_desc({grown('tierway_upstream_errors_total', by='upstream, kind')})",
            about="bad_reply and incomplete are answers that could not be used.",
        ),
        lines(
            "Refusals of the gateway, by code",
            rate('tierway_errors_total{blame="caller"}', "code"),
            "{{code}}",
            "reqps",
            about="Too long, not able, not allowed, out of money.",
        ),
        lines(
            "Turns that kept their model",
            rate("tierway_session_turns_total", "affinity"),
            "{{affinity}}",
            "reqps",
            about="same: a prefix cache is of use.",
        ),
        lines(
            "Decisions that were not kept",
            or_zero(rate("tierway_decisions_lost_total")),
            "lost",
            about="Nothing is learnt of them.",
        ),
    ),
)
