"""A chart of what was sampled over time, as SVG written by hand: one panel for each series, one above the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

WIDTH, PANEL, MARGIN, LEFT = 760, 110, 34, 90
Points = Sequence[tuple[float, float]]

_STYLE: Final = (
    "text{font:12px sans-serif;fill:#333}.t{font-weight:bold}.n{text-anchor:end;fill:#777}"
    ".f{fill:none;stroke:#ddd}.l{fill:none;stroke:#1f6feb;stroke-width:1.5}"
)


def svg(title: str, series: Mapping[str, Points]) -> str:
    """Each series has its own scale, which begins at nothing, so that small changes do not look like large ones."""
    height = MARGIN + len(series) * (PANEL + MARGIN)
    panels = "\n".join(_panel(name, points, at) for at, (name, points) in enumerate(series.items()))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
        f'<style>{_STYLE}</style>\n<rect width="100%" height="100%" fill="#fff"/>\n'
        f'<text class="t" x="10" y="20">{escape(title)}</text>\n{panels}\n</svg>\n'
    )


def _panel(name: str, points: Points, at: int) -> str:
    top = MARGIN + at * (PANEL + MARGIN) + 18
    bottom, width = top + PANEL - 18, WIDTH - LEFT - 20
    last = max((x for x, _ in points), default=0.0) or 1.0
    most = max((y for _, y in points), default=0.0) or 1.0
    places = " ".join(
        f"{LEFT + x / last * width:.1f},{bottom - max(0.0, y) / most * (bottom - top):.1f}" for x, y in points
    )
    return (
        f'<text x="{LEFT}" y="{top - 5}">{escape(name)}</text>\n'
        f'<text class="n" x="{LEFT - 6}" y="{top + 10}">{most:,.10g}</text>\n'
        f'<text class="n" x="{LEFT - 6}" y="{bottom}">0</text>\n'
        f'<text class="n" x="{LEFT + width}" y="{bottom + 14}">{last:,.0f} s</text>\n'
        f'<rect class="f" x="{LEFT}" y="{top}" width="{width}" height="{bottom - top}"/>\n'
        f'<polyline class="l" points="{places}"/>'
    )
