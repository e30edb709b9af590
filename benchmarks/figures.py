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

    def row(self, baseline: Figure | None = None) -> str:
        """One line of a table; the ratio is of medians."""
        low, high = self.spread
        ratio = f"{self.median / baseline.median:8.3f}" if baseline is not None else ""
        values = f"{self.median:9.1f} {self.unit:<4} [{low:.1f} – {high:.1f}] n={len(self.values):<3}"
        return f"{self.name:<44} {values} {ratio}"


def table(figures: Sequence[Figure], baseline: Figure) -> str:
    """All figures, with their ratios to `baseline`."""
    head = f"{'':<44} {'median':>9}      [min – max]        ratio to {baseline.name!r}"
    return "\n".join([head, *(figure.row(None if figure is baseline else baseline) for figure in figures)])
