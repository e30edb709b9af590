"""Logs for tests, written without a thread: nothing is on the disk before the test says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trio_sandbox.logs.entry import LogSource
from trio_sandbox.logs.places import LogFile
from trio_sandbox.logs.queue import LIMIT_BYTES, LIMIT_ENTRIES
from trio_sandbox.logs.rotation import KEPT, LIMIT
from trio_sandbox.logs.writer import LogWriter


class ManualWriter(LogWriter):
    """Writes when it is told to."""

    def out(self, data: bytes, session: int = 1) -> None:
        self.put(LogFile.EXEC, LogSource.STDOUT, session, data)

    def kernel(self, data: bytes) -> None:
        self.put(LogFile.KERNEL, LogSource.SYSTEM, None, data)


@contextmanager
def manual_writer(
    folder: Path,
    *,
    limit: int = LIMIT,
    kept: int = KEPT,
    queue_bytes: int = LIMIT_BYTES,
    queue_entries: int = LIMIT_ENTRIES,
) -> Iterator[ManualWriter]:
    """A writer whose block's end writes the rest and lets go of the folder."""
    writer = ManualWriter(folder, limit=limit, kept=kept, queue_bytes=queue_bytes, queue_entries=queue_entries)
    try:
        yield writer
    finally:
        writer.close()
        writer.start()
        writer.join()
