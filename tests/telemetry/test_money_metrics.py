"""Dashboards and alerts on money are built on these names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from app.telemetry.metrics import exposition, new_registry
from app.telemetry.money_metrics import MoneyMetrics

NAMES = {
    "tierway_budget_limit_usd": {"scope", "period"},
    "tierway_budget_used_usd": {"scope", "period"},
    "tierway_budget_held_usd": {"scope", "period"},
    "tierway_budget_denied_total": {"scope"},
    "tierway_budget_alerts_total": {"scope", "level"},
    "tierway_over_reserve_total": set(),
    "tierway_calibrated_prompts_total": {"result"},
    "tierway_savings_usd_total": set(),
    "tierway_imputed_cost_usd_total": {"upstream"},
}


def everything() -> tuple[CollectorRegistry, MoneyMetrics]:
    registry = new_registry()
    metrics = MoneyMetrics(registry)
    metrics.stand({("global", "day"): (50 * 10**9, 10**9, 500_000_000)})
    metrics.denied("global")
    metrics.alerted("agent", "80%")
    metrics.over_reserved(1)
    metrics.calibrated(True)
    metrics.saved(2_000_000_000)
    metrics.imputed("ollama", 250_000_000)
    return registry, metrics


def samples(registry: CollectorRegistry) -> list[Sample]:
    families = text_string_to_metric_families(exposition(registry).decode())
    return [sample for one in families for sample in one.samples if sample.name.startswith("tierway_")]


def values(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    order = ("scope", "period", "level", "upstream", "result")
    return {
        (one.name, *(one.labels[label] for label in order if label in one.labels)): one.value
        for one in samples(registry)
    }


def test_the_names_and_labels_of_the_contract() -> None:
    registry, _ = everything()
    assert {sample.name: set(sample.labels) for sample in samples(registry)} == NAMES


def test_the_values_are_dollars() -> None:
    assert values(everything()[0]) == {
        ("tierway_budget_limit_usd", "global", "day"): 50.0,
        ("tierway_budget_used_usd", "global", "day"): 1.0,
        ("tierway_budget_held_usd", "global", "day"): 0.5,
        ("tierway_budget_denied_total", "global"): 1.0,
        ("tierway_budget_alerts_total", "agent", "80%"): 1.0,
        ("tierway_over_reserve_total",): 1.0,
        ("tierway_calibrated_prompts_total", "within"): 0.0,
        ("tierway_calibrated_prompts_total", "over"): 1.0,
        ("tierway_savings_usd_total",): 2.0,
        ("tierway_imputed_cost_usd_total", "ollama"): 0.25,
    }


def test_what_was_not_over_or_saved_or_worth_anything_counts_nothing() -> None:
    """A counter that is made to fall breaks every rate drawn from it."""
    registry, metrics = everything()
    before = values(registry)
    metrics.over_reserved(0)
    metrics.saved(-5)
    metrics.imputed("ollama", 0)
    assert values(registry) == before


def test_a_limit_that_nobody_uses_any_more_does_not_look_used() -> None:
    """Yesterday's session must not keep an alert firing for ever."""
    registry, metrics = everything()
    metrics.stand({("session", "day"): (10**9, 10**9, 0)})
    found = values(registry)
    assert found["tierway_budget_limit_usd", "global", "day"] == 50.0
    assert found["tierway_budget_used_usd", "global", "day"] == found["tierway_budget_held_usd", "global", "day"] == 0
    assert found["tierway_budget_used_usd", "session", "day"] == 1.0


def test_labels_take_only_so_many_values() -> None:
    registry, metrics = everything()
    for number in range(200):
        metrics.imputed(f"upstream-{number}", 1)
    assert len([name for name in values(registry) if name[0] == "tierway_imputed_cost_usd_total"]) == 51
