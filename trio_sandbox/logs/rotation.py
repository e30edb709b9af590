"""A file of lines that is set aside when it is full: NAME, then NAME.1, NAME.2, NAME.3, and then it is gone.

Sync, for one thread. Nothing here raises for the disk: what a full, broken or missing one does not take was not
written, and the next lines are tried anew.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import attrs

from trio_sandbox.logs.entry import decode_line, encode_after, microseconds
from trio_sandbox.logs.lines import lines_backward

LIMIT = 10 << 20
"""Bytes of a file."""
KEPT = 3
"""Files that are kept beside the one that is written."""


@attrs.frozen
class Line:
    """An entry's line, with its end, and its time in microseconds."""

    us: int
    text: bytes


class RotatingFile:
    """One such file. `last`: the time of the newest entry that is in it or was, in microseconds."""

    def __init__(self, folder: Path, name: str, limit: int = LIMIT, kept: int = KEPT) -> None:
        self._paths = [folder / name, *(folder / f"{name}.{number}" for number in range(1, kept + 1))]
        self._limit = limit
        self._descriptor: int | None = None
        self._size = 0
        self.last = self._find_last()

    def append(self, lines: Sequence[Line]) -> int:
        """Write lines, oldest first; how many of them are on the disk now, whole."""
        done = 0
        try:
            while done < len(lines):
                self._make_room(len(lines[done].text))
                batch = lines[done : done + self._fitting(lines, done)]
                written = self._write(batch)
                done += written
                if written < len(batch):
                    break
        except OSError:
            self.close()
        return done

    def close(self) -> None:
        """Harmless when it is closed; the next `append` opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _fitting(self, lines: Sequence[Line], first: int) -> int:
        """How many lines from `first` on fit into the file: one at least."""
        room, count = self._limit - self._size, 0
        for line in lines[first:]:
            room -= len(line.text)
            if count and room < 0:
                break
            count += 1
        return count

    def _write(self, batch: Sequence[Line]) -> int:
        assert self._descriptor is not None
        data = memoryview(b"".join(line.text for line in batch))
        landed = 0
        try:
            while landed < len(data):
                landed += os.write(self._descriptor, data[landed:])
        except OSError:
            count = whole = 0
            while whole + len(batch[count].text) <= landed:
                whole += len(batch[count].text)
                count += 1
            self.close()  # what landed of the next line is cut off when it is opened again
            batch = batch[:count]
        self._size += landed
        if batch:
            self.last = batch[-1].us
        return len(batch)

    def _make_room(self, size: int) -> None:
        if self._descriptor is None:
            self._open()
        if self._size and self._size + size > self._limit:
            self.close()
            for newer, older in reversed([*itertools.pairwise(self._paths)]):
                if newer.exists():
                    os.rename(newer, older)
            self._open()

    def _open(self) -> None:
        """Open the newest file, which may be new, and bring it into order: nothing half written stays at its end."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._paths[0], flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            self._size = _end_of_lines(self._descriptor, self._size)
            os.ftruncate(self._descriptor, self._size)
        if not self._size and self.last:
            first = encode_after(self.last)
            if os.write(self._descriptor, first) < len(first):
                os.ftruncate(self._descriptor, 0)
                raise OSError("no room for the first line")
            self._size = len(first)

    def _find_last(self) -> int:
        for path in self._paths:
            try:
                with path.open("rb") as file:
                    for line in lines_backward(file.fileno(), os.fstat(file.fileno()).st_size):
                        if (entry := decode_line(line)) is not None:
                            return microseconds(entry.timestamp_ms)
            except OSError:
                continue
        return 0


def _end_of_lines(descriptor: int, end: int) -> int:
    """Where the last whole line before `end` ends."""
    while end > 0:
        start = max(0, end - 65_536)
        block = os.pread(descriptor, end - start, start)
        if (found := block.rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0
