"""The few shapes that our dashboards are made of, and how each becomes Grafana's JSON.

Panels are data: a title, what is asked of Prometheus, a unit. Where they stand follows from their order and widths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

SCHEMA_VERSION: Final = 39  # Grafana 10.4 and later read it
COLUMNS: Final = 24
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
GREEN, YELLOW, RED = "green", "yellow", "red"
Steps = tuple[tuple[float, str], ...]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """`kind` is Grafana's. `steps` are values from which a colour holds; below the first it is green, or red where
    `low_is_bad`."""

    title: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    unit: str = "short"
    about: str = ""
    width: int = 8
    height: int = 8
    steps: Steps = ()
    low_is_bad: bool = False
    stacked: bool = False
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A heading."""

    title: str


@dataclass(frozen=True, slots=True)
class Note:
    """Markdown, over the whole width."""

    text: str
    height: int = 4


@dataclass(frozen=True, slots=True)
class Box:
    """A number that whoever looks may change."""

    name: str
    label: str
    value: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    uid: str
    title: str
    about: str
    items: Sequence[Panel | Row | Note]
    since: str = "now-24h"
    boxes: Sequence[Box] = ()

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(item for item in self.items if isinstance(item, Panel))


def stat(title: str, expr: str, unit: str = "short", **more: Any) -> Panel:
    """One number."""
    return Panel(title, (Query(expr),), "stat", unit, **{"width": 4, "height": 4, **more})


def lines(title: str, expr: str, legend: str = "", unit: str = "short", **more: Any) -> Panel:
    """One query over time, a line for each of its series."""
    return Panel(title, (Query(expr, legend),), unit=unit, **more)


def table(title: str, expr: str, unit: str = "short", **more: Any) -> Panel:
    """The series of one query as they stand now."""
    return Panel(title, (Query(expr),), "table", unit, **more)


# --- what is asked often ----------------------------------------------------------------------------------------------


def rate(selector: str, by: str = "") -> str:
    """Events a second."""
    return f"{_sum(by)}(rate({selector}[$__rate_interval]))"


def grown(selector: str, window: str = "$__range", by: str = "") -> str:
    """What a counter grew by. A series that was born meanwhile counts from 0: `increase` would lose its first value."""
    old, new = f"increase({selector}[{window}])", f"max_over_time({selector}[{window}])"
    return f"{_sum(by)}(({old} and {selector} offset {window}) or ({new} unless {selector} offset {window}))"


def quantile(share: float, histogram: str, by: str = "") -> str:
    """`histogram` is its name, with or without labels in braces."""
    name, brace, labels = histogram.partition("{")
    kept = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({kept}) (rate({name}_bucket{brace}{labels}[$__rate_interval])))"


def or_zero(expr: str) -> str:
    """0 instead of nothing, for one number without labels."""
    return f"({expr}) or vector(0)"


def _sum(by: str) -> str:
    return f"sum by ({by}) " if by else "sum"


# --- Grafana's JSON ---------------------------------------------------------------------------------------------------


def rendered(dashboard: Dashboard) -> Json:
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}
    boxes = [
        {
            "name": box.name,
            "label": box.label,
            "type": "textbox",
            "query": box.value,
            "current": {"text": box.value, "value": box.value},
            "hide": 0,
        }
        for box in dashboard.boxes
    ]
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["tierway"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": dashboard.since, "to": "now"},
        "timezone": "",
        "templating": {"list": [source, *boxes]},
        "annotations": {"list": []},
        "links": [
            {
                "title": "Tierway",
                "type": "dashboards",
                "tags": ["tierway"],
                "asDropdown": True,
                "includeVars": False,
                "keepTime": True,
            }
        ],
        "panels": list(_placed(dashboard.items)),
    }


def _placed(items: Sequence[Panel | Row | Note]) -> Iterator[Json]:
    """From left to right; what does not fit into a line begins the next."""
    x = y = line = 0
    for number, item in enumerate(items, 1):
        width, height = _size(item)
        if x + width > COLUMNS:
            x, y, line = 0, y + line, 0
        yield {"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}, **_content(item)}
        x, line = x + width, max(line, height)


def _size(item: Panel | Row | Note) -> tuple[int, int]:
    match item:
        case Panel():
            return item.width, item.height
        case Note():
            return COLUMNS, item.height
        case Row():
            return COLUMNS, 1


def _content(item: Panel | Row | Note) -> Json:
    match item:
        case Row():
            return {"type": "row", "title": item.title, "collapsed": False, "panels": []}
        case Note():
            return {"type": "text", "title": "", "options": {"mode": "markdown", "content": item.text}}
        case Panel():
            return _panel(item)


def _panel(panel: Panel) -> Json:
    whole = {} if panel.most is None else {"min": 0, "max": panel.most}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, **whole, "thresholds": _thresholds(panel), "custom": _custom(panel)},
            "overrides": [],
        },
        "options": _options(panel),
        "targets": [_target(panel, query, number) for number, query in enumerate(panel.queries)],
        **({"transformations": _TABLE} if panel.kind == "table" else {}),
    }


_TABLE: Final = [{"id": "organize", "options": {"excludeByName": {"Time": True}}}]


def _thresholds(panel: Panel) -> Json:
    first: Json = {"value": None, "color": RED if panel.low_is_bad else GREEN}
    return {"mode": "absolute", "steps": [first, *({"value": value, "color": colour} for value, colour in panel.steps)]}


def _custom(panel: Panel) -> Json:
    if panel.kind != "timeseries":
        return {}
    stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    limits = {"mode": "dashed" if panel.steps else "off"}
    return {"fillOpacity": 30 if panel.stacked else 5, "stacking": stacking, "thresholdsStyle": limits}


def _options(panel: Panel) -> Json:
    match panel.kind:
        case "timeseries":
            legend = {
                "displayMode": "table",
                "placement": "bottom",
                "calcs": ["lastNotNull", "max"],
                "showLegend": True,
            }
            return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
        case "table":
            return {"showHeader": True}
        case _:
            calculation = {"calcs": ["lastNotNull"], "fields": "", "values": False}
            return {"reduceOptions": calculation, "colorMode": "value", "graphMode": "none", "textMode": "auto"}


def _target(panel: Panel, query: Query, number: int) -> Json:
    at_once = panel.kind != "timeseries"
    return {
        "refId": chr(ord("A") + number),
        "datasource": SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": at_once,
        "range": not at_once,
        "format": "table" if panel.kind == "table" else "time_series",
    }
