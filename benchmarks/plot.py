"""A bar chart of figures as SVG: medians as bars, minimum to maximum as a line. No I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree

from benchmarks.figures import Figure

WIDTH, ROW, LEFT, RIGHT, TOP = 900, 26, 330, 110, 34
FONT = {"font-family": "sans-serif", "font-size": "12"}


def bar_chart(title: str, figures: Sequence[Figure]) -> str:
    """An SVG document on a logarithmic scale, since a clone and a cold boot are two orders of magnitude apart."""
    values = [value for figure in figures for value in figure.values if value > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    height = TOP + ROW * len(figures) + 30
    root = ElementTree.Element(
        "svg", xmlns="http://www.w3.org/2000/svg", width=str(WIDTH), height=str(height), viewBox=f"0 0 {WIDTH} {height}"
    )
    ElementTree.SubElement(root, "rect", width="100%", height="100%", fill="white")
    _text(root, 10, 20, title, weight="bold")

    def across(value: float) -> float:
        span = max(high - low, 1)
        return LEFT + (math.log10(max(value, 10.0**low)) - low) / span * (WIDTH - LEFT - RIGHT)

    for power in range(low, high + 1):
        x = across(10.0**power)
        _line(root, (x, TOP), (x, height - 24), "#ddd")
        _text(root, x, height - 8, f"{10.0**power:g}", anchor="middle")
    for number, figure in enumerate(figures):
        y = TOP + number * ROW
        _text(root, LEFT - 8, y + 16, figure.name, anchor="end")
        end = across(figure.median)
        ElementTree.SubElement(
            root, "rect", x=str(LEFT), y=str(y + 5), width=f"{max(end - LEFT, 1):.1f}", height="14", fill="#4878a8"
        )
        least, most = (across(value) for value in figure.spread)
        _line(root, (least, y + 12), (most, y + 12), "#222")
        _text(root, most + 6, y + 16, f"{figure.median:.1f} {figure.unit}")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _text(
    root: ElementTree.Element, x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal"
) -> None:
    attributes = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "font-weight": weight, **FONT}
    ElementTree.SubElement(root, "text", attributes).text = words


def _line(root: ElementTree.Element, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    (x1, y1), (x2, y2) = start, end
    attributes = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}", "stroke": colour}
    ElementTree.SubElement(root, "line", attributes)
