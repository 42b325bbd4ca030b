"""For whoever is on call: how fast, how many, what fails and why, and what is full."""

from __future__ import annotations

from typing import Final

from grafana.panels import RED, YELLOW, Dashboard, Query, Row, grown, lines, or_zero, quantile, rate, stat, table
from grafana.panels import Panel as P

MADE: Final = 'tierway_tokens_total{kind=~"output|reasoning"}'
PERCENTILES: Final = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


def percentiles(title: str, histogram: str, **more: object) -> P:
    queries = [Query(quantile(share, histogram), name) for share, name in PERCENTILES]
    return P(title, queries, unit="s", **more)  # type: ignore[arg-type]  # fields of a panel, by name


OPERATIONS: Final = Dashboard(
    "tierway-operations",
    "Tierway / Operations",
    "Latency, throughput, errors, breakers, back-pressure, the event loop, the store, and the model servers' own view.",
    (
        Row("Now"),
        stat("Gateways up", 'sum(up{job="tierway"})', low_is_bad=True, steps=((1, "green"),)),
        stat("Requests a second", or_zero(rate("tierway_requests_total"))),
        stat("In flight", "sum(tierway_in_flight_requests)", about="At most limits.in_flight for each worker."),
        stat("Open streams", "sum(tierway_streams_active)"),
        stat(
            "Breakers open",
            or_zero("count(max by (upstream, model) (tierway_breaker_state) == 2)"),
            steps=((1, RED),),
        ),
        stat(
            "Store",
            "min(tierway_store_up)",
            about="1: every gateway reaches it.",
            low_is_bad=True,
            steps=((1, "green"),),
        ),
        Row("Latency"),
        percentiles("Whole requests", "tierway_request_seconds"),
        lines(
            "Whole requests, p95 by tier",
            quantile(0.95, "tierway_request_seconds", "tier"),
            "{{tier}}",
            "s",
            steps=((2, YELLOW), (5, RED)),
        ),
        percentiles("Time to first token of streams", "tierway_time_to_first_token_seconds"),
        lines(
            "First token p95 by model",
            quantile(0.95, "tierway_time_to_first_token_seconds", "model"),
            "{{model}}",
            "s",
            about="Of streams.",
        ),
        lines(
            "Which model is slow: p95 of its answers",
            quantile(0.95, "tierway_attempt_seconds", "model"),
            "{{model}}",
            "s",
            about="Streamed or not, by whoever was asked: also those that failed, and those another then answered.",
        ),
        table(
            "Slow or fast: tokens a second, by model",
            f"sort({rate(MADE, 'model')} / {rate('tierway_attempt_seconds_sum', 'model')})",
            about="Of all the time that it was asked. A model that thinks makes tokens, too.",
        ),
        percentiles("Time per output token", "tierway_time_per_output_token_seconds"),
        percentiles("What the gateway itself adds", "tierway_overhead_seconds"),
        Row("Throughput"),
        lines(
            "Requests a second by status", rate("tierway_requests_total", "status"), "{{status}}", "reqps", stacked=True
        ),
        lines("Requests a second by endpoint", rate("tierway_requests_total", "endpoint"), "{{endpoint}}", "reqps"),
        lines("Tokens a second by kind", rate("tierway_tokens_total", "kind"), "{{kind}}", stacked=True),
        Row("Errors"),
        lines(
            "Share of requests that failed, by blame",
            f"{rate('tierway_errors_total', 'blame')} / on () group_left () ({rate('tierway_requests_total')} > 0)",
            "{{blame}}",
            "percentunit",
            about="gateway: ours. upstream: theirs. capacity: too much at once. caller: their own mistake.",
        ),
        table("Errors by code", f"sort_desc({grown('tierway_errors_total', by='code, blame')} > 0)"),
        lines(
            "Failed attempts by upstream",
            rate("tierway_upstream_errors_total", "upstream, kind"),
            "{{upstream}} {{kind}}",
            "reqps",
        ),
        lines("Streams by how they ended", rate("tierway_streams_total", "outcome"), "{{outcome}}", "reqps"),
        lines("Clients that left", or_zero(rate("tierway_clients_gone_total")), "left", "reqps"),
        P(
            "Breakers",
            (Query("max by (upstream, model) (tierway_breaker_state)", "{{upstream}} {{model}}"),),
            about="0 closed, 1 half open, 2 open.",
            most=2,
        ),
        Row("What is full"),
        P(
            "In flight and open streams",
            (
                Query("sum by (instance) (tierway_in_flight_requests)", "{{instance}} in flight"),
                Query("sum by (instance) (tierway_streams_active)", "{{instance}} streams"),
            ),
        ),
        P(
            "Answers that wait for their clients",
            (
                Query(or_zero(rate("tierway_backpressure_seconds_total")), "seconds waited a second"),
                Query(or_zero(rate("tierway_backpressure_events_total")), "times a second"),
            ),
            about="Slow readers: a client that takes nothing slows its own upstream and nobody else.",
        ),
        lines(
            "Bytes that wait for clients", "sum by (instance) (tierway_stream_buffer_bytes)", "{{instance}}", "bytes"
        ),
        lines(
            "Refused because there was too much",
            rate("tierway_shed_total", "cause"),
            "{{cause}}",
            "reqps",
            about="503 overloaded, by what was full.",
        ),
        P(
            "Places at upstreams",
            (
                Query("sum by (upstream) (tierway_upstream_limit)", "{{upstream}} at most"),
                Query("sum by (upstream) (tierway_upstream_waiting)", "{{upstream}} waiting"),
            ),
        ),
        percentiles("How late the event loop is", "tierway_event_loop_lag_seconds"),
        lines("The store, p99 by call", quantile(0.99, "tierway_store_seconds", "script"), "{{script}}", "s"),
        lines("Calls of the store", rate("tierway_store_seconds_count", "script"), "{{script}}", "ops"),
        P(
            "Memory and CPU of the gateways",
            (Query('process_resident_memory_bytes{job="tierway"}', "{{instance}} resident"),),
            unit="bytes",
            about="Absent with several workers.",
        ),
        lines(
            "CPU seconds a second", 'rate(process_cpu_seconds_total{job="tierway"}[$__rate_interval])', "{{instance}}"
        ),
        Row("The model servers' own view (vLLM)"),
        P(
            "Running and waiting",
            (
                Query("sum by (instance) (vllm:num_requests_running)", "{{instance}} running"),
                Query("sum by (instance) (vllm:num_requests_waiting)", "{{instance}} waiting"),
            ),
        ),
        lines(
            "GPU cache in use", "max by (instance) (vllm:kv_cache_usage_perc)", "{{instance}}", "percentunit", most=1
        ),
        lines("Tokens a second that vLLM made", rate("vllm:generation_tokens_total", "instance"), "{{instance}}"),
    ),
    since="now-3h",
)
