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


@attrs.frozen
class Limit:
    """Something that was promised of a value, mostly of a ratio. One of `least` and `most` is given."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @classmethod
    def at_least(cls, ratio: float, figure: Figure, baseline: Figure) -> Limit:
        """On the ratio of the medians."""
        return cls(f"{figure.name} / {baseline.name}", figure.median / baseline.median, least=ratio)

    @classmethod
    def at_most(cls, ratio: float, figure: Figure, baseline: Figure) -> Limit:
        """On the ratio of the medians."""
        return cls(f"{figure.name} / {baseline.name}", figure.median / baseline.median, most=ratio)

    @property
    def met(self) -> bool:
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    def row(self) -> str:
        """One line of a Markdown table."""
        bound = f"≤ {self.most:g}" if self.least is None else f"≥ {self.least:g}"
        return f"| {self.name} | {self.value:.3f} | {bound} | {'met' if self.met else '**missed**'} |"


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


def limits_table(limits: Sequence[Limit]) -> str:
    """All limits as a Markdown table."""
    return "\n".join(["| | value | limit | |\n|---|---|---|---|", *(limit.row() for limit in limits)])
