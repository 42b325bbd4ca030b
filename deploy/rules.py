"""Writes the rules as Kubernetes wants them, from the files that promtool tests: `python -m deploy.rules`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).resolve().parent
RULES: Final = sorted((HERE / "prometheus" / "rules").glob("*.yaml"))
OBJECT: Final = HERE / "kubernetes" / "monitoring" / "prometheusrule.yaml"
HEAD: Final = "# Written by python -m deploy.rules from deploy/prometheus/rules/.\n"


def groups() -> list[dict[str, Any]]:
    """All groups of rules, in the order of their files."""
    return [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]


def text() -> str:
    made = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "tierway", "labels": {"app.kubernetes.io/name": "tierway"}},
        "spec": {"groups": groups()},
    }
    return HEAD + yaml.safe_dump(made, sort_keys=False, width=120)


if __name__ == "__main__":
    OBJECT.write_text(text())
