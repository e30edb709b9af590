"""The processes of the simulated guest: tasks that signals cancel, and that are reaped when they have ended."""

from __future__ import annotations

import itertools
import signal
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import trio

from trio_sandbox.testing.clock import GuestClock
from trio_sandbox.testing.signals import Dispositions

if TYPE_CHECKING:
    from trio_sandbox.testing.program import Main, Program

FIRST_PID = 100


@attrs.define(eq=False)
class Process:
    """One process. reaped: called once when it has ended, with its exit code."""

    pid: int
    table: ProcessTable
    reaped: Callable[[Process, int], None]
    signals: Dispositions = attrs.Factory(Dispositions)
    spawned: Callable[[Process], None] = lambda process: None
    """Called with each background process that it starts."""
    written: int = 0
    """Bytes that it has got rid of."""

    @property
    def clock(self) -> GuestClock:
        return self.table.clock

    async def turn(self) -> None:
        """A checkpoint, at which the process stands still while the machine does."""
        await trio.lowlevel.checkpoint()
        await self.clock.running()

    def kill(self) -> None:
        """SIGKILL."""
        self.signals.deliver(signal.SIGKILL)

    def spawn(self, main: Main, program: Program) -> Process:
        """A background process of the same session."""
        child = self.table.add(self.reaped)
        child.spawned = self.spawned
        self.spawned(child)
        stdin = attrs.evolve(program.stdin, process=child)
        outputs = (attrs.evolve(output, process=child) for output in (program.stdout, program.stderr))
        stdout, stderr = outputs
        self.table.start(child, main, attrs.evolve(program, process=child, stdin=stdin, stdout=stdout, stderr=stderr))
        return child


@attrs.define(eq=False)
class ProcessTable:
    """All processes of one guest. nursery: where they run."""

    nursery: trio.Nursery
    clock: GuestClock
    alive: dict[int, Process] = attrs.Factory(dict)
    _pids: itertools.count[int] = attrs.Factory(lambda: itertools.count(FIRST_PID))
    _fewer: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    def add(self, reaped: Callable[[Process, int], None]) -> Process:
        """A process that has a number and does nothing yet."""
        process = Process(next(self._pids), self, reaped)
        self.alive[process.pid] = process
        return process

    def start(self, process: Process, main: Main, program: Program) -> None:
        """Have it do something."""
        self.nursery.start_soon(self._run, process, main, program, name=f"simulated {program.argv[0]}")

    async def _run(self, process: Process, main: Main, program: Program) -> None:
        code = 0
        with process.signals.scope:
            try:
                await process.clock.running()
                code = int(await main(program) or 0) & 0xFF
            except Exception:  # what becomes of any program's error is for whoever reads its output
                code = 1
                program.stderr.put(traceback.format_exc().encode())
        del self.alive[process.pid]
        self._fewer.unpark_all()
        process.reaped(process, code)

    def signal_all(self, number: int) -> None:
        """As kill(-1, number) of PID 1."""
        for process in list(self.alive.values()):
            process.signals.deliver(number)

    async def wait_childless(self) -> None:
        """Wait until no process is left."""
        while self.alive:
            await self._fewer.park()
