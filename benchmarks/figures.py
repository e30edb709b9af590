"""Samples and what is said of them: median, spread, ratio. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import attrs


@attrs.frozen
class Figure:
    """One thing measured several times. Values in `unit`."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return min(self.values), max(self.values)

    def row(self, baseline: Figure) -> str:
        """One line of a Markdown table; the ratio is of medians."""
        low, high = self.spread
        ratio = self.median / baseline.median
        values = f"{self.median:.1f} {self.unit} | {low:.1f} – {high:.1f} | {len(self.values)}"
        return f"| {self.name} | {values} | {ratio:.3f} |"


class Samples:
    """Values by name, in the order of their first appearance."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._values: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        """Take one value."""
        self._values.setdefault(name, []).append(value)

    def figures(self) -> list[Figure]:
        """What was measured."""
        return [Figure(name, self._unit, tuple(values)) for name, values in self._values.items()]


def table(figures: Sequence[Figure], baseline: Figure) -> str:
    """All figures as a Markdown table, with the ratios of their medians to the baseline's."""
    head = f"| | median | min – max | n | ratio to *{baseline.name}* |\n|---|---|---|---|---|"
    return "\n".join([head, *(figure.row(baseline) for figure in figures)])
