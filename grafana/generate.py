"""Writes the dashboards: `python -m grafana.generate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from grafana.budgets import BUDGETS
from grafana.executive import EXECUTIVE
from grafana.operations import OPERATIONS
from grafana.panels import Dashboard, rendered
from grafana.quality import QUALITY
from grafana.routing import ROUTING

FOLDER: Final = Path(__file__).resolve().parent / "dashboards"
DASHBOARDS: Final = (EXECUTIVE, OPERATIONS, QUALITY, ROUTING, BUDGETS)


def file_of(dashboard: Dashboard) -> Path:
    return FOLDER / f"{dashboard.uid.removeprefix('tierway-')}.json"


def text_of(dashboard: Dashboard) -> str:
    return json.dumps(rendered(dashboard), indent=1) + "\n"


def main() -> None:
    for dashboard in DASHBOARDS:
        file_of(dashboard).write_text(text_of(dashboard))


if __name__ == "__main__":
    main()
