"""The entries of a log from the oldest on, and on, while they are written. Sync, in constant memory.

A reader holds the files open that it has still to read, so what is set aside or removed meanwhile is not lost to it.
What can be lost is what was removed before it was opened; then MissedLogsError says so, and never silence.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

import attrs

from trio_sandbox.errors import MissedLogsError
from trio_sandbox.logs.entry import LogEntry, decode_line, microseconds
from trio_sandbox.logs.lines import lines_from
from trio_sandbox.logs.places import files_of
from trio_sandbox.logs.query import Query
from trio_sandbox.logs.series import Part, is_newest, open_parts


@attrs.define(eq=False)
class FileReader:
    """One log file with those that it was set aside as. Nobody else may read through it."""

    folder: Path
    name: str
    query: Query
    _last: int = attrs.field(init=False)  # the time of the newest entry that was seen or skipped
    _parts: deque[Part] = attrs.Factory(deque)
    _newest: Part | None = None  # the one that is read
    _offset: int = 0
    _entries: deque[LogEntry] = attrs.Factory(deque)
    is_over: bool = False
    """Whether what may still come is later than was asked for."""

    def __attrs_post_init__(self) -> None:
        self._last = self.query.after

    def peek(self) -> LogEntry | None:
        """The next entry that was asked for, None when it is not written yet. Raises MissedLogsError, OSError."""
        while not self._entries:
            if self.is_over or not self._read():
                return None
        return self._entries[0]

    def pop(self) -> LogEntry:
        """Take what `peek` found."""
        return self._entries.popleft()

    def close(self) -> None:
        for part in (*self._parts, *([self._newest] if self._newest else [])):
            part.close()
        self._parts.clear()
        self._newest = None

    def _read(self) -> bool:
        """Read some lines; False when there are none."""
        if self._newest is None:
            return self._find_parts()
        # Asked first: what is in a file that nobody writes any more when we read it is all of it.
        is_left = bool(self._parts) or not is_newest(self.folder, self.name, self._newest.identity)
        lines, offset = lines_from(self._newest.descriptor, self._offset)
        if offset == self._offset:
            return is_left and self._find_parts()
        self._offset = offset
        for line in lines:
            if (entry := decode_line(line)) is not None:
                self._last = max(self._last, microseconds(entry.timestamp_ms))
                self.is_over = self.is_over or entry.timestamp_ms >= self.query.until_ms
                if self.query.takes(entry):
                    self._entries.append(entry)
        return True

    def _find_parts(self) -> bool:
        """Go on to the next file; False when there is none yet."""
        if not self._parts:
            known = self._newest.identity if self._newest is not None else None
            self._parts.extend(open_parts(self.folder, self.name, down_to=known))
            if not self._parts:
                return False
            self._look_for_a_gap(self._parts[0])
            while len(self._parts) > 1 and self._parts[1].after and self._parts[1].after <= self.query.earliest:
                self._parts.popleft().close()
        if self._newest is not None:
            self._newest.close()
        self._newest, self._offset = self._parts.popleft(), 0
        self._last = max(self._last, self._newest.after)
        return True

    def _look_for_a_gap(self, oldest: Part) -> None:
        begun = self._newest is not None or self.query.after
        if begun and oldest.after > max(self._last, self.query.earliest):
            gap = MissedLogsError(str(self._last), str(oldest.after))
            self._last = oldest.after
            raise gap


@attrs.define(eq=False)
class LogReader:
    """The entries of a query, in the order of their times."""

    folder: Path
    query: Query
    _files: list[FileReader] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._files = [FileReader(self.folder, file, self.query) for file in files_of(self.query.sources)]

    def next(self) -> LogEntry | None:
        """The next entry, None when it is not written yet. Raises MissedLogsError, once; OSError."""
        heads = {file: file.peek() for file in self._files}
        if not any(heads.values()):
            return None
        # The writer writes in the order of times. A file that had nothing when we looked may have got something before
        # what we found in another one; once we know that, a second look is enough.
        found = [(entry, file) for file, head in heads.items() if (entry := head or file.peek()) is not None]
        entry, file = min(found, key=lambda pair: pair[0].timestamp_ms)
        file.pop()
        return entry

    @property
    def is_over(self) -> bool:
        """Whether all that may still come is later than was asked for."""
        return all(file.is_over for file in self._files)

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            file.close()
