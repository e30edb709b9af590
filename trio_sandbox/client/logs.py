"""Reading the logs of a sandbox, from its files: nothing is asked of the sandbox, so it need not run. anyio only."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import anyio
import anyio.to_thread

from trio_sandbox.errors import MissedLogsError, StorageError
from trio_sandbox.logs.entry import LogEntry
from trio_sandbox.logs.forward import LogReader
from trio_sandbox.logs.places import is_written
from trio_sandbox.logs.query import Query
from trio_sandbox.logs.snapshot import read_logs

POLL = 0.1
"""Seconds between two looks at logs that are followed."""
PIECE = 256
"""Entries that are read at once."""
SETTLE = 0.02
"""Seconds that what a program has just printed, and its caller has just received, gets to reach the disk too."""
LATE = 1.0
"""Seconds after `until_ms` at which nothing of before can come any more."""

Folder = Callable[[], Path]
"""Finds the folder of the logs, in a worker thread."""


async def all_logs(find: Folder, query: Query, tail: int | None) -> list[LogEntry]:
    """The entries as they are now, oldest first. Raises as `find` does, and StorageError."""
    if tail is not None and (isinstance(tail, bool) or not isinstance(tail, int)):
        raise TypeError(f"tail must be int, not {type(tail).__name__}")
    if tail is not None and tail < 0:
        raise ValueError("tail must be non-negative")

    def read() -> list[LogEntry]:
        folder = find()
        if is_written(folder):
            time.sleep(SETTLE)
        try:
            return read_logs(folder, query, tail)
        except OSError as error:
            raise StorageError(str(folder), error.errno or 0, error.strerror or str(error)) from error

    return await anyio.to_thread.run_sync(read)


async def stream_of(find: Folder, query: Query, *, follow: bool) -> LogStream:
    """The entries one after the other. Raises as `find` does."""
    return LogStream(await anyio.to_thread.run_sync(find), query, follow=follow)


class LogStream:
    """Log entries, oldest first: an async iterator, and `recv()`. From `log_stream`.

    It holds files open, in constant number and memory, until it has ended or is closed: `async with`, or `aclose()`.
    It owns no task: nothing is read while nobody asks. Not for two receivers at once.
    """

    def __init__(self, folder: Path, query: Query, *, follow: bool) -> None:
        self._folder = folder
        self._query = query
        self._follow = follow
        self._reader: LogReader | None = LogReader(folder, query)
        self._read: deque[LogEntry | MissedLogsError] = deque()

    async def recv(self) -> LogEntry | None:
        """The next entry; None after the last: where all is read, and for a stream that follows once the sandbox has
        ended, however it did, or `until_ms` has passed.

        Raises MissedLogsError once for entries that were removed before they were read, then goes on with the oldest
        that is left; StorageError. Cancellation: no effect.
        """
        await anyio.lowlevel.checkpoint()
        while not self._read:
            if self._reader is None:
                return None
            if not await anyio.to_thread.run_sync(self._read_some):
                await anyio.sleep(POLL)
        found = self._read.popleft()
        if isinstance(found, MissedLogsError):
            raise found
        return found

    def _read_some(self) -> bool:
        """In a worker thread: read some entries, or find out that there are no more; False for nothing yet."""
        reader = self._reader
        if reader is None:
            return True
        can_come = self._follow and self._may_come()  # asked first, so that nothing comes between the two
        try:
            for _ in range(PIECE):
                if (entry := reader.next()) is None:
                    break
                self._read.append(entry)
        except MissedLogsError as error:
            self._read.append(error)
        except OSError as error:
            self._close()
            raise StorageError(str(self._folder), error.errno or 0, error.strerror or str(error)) from error
        if not self._read and (not can_come or reader.is_over):
            self._close()
        return bool(self._read) or self._reader is None

    def _may_come(self) -> bool:
        return time.time() * 1000 < self._query.until_ms + LATE * 1000 and is_written(self._folder)

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def aclose(self) -> None:
        """Let go of the files. Harmless when it has ended."""
        self._close()
        self._read.clear()
        await anyio.lowlevel.checkpoint()

    async def __aenter__(self) -> LogStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()
        self._read.clear()

    def __aiter__(self) -> LogStream:
        return self

    async def __anext__(self) -> LogEntry:
        if (entry := await self.recv()) is None:
            raise StopAsyncIteration
        return entry
