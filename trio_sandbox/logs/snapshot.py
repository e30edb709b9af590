"""The entries of a query as they are now: all of them, or the last ones. Sync.

The last ones are read from the end of the files, so that `tail` of a large log costs what it returns.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from trio_sandbox.logs.entry import LogEntry, decode_line, microseconds
from trio_sandbox.logs.forward import LogReader
from trio_sandbox.logs.lines import lines_backward
from trio_sandbox.logs.places import files_of
from trio_sandbox.logs.query import Query
from trio_sandbox.logs.series import Part, open_parts

Series = list[tuple[Part, int]]
"""The parts of one file, oldest first, each with the size that it is read at."""


def read_logs(folder: Path, query: Query, tail: int | None = None) -> list[LogEntry]:
    """The entries that `query` takes, oldest first; of these the last `tail`. Raises MissedLogsError, OSError."""
    if tail is not None:
        return _last_entries(folder, query, tail)
    reader = LogReader(folder, query)
    try:
        return list(iter(reader.next, None))
    finally:
        reader.close()


def _last_entries(folder: Path, query: Query, tail: int) -> list[LogEntry]:
    found = [_open(folder, file) for file in files_of(query.sources)]
    try:
        # A file that is looked at first may lack what is older than the newest in another one: it is looked at twice.
        newest = max((_newest(series) for series in found), default=0)
        _close(found)
        found = [_open(folder, file) for file in files_of(query.sources)]
        merged = heapq.merge(*(_backward(series, query) for series in found), key=lambda entry: -entry.timestamp_ms)
        wanted = (entry for entry in merged if query.takes(entry) and microseconds(entry.timestamp_ms) <= newest)
        return list(islice(wanted, tail))[::-1]
    finally:
        _close(found)


def _open(folder: Path, file: str) -> Series:
    return [(part, part.size) for part in open_parts(folder, file)]


def _close(found: list[Series]) -> None:
    for series in found:
        for part, _ in series:
            part.close()


def _newest(series: Series) -> int:
    for part, size in reversed(series):
        for line in lines_backward(part.descriptor, size):
            if (entry := decode_line(line)) is not None:
                return microseconds(entry.timestamp_ms)
    return 0


def _backward(series: Series, query: Query) -> Iterator[LogEntry]:
    """All entries, newest first, down to those that are too early to be wanted."""
    for part, size in reversed(series):
        for line in lines_backward(part.descriptor, size):
            if (entry := decode_line(line)) is None:
                continue
            if microseconds(entry.timestamp_ms) <= query.earliest:
                return
            yield entry
