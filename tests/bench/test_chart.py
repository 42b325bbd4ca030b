"""The chart is an image that browsers show, whatever was sampled."""

from __future__ import annotations

from xml.etree import ElementTree

from bench.chart import svg

NAME = "{http://www.w3.org/2000/svg}"


def test_every_series_has_a_panel_with_its_scale() -> None:
    made = ElementTree.fromstring(svg("A < B", {"memory": [(0, 10), (5, 20), (10, 40)], "threads": [(0, 7)]}))
    lines = [line.attrib["points"].split() for line in made.iter(f"{NAME}polyline")]
    assert [len(line) for line in lines] == [3, 1]
    heights = [float(point.partition(",")[2]) for point in lines[0]]
    assert heights[0] > heights[1] > heights[2], "more is higher up"
    texts = [text.text for text in made.iter(f"{NAME}text")]
    assert {"A < B", "memory", "40", "10 s", "threads", "7"} <= set(texts)


def test_nothing_sampled_is_an_empty_panel() -> None:
    assert "<polyline" in svg("nothing", {"memory": [], "zero": [(0, 0), (0, 0)]})
