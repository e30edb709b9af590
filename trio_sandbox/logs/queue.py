"""What waits to be written to one log file: bounded, and exact about what it had no room for. No I/O, no locks.

Losses are told where they happened, by an entry of their own: after what was taken before them, and before what was
taken after. Rule: every entry that was offered is written once, or counted once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import attrs

from trio_sandbox.logs.entry import LogSource
from trio_sandbox.logs.places import LogFile

LIMIT_BYTES = 4 << 20
LIMIT_ENTRIES = 8192
RESERVE_ENTRIES = 1024
"""Entries beyond the limit that are kept for marks of the lifecycle: a flood of output must not hide the end."""
RESERVE_BYTES = 256 << 10


@attrs.frozen
class Waiting:
    """An entry that waits. lost: for one that tells of losses, how many entries and bytes they were."""

    us: int
    source: LogSource
    session: int | None
    data: bytes
    lost: tuple[int, int] = (0, 0)


@attrs.define(eq=False)
class LogQueue:
    """The entries for one file. Not for two threads at once. clock: makes the time of an entry, unique and growing."""

    file: LogFile
    clock: Callable[[], int]
    limit_bytes: int = LIMIT_BYTES
    limit_entries: int = LIMIT_ENTRIES
    entries: int = 0
    """Entries that were taken in and are not written yet, those that `take` gave out included."""
    size: int = 0
    """Bytes of them."""
    _waiting: deque[Waiting] = attrs.Factory(deque)
    _lost_entries: int = 0
    _lost_bytes: int = 0
    _lost_since: int = 0

    def offer(self, source: LogSource, session: int | None, data: bytes, *, mark: bool = False) -> bool:
        """Take an entry in, or count it as lost; which of the two. mark: the reserve is for it."""
        limit_entries, limit_bytes = self.limit_entries, self.limit_bytes
        if mark:
            limit_entries, limit_bytes = limit_entries + RESERVE_ENTRIES, limit_bytes + RESERVE_BYTES
        if self.entries >= limit_entries or self.size + len(data) > limit_bytes:
            if not self._lost_entries:
                self._lost_since = self.clock()
            self._lost_entries += 1
            self._lost_bytes += len(data)
            return False
        self._tell_of_losses()
        self._put(Waiting(self.clock(), source, session, data))
        return True

    def take(self) -> list[Waiting]:
        """All that waits, oldest first. It counts as held until it is given to `written` or `refused`."""
        self._tell_of_losses()
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def written(self, entries: Sequence[Waiting]) -> None:
        """These are on the disk."""
        self._release(entries)

    def refused(self, entries: Sequence[Waiting]) -> None:
        """The disk did not take these, which were the oldest: they are lost."""
        self._release(entries)
        count = sum(entry.lost[0] or 1 for entry in entries)
        size = sum(entry.lost[1] if entry.lost[0] else len(entry.data) for entry in entries)
        mark = _mark(entries[0].us, count, size)
        self._waiting.appendleft(mark)
        self._hold(mark)

    def _tell_of_losses(self) -> None:
        if self._lost_entries:
            self._put(_mark(self._lost_since, self._lost_entries, self._lost_bytes))
            self._lost_entries = self._lost_bytes = 0

    def _put(self, entry: Waiting) -> None:
        self._waiting.append(entry)
        self._hold(entry)

    def _hold(self, entry: Waiting) -> None:
        self.entries += 1
        self.size += len(entry.data)

    def _release(self, entries: Sequence[Waiting]) -> None:
        self.entries -= len(entries)
        self.size -= sum(len(entry.data) for entry in entries)


def _mark(us: int, count: int, size: int) -> Waiting:
    text = f"{count} {'entry' if count == 1 else 'entries'}, {size} bytes dropped"
    return Waiting(us, LogSource.SYSTEM, None, text.encode(), (count, size))
