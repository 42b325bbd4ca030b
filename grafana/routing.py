"""For whoever tunes it: what was asked, who answered, why, and who stood in for whom."""

from __future__ import annotations

from typing import Final

from grafana.panels import YELLOW, Box, Dashboard, Note, Query, Row, grown, lines, or_zero, quantile, rate, stat, table
from grafana.panels import Panel as P

WHY: Final = """**Why did a request go to Claude?** *Model and reason* below says why requests went where they went. Of
one request: put its id (`x-request-id` of its reply, `request_id` of its log line) and your gateway into the boxes at
the top, then paste

```sh
curl -H "authorization: Bearer $TIERWAY_ADMIN_KEY" $gateway/admin/decisions/$request
```

It says which models could have answered, what each would have cost, and why it was not taken; a week back. The reply
itself said it in `x-tierway-reason`. Beforehand: `tierway route "PROMPT"`. What another strategy would have cost:
`tierway replay`."""

DECILES: Final = ((0.1, "p10"), (0.5, "p50"), (0.9, "p90"))

ROUTING: Final = Dashboard(
    "tierway-routing",
    "Tierway / Routing",
    "How hard requests are, who answers them, why, and who stands in for whom.",
    (
        Note(WHY, 6),
        Row("Over the time chosen"),
        stat("Decisions", or_zero(grown("tierway_routing_decisions_total"))),
        stat("Answered at home", or_zero(grown("tierway_local_requests_total"))),
        stat("Fallbacks", or_zero(grown("tierway_fallbacks_total")), about="Requests that went on to another model."),
        stat(
            "Emergencies",
            or_zero(grown("tierway_emergency_cloud_total")),
            about="Paid answers that only an emergency allowed.",
        ),
        stat(
            "Share of emergencies",
            "max(tierway_emergency_cloud_share)",
            "percentunit",
            steps=((0.01, YELLOW),),
            about="Of the last hour's requests, as the worst worker sees it.",
        ),
        stat("Flags that are not off", or_zero("count(max by (name) (tierway_flag) > 0)")),
        Row("Who answers"),
        table(
            "Tier to model",
            f"sort_desc({grown('tierway_routing_decisions_total', by='tier, model')})",
            width=12,
            height=10,
        ),
        lines(
            "Decisions by model",
            rate("tierway_routing_decisions_total", "model"),
            "{{model}}",
            "reqps",
            width=12,
            height=10,
            stacked=True,
        ),
        lines("By tier", rate("tierway_routing_decisions_total", "tier"), "{{tier}}", "reqps", stacked=True),
        lines(
            "By strategy", rate("tierway_routing_decisions_total", "strategy"), "{{strategy}}", "reqps", stacked=True
        ),
        table("Model and reason", f"sort_desc({grown('tierway_routing_decisions_total', by='model, reason')})"),
        Row("Who stands in"),
        table(
            "From, to and why",
            f"sort_desc({grown('tierway_fallbacks_total', by='from, to, cause')})",
            width=12,
        ),
        lines(
            "Share of requests that went on",
            f"({or_zero(rate('tierway_fallbacks_total'))}) / ({rate('tierway_requests_total')} > 0)",
            "fallbacks",
            "percentunit",
            width=6,
            steps=((0.05, YELLOW),),
        ),
        lines(
            "Emergencies by trigger",
            "60 * " + rate("tierway_emergency_cloud_total", "trigger"),
            "{{trigger}}",
            "cpm",
            width=6,
        ),
        Row("How hard, how sure, how long"),
        P(
            "Score",
            [Query(quantile(share, "tierway_routing_score"), name) for share, name in DECILES],
            most=1,
            about="0 simple to 1 very complex. A shift means that other things are asked, or that the classifier errs.",
        ),
        P(
            "Requests by score",
            (Query(f"{grown('tierway_routing_score_bucket', by='le')}", "at most {{le}}"),),
            "bargauge",
            about="How many were at most so hard, over the time chosen.",
        ),
        P(
            "Confidence",
            (
                Query(quantile(0.1, "tierway_routing_confidence"), "p10"),
                Query(quantile(0.5, "tierway_routing_confidence"), "p50"),
            ),
            most=1,
        ),
        P(
            "What deciding costs, p95",
            (
                Query(quantile(0.95, "tierway_plan_seconds"), "plan"),
                Query(quantile(0.95, "tierway_classifier_seconds"), "of it classification"),
            ),
            unit="s",
        ),
        Row("What was set"),
        table("Flags", "max by (name) (tierway_flag)", "percentunit"),
        table("Rollouts", "max by (name, arm) (tierway_rollout_share)", "percentunit"),
        table(
            "Readings of the configuration",
            grown("tierway_config_reloads_total", by="outcome"),
            about="A failed one changed nothing: the log says why.",
        ),
        lines("Models by upstream", "max by (upstream) (tierway_models)", "{{upstream}}"),
    ),
    boxes=(
        Box("gateway", "Gateway", "http://127.0.0.1:8080"),
        Box("request", "Request id", "X"),
    ),
)
