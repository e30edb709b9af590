"""What signals do to a simulated process."""

from __future__ import annotations

import signal
from collections import deque

import attrs
import trio

IGNORED = frozenset({signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT})
"""Signals that do nothing by default. SIGSTOP and its kin do nothing here either: there is no job control."""
STOPPING = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


@attrs.define(eq=False)
class Dispositions:
    """What one process does about signals, and what has killed it."""

    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """Of the program: cancelled when a signal ends it."""
    killed_by: int = 0
    _ignored: set[int] = attrs.Factory(set)
    _trapped: set[int] = attrs.Factory(set)
    _pending: deque[int] = attrs.Factory(deque)
    _arrived: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    def ignore(self, number: int) -> None:
        """From now on it does nothing. Raises ValueError for SIGKILL and SIGSTOP."""
        self._check(number)
        self._trapped.discard(number)
        self._ignored.add(number)

    def trap(self, number: int) -> None:
        """From now on it comes from `wait`."""
        self._check(number)
        self._ignored.discard(number)
        self._trapped.add(number)

    @staticmethod
    def _check(number: int) -> None:
        if number in (signal.SIGKILL, signal.SIGSTOP):
            raise ValueError(f"{signal.Signals(number).name} can be neither ignored nor trapped")

    def deliver(self, number: int) -> None:
        """The signal arrives."""
        if number in self._trapped:
            self._pending.append(number)
            self._arrived.unpark_all()
        elif number not in self._ignored and number not in IGNORED and number not in STOPPING:
            self.killed_by = self.killed_by or number
            self.scope.cancel(reason=f"signal {number}")

    async def wait(self) -> int:
        """The next trapped signal."""
        await trio.lowlevel.checkpoint()
        while not self._pending:
            await self._arrived.park()
        return self._pending.popleft()
