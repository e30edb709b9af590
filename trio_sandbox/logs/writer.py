"""The writer of a sandbox's logs: what is put is written by a thread of its own.

Runs in: `put` and `close` in any thread, for as long as it takes to append to a list; the rest in the writer's thread,
which ends with `close`, or with the process. Owns: the log files, and the lock on their folder. A disk that is slow,
full or stuck costs entries, which are counted, and nobody's time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from itertools import groupby, islice
from pathlib import Path

from trio_sandbox.logs.entry import MAX_DATA, LogSource, encode_line
from trio_sandbox.logs.places import LogFile, locked
from trio_sandbox.logs.queue import LIMIT_BYTES, LIMIT_ENTRIES, LogQueue, Waiting
from trio_sandbox.logs.rotation import KEPT, LIMIT, Line, RotatingFile

LINGER = 0.005
"""Seconds that the thread lets entries gather: a wake-up for each would cost the program more than the writing."""
REST = 9
"""How much longer than it computes the thread rests: a flood should be dropped rather than take more than a tenth of
the loop's time."""
BATCH = 64
"""Entries that are encoded and written at once: at most 4 MiB of data."""


class LogWriter:
    """The logs in one folder, which exists. Raises OSError when that cannot be opened."""

    def __init__(
        self,
        folder: Path,
        *,
        limit: int = LIMIT,
        kept: int = KEPT,
        queue_bytes: int = LIMIT_BYTES,
        queue_entries: int = LIMIT_ENTRIES,
    ) -> None:
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._closing = threading.Event()
        self._folder_lock = locked(folder)
        self._files = {file: RotatingFile(folder, file, limit, kept) for file in LogFile}
        self._last = max(file.last for file in self._files.values())
        self._queues = {file: LogQueue(file, self._now, queue_bytes, queue_entries) for file in LogFile}
        self._thread = threading.Thread(target=self._run, name=f"logs of {folder.parent.name}", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, file: LogFile, source: LogSource, session: int | None, data: bytes, *, mark: bool = False) -> None:
        """Have an entry of at most 64 KiB written, or counted as dropped. Waits for nothing. mark: for the few that
        should be there even after a flood.
        """
        assert len(data) <= MAX_DATA
        with self._lock:
            taken = self._queues[file].offer(source, session, data, mark=mark)
        if taken and not self._news.is_set():
            self._news.set()

    def close(self) -> None:
        """What was put is the last: the thread writes it and ends. Nothing may be put any more."""
        self._closing.set()
        self._news.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, at most `timeout` seconds of real time."""
        self._thread.join(timeout)

    def _now(self) -> int:
        """The time in microseconds, or if that was not after the last entry's, one more than that one's."""
        self._last = max(time.time_ns() // 1000, self._last + 1)
        return self._last

    # -- in the thread

    def _run(self) -> None:
        try:
            busy = 0.0
            while not self._closing.is_set():
                self._news.wait()
                self._closing.wait(max(LINGER, REST * busy))
                self._news.clear()
                began = time.thread_time()
                self.write_waiting()
                busy = time.thread_time() - began
            self.write_waiting()
        finally:
            for file in self._files.values():
                file.close()
            os.close(self._folder_lock)

    def write_waiting(self) -> None:
        """Write what waits now, in the order of its times across all files: a reader that has seen an entry in one
        file can then be sure to find all that is older in the others.
        """
        with self._lock:
            waiting = [(entry, file) for file, queue in self._queues.items() for entry in queue.take()]
        waiting.sort(key=lambda pair: pair[0].us)
        refused: dict[LogFile, list[Waiting]] = {}
        for file, pairs in groupby(waiting, key=lambda pair: pair[1]):
            entries = iter([entry for entry, _ in pairs])
            while batch := list(islice(entries, BATCH)):
                count = 0 if file in refused else self._write(file, batch)
                if count < len(batch):  # nothing later may come before what tells of this
                    refused.setdefault(file, []).extend(batch[count:])
        with self._lock:
            for file, entries_lost in refused.items():
                self._queues[file].refused(entries_lost)

    def _write(self, file: LogFile, batch: Sequence[Waiting]) -> int:
        lines = [Line(entry.us, encode_line(entry.us, entry.source, entry.session, entry.data)) for entry in batch]
        count = self._files[file].append(lines)
        with self._lock:
            self._queues[file].written(batch[:count])
        return count
