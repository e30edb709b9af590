"""A process that was forked for a piece of work, and can be called off. anyio only.

asyncio can cancel a task within an anyio shield (`Task.cancel`, `asyncio.timeout`): see `shielded.py`.
"""

from __future__ import annotations

import os
import threading

import anyio
import anyio.to_thread
import attrs

from trio_sandbox.client.report import Report
from trio_sandbox.client.shielded import shielded
from trio_sandbox.process.spawn import Spawned, fork_server
from trio_sandbox.pull_event import PullEvent

ABORT_TIMEOUT = 15.0
"""Seconds that a cancelled piece of work waits until the process has undone what it had begun."""


@attrs.define(eq=False)
class ForkedWork:
    """Our ends of its pipes. It must be ended by `abort`, unless its result was taken over."""

    spawned: Spawned
    report: Report
    is_mine: bool = True
    _is_off: bool = False

    @classmethod
    async def begin(cls, order: str) -> ForkedWork:
        """Have the process forked. Raises HostNotReadyError. Cancellation: nothing is left."""
        handover = _Handover(order)
        try:
            await shielded(handover.wait)  # milliseconds, but for the first start of the fork server: half a second
        except BaseException:
            if handover.spawned is not None:
                await shielded(cls.of(handover.spawned).abort)  # noqa: ASYNC102 - it is
            raise
        assert handover.spawned is not None
        return cls.of(handover.spawned)

    @classmethod
    def of(cls, spawned: Spawned) -> ForkedWork:
        return cls(spawned, Report(spawned.report))

    async def next_event(self) -> PullEvent | None:
        """The next step of the image, None when there is no more. Raises why the work failed."""
        return await self.report.next_event()

    async def abort(self) -> None:
        """End the process, with all that it has begun, for at most ABORT_TIMEOUT. Harmless when its result was taken
        over, or it ended before. Can be begun again.
        """
        if not self.is_mine:
            return
        if not self._is_off:
            self._is_off = True
            os.close(self.spawned.leash)
        with anyio.move_on_after(ABORT_TIMEOUT):
            await self.report.ended()
        self.is_mine = False
        os.close(self.spawned.report)


class _Handover:
    """Brings a process from the worker thread to the task that asked for it, whatever became of the task's wait."""

    def __init__(self, order: str) -> None:
        self.spawned: Spawned | None = None
        self._order = order
        self._lock = threading.Lock()

    async def wait(self) -> None:
        """Return when the process is forked. Can be begun again: there is one process."""
        await anyio.to_thread.run_sync(self._fork)

    def _fork(self) -> None:
        with self._lock:
            if self.spawned is None:
                self.spawned = fork_server().spawn(self._order)
