"""Long work in a worker thread that can be called off. anyio only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from trio_sandbox.client.shielded import shielded

T = TypeVar("T")


class _CalledOff(Exception):
    """Nobody waits for the work any more."""


async def in_stoppable_thread(work: Callable[[Callable[[], None]], T]) -> T:
    """`work(proceed)` in a worker thread. Cancellation: the work's next call of `proceed` raises, and this returns when
    the work has ended. Work that had ended by then is not undone.
    """
    run = _Run(work)
    try:
        await run.wait()
    except BaseException:
        run.off.set()
        await shielded(run.wait)  # noqa: ASYNC102 - it is
        raise
    return run.result()


class _Run(Generic[T]):
    """The work, whatever became of the task that waits for it."""

    def __init__(self, work: Callable[[Callable[[], None]], T]) -> None:
        self.off = threading.Event()
        self._work = work
        self._outcome: list[T] = []
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._is_done = False

    async def wait(self) -> None:
        """Return when the work has ended. Can be begun again: the work is done once."""
        await anyio.to_thread.run_sync(self._run, abandon_on_cancel=not self.off.is_set())

    def result(self) -> T:
        if self._failure is not None:
            raise self._failure
        return self._outcome[0]

    def _proceed(self) -> None:
        if self.off.is_set():
            raise _CalledOff

    def _run(self) -> None:
        with self._lock:
            if not self._is_done:
                self._is_done = True
                if self.off.is_set():
                    return
                try:
                    self._outcome.append(self._work(self._proceed))
                except BaseException as error:  # noqa: ASYNC103 - raised by `result`
                    self._failure = error
