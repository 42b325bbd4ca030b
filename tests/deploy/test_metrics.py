"""A dashboard or an alert on a name that does not exist shows nothing, says nothing, and looks like peace."""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import attrgetter
from typing import Final

import pytest

from grafana.generate import DASHBOARDS
from grafana.panels import Dashboard
from tests.deploy.declared import SCRAPED, alerts, declaring, listed, metrics, named, recorded, series

CONTRACT: Final[Mapping[str, str]] = {
    "tierway_requests_total": "endpoint model upstream tier status",
    "tierway_request_seconds": "",
    "tierway_time_to_first_token_seconds": "model upstream",
    "tierway_time_per_output_token_seconds": "",
    "tierway_overhead_seconds": "",
    "tierway_tokens_total": "model upstream kind",
    "tierway_cost_usd_total": "model upstream",
    "tierway_savings_usd_total": "",
    "tierway_routing_decisions_total": "tier model strategy reason",
    "tierway_classifier_seconds": "",
    "tierway_fallbacks_total": "from to cause",
    "tierway_upstream_errors_total": "upstream kind",
    "tierway_breaker_state": "upstream model",
    "tierway_budget_limit_usd": "scope period",
    "tierway_budget_used_usd": "",
    "tierway_budget_held_usd": "",
    "tierway_budget_denied_total": "scope",
    "tierway_streams_active": "",
    "tierway_streams_total": "outcome",
    "tierway_backpressure_seconds_total": "",
    "tierway_backpressure_events_total": "",
    "tierway_stream_buffer_bytes": "",
    "tierway_clients_gone_total": "",
    "tierway_store_seconds": "script",
    "tierway_flag": "name",
    "tierway_truncations_total": "upstream",
    "tierway_emergency_cloud_total": "trigger",
    "tierway_plan_seconds": "",
    "tierway_routing_score": "",
    "tierway_routing_confidence": "",
    "tierway_quality": "model upstream task",
    "tierway_feedback_total": "rating",
    "tierway_local_requests_total": "",
    "tierway_imputed_cost_usd_total": "upstream",
    "tierway_session_turns_total": "affinity",
    "tierway_event_loop_lag_seconds": "",
    "tierway_rollout_share": "name arm",
    "tierway_budget_alerts_total": "scope level",
    "tierway_config_reloads_total": "outcome",
    "tierway_over_reserve_total": "",
    "tierway_shed_total": "cause",
    "tierway_in_flight_requests": "",
    "tierway_build_info": "",
}
"""The stable names, and labels each has at least."""

DECLARED: Final = metrics()
KNOWN: Final = series(DECLARED)
QUERIES: Final = [
    pytest.param(query.expr, id=f"{dashboard.uid}: {panel.title}: {query.legend}")
    for dashboard in DASHBOARDS
    for panel in dashboard.panels
    for query in panel.queries
]
RULES: Final = [
    *(pytest.param(rule["expr"], id=name) for name, rule in alerts().items()),
    *(pytest.param(expr, id=name) for name, expr in recorded().items()),
]


def test_every_declaration_is_found() -> None:
    assert {"Metrics", "MoneyMetrics", "SessionMetrics", "OperationMetrics"} <= {each.__name__ for each in declaring()}


@pytest.mark.parametrize("name", CONTRACT)
def test_a_stable_name_is_there(name: str) -> None:
    """Dashboards of other people stand on these."""
    assert name in DECLARED
    assert set(CONTRACT[name].split()) <= DECLARED[name]


@pytest.mark.parametrize("expr", [*QUERIES, *RULES])
def test_an_expression_names_what_there_is(expr: str) -> None:
    found = named(expr)
    assert found, "it asks for nothing"
    for name, labels in found.items():
        if name in recorded():
            assert labels <= {"blame", "tier"} | SCRAPED, name
        else:
            assert name in KNOWN, f"there is no {name}"
            assert labels <= KNOWN[name] | SCRAPED, f"{name} has no {labels - KNOWN[name]}"
    labels_there = set().union(*(KNOWN.get(name, {"tier", "blame"}) for name in found)) | SCRAPED
    assert listed(expr) <= labels_there, f"nothing has {listed(expr) - labels_there}"


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=attrgetter("uid"))
def test_legends_use_labels_that_are_left(dashboard: Dashboard) -> None:
    for panel in dashboard.panels:
        for query in panel.queries:
            used = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
            assert used <= listed(query.expr) | SCRAPED, f"{panel.title}: {query.legend}"


def test_a_name_that_does_not_exist_is_noticed() -> None:
    """The test above can fail."""
    found = named('sum by (tier) (rate(tierway_made_up_total{model="x"}[5m])) / up and tierway:requests:rate5m')
    assert found == {"tierway_made_up_total": {"model"}, "up": set(), "tierway:requests:rate5m": set()}
    assert "tierway_made_up_total" not in KNOWN
    assert listed("sum by (a, b) (x) * on (c) group_left () y") == {"a", "b", "c"}
