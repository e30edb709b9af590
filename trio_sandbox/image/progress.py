"""Telling the user how far a long piece of work is, and letting it be cancelled, from inside a worker thread."""

from __future__ import annotations

import time
from typing import Protocol

import attrs
import trio


class Progress(Protocol):
    """Called in the Trio thread with a stage ("reading layer 1 of 3"), units done, and the total if it is known."""

    def __call__(self, stage: str, done: int, total: int | None, /) -> None: ...


STEP_BYTES = 1 << 20
"""A worker thread looks for cancellation at least this often, in bytes of work."""

REPORT_SECONDS = 0.1
"""Least time between two reports of one stage."""


@attrs.define(eq=False)
class Meter:
    """Counts the bytes of a stage. `add` is a cancellation point of the worker thread.

    Without `threaded` there is no Trio around (tests, tools): nothing is cancelled, and reports come where the work
    runs.
    """

    progress: Progress | None = None
    threaded: bool = True
    stage: str = ""
    total: int | None = None
    done: int = 0
    _since_check: int = 0
    _last_report: float = 0.0

    def begin(self, stage: str, total: int | None) -> None:
        """Start another stage at zero and report it."""
        self.stage, self.total, self.done = stage, total, 0
        self._report()

    def add(self, amount: int, done: int | None = None) -> None:
        """Count `amount` bytes of work. Raises trio.Cancelled in a worker thread whose caller was cancelled.

        done: how far the stage is by now, where that is not the sum of the work.
        """
        self.done = self.done + amount if done is None else done
        self._since_check += amount
        if self._since_check < STEP_BYTES:
            return
        self._since_check = 0
        if self.threaded:
            trio.from_thread.check_cancelled()
        if self.progress is not None and time.monotonic() - self._last_report >= REPORT_SECONDS:
            self._report()

    def _report(self) -> None:
        self._last_report = time.monotonic()
        if self.progress is None:
            return
        if self.threaded:
            trio.from_thread.run_sync(self.progress, self.stage, self.done, self.total)
        else:
            self.progress(self.stage, self.done, self.total)
