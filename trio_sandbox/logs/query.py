"""What is asked of the logs, checked before anything is read. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs

from trio_sandbox.logs.entry import LATEST, PROGRAMS, LogEntry, LogSource, microseconds

ALL = "all"
"""Stands for all sources where they are named."""


@attrs.frozen
class Query:
    """Which entries. since_ms: this time or later. until_ms: earlier than this. after: later than this time, in
    microseconds: a cursor.
    """

    sources: frozenset[LogSource] = frozenset(PROGRAMS)
    since_ms: float = 0.0
    until_ms: float = math.inf
    after: int = 0

    @classmethod
    def of(
        cls,
        sources: Iterable[str] | None = None,
        since_ms: float | None = None,
        until_ms: float | None = None,
        from_cursor: str | None = None,
    ) -> Query:
        """Check what a caller asks. Raises ValueError, TypeError."""
        if since_ms is not None and from_cursor is not None:
            raise ValueError("since_ms and from_cursor exclude each other")
        return cls(
            _sources(sources),
            0.0 if since_ms is None else _time(since_ms, "since_ms"),
            math.inf if until_ms is None else _time(until_ms, "until_ms"),
            0 if from_cursor is None else _cursor(from_cursor),
        )

    @property
    def earliest(self) -> int:
        """No entry of this time or before is wanted; in microseconds."""
        since_ms = min(max(self.since_ms, 0.0), LATEST / 1000)
        return max(self.after, math.ceil(since_ms * 1000) - 1)

    def takes(self, entry: LogEntry) -> bool:
        """Whether this is one of the entries."""
        return (
            entry.source in self.sources
            and self.since_ms <= entry.timestamp_ms < self.until_ms
            and (not self.after or microseconds(entry.timestamp_ms) > self.after)
        )


def _sources(names: Iterable[str] | None) -> frozenset[LogSource]:
    if names is None:
        return frozenset(PROGRAMS)
    if isinstance(names, str):
        raise TypeError("sources must be a list of str, not str")
    names = list(names)
    if unknown := [name for name in names if name != ALL and name not in list(LogSource)]:
        raise ValueError(f"sources: {unknown[0]!r} is not one of {', '.join(LogSource)} and {ALL}")
    return frozenset(LogSource) if ALL in names else frozenset(map(LogSource, names))


def _time(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number of milliseconds, not {type(value).__name__}")
    if math.isnan(value):
        raise ValueError(f"{what} must not be NaN")
    return float(value)


def _cursor(text: object) -> int:
    if not isinstance(text, str):
        raise TypeError(f"from_cursor must be str, not {type(text).__name__}")
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(LATEST))):
        raise ValueError(f"from_cursor: {text!r} is not the cursor of an entry")
    return int(text)
