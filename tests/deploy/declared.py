"""What metrics there are: those that the code declares, those that rules record, those of others that are looked at."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from app import telemetry

ROOT: Final = Path(__file__).resolve().parents[2]
RULES: Final = ROOT / "deploy" / "prometheus" / "rules"
SUFFIXES: Final = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
SCRAPED: Final = frozenset({"instance", "job"})
"""Labels that Prometheus itself puts on everything."""

OTHERS: Final[Mapping[str, frozenset[str]]] = {
    "up": frozenset(),
    "process_resident_memory_bytes": frozenset(),
    "process_cpu_seconds_total": frozenset(),
    "vllm:num_requests_running": frozenset({"engine", "model_name"}),
    "vllm:num_requests_waiting": frozenset({"engine", "model_name"}),
    "vllm:kv_cache_usage_perc": frozenset({"engine", "model_name"}),
    "vllm:generation_tokens_total": frozenset({"engine", "model_name"}),
}


def declaring() -> Iterator[type[Any]]:
    """Every class of app/telemetry that declares metrics on a registry."""
    for module in pkgutil.iter_modules(telemetry.__path__):
        loaded = importlib.import_module(f"{telemetry.__name__}.{module.name}")
        for _, found in inspect.getmembers(loaded, inspect.isclass):
            if found.__module__ == loaded.__name__ and list(inspect.signature(found).parameters) == ["registry"]:
                yield found


def metrics() -> dict[str, frozenset[str]]:
    """The labels of each metric of ours, by the name that the contract gives it (`_total` on counters)."""
    registry = CollectorRegistry()
    kept = [each(registry) for each in declaring()]  # noqa: F841 - what nobody holds would be gone
    found = {}
    for collector in list(registry._collector_to_names):
        if isinstance(collector, MetricWrapperBase):
            (family,) = collector.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = frozenset(collector._labelnames)
    return found


def series(declared: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """The labels of each series that Prometheus gets of these metrics."""
    known = dict(OTHERS)
    for name, labels in declared.items():
        known |= {name: labels, f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
    return known


def rules() -> list[dict[str, Any]]:
    groups = [group for file in sorted(RULES.glob("*.yaml")) for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def recorded() -> dict[str, str]:
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


NAME: Final = re.compile(r"(?<![\w:\"$])([a-zA-Z_][\w]*:[\w:]+|tierway_\w+|process_\w+|up)(?![\w:(])(\{[^}]*\})?")
LABEL: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
LISTED: Final = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")


def named(expr: str) -> dict[str, set[str]]:
    """The series that an expression names, with the labels that it selects them by."""
    found: dict[str, set[str]] = {}
    for name, labels in NAME.findall(LISTED.sub("", expr)):
        found.setdefault(name, set()).update(LABEL.findall(labels))
    return found


def listed(expr: str) -> set[str]:
    """The labels that an expression groups or matches by."""
    return {label.strip() for labels in LISTED.findall(expr) for label in labels.split(",") if label.strip()}
