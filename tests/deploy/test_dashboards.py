"""What Grafana loads is what the code says, and can be read by people."""

from __future__ import annotations

import json
from operator import attrgetter

import pytest

from grafana.generate import DASHBOARDS, FOLDER, file_of, text_of
from grafana.panels import COLUMNS, Dashboard, Json, Note, Panel, Query, Row, grown, quantile, rendered

every_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=attrgetter("uid"))


@every_dashboard
def test_the_file_is_what_the_code_makes(dashboard: Dashboard) -> None:
    """Whoever changes a dashboard writes it again: python -m grafana.generate."""
    assert file_of(dashboard).read_text() == text_of(dashboard)


def test_there_are_five_and_no_file_besides() -> None:
    assert {file.stem for file in FOLDER.iterdir()} == {"executive", "operations", "quality", "routing", "budgets"}
    assert len({each.uid for each in DASHBOARDS}) == len({each.title for each in DASHBOARDS}) == 5


@every_dashboard
def test_panels_stand_side_by_side(dashboard: Dashboard) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in rendered(dashboard)["panels"]:
        at: Json = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < COLUMNS, panel["title"]
        taken |= cells
    titles = [panel.title for panel in dashboard.panels]
    assert len(titles) == len(set(titles)), "two panels of one name cannot be told apart"
    assert isinstance(dashboard.items[0], Row | Note)


def test_a_panel_becomes_what_grafana_reads() -> None:
    made = rendered(
        Dashboard(
            "u",
            "T",
            "about",
            (Panel("a", (Query("up", "{{job}}"), Query("up")), steps=((1, "red"),), width=20), Row("r")),
        )
    )
    panel, row = made["panels"]
    assert row["type"] == "row" and row["gridPos"] == {"x": 0, "y": 8, "w": 24, "h": 1}
    first, second = panel["targets"]
    assert (first["refId"], second["refId"], first["legendFormat"], second["legendFormat"]) == (
        "A",
        "B",
        "{{job}}",
        "__auto",
    )
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"] == [
        {"value": None, "color": "green"},
        {"value": 1, "color": "red"},
    ]
    assert json.loads(json.dumps(made)) == made


def test_what_is_asked_often_is_said_right() -> None:
    assert (
        quantile(0.9, 'x{a="b"}', "m")
        == 'histogram_quantile(0.9, sum by (le, m) (rate(x_bucket{a="b"}[$__rate_interval])))'
    )
    assert grown("x", "1h", "m") == (
        "sum by (m) ((increase(x[1h]) and x offset 1h) or (max_over_time(x[1h]) unless x offset 1h))"
    )
