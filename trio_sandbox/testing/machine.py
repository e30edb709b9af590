"""The machine around a simulated guest: what the sandbox takes for QEMU. It ends as one does, by the same ladder.

`serve_simulated_machine` is to `run_machine` what `serve_machine` is for real ones.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from trio_sandbox.config import SandboxConfig
from trio_sandbox.machine import configuration, configure
from trio_sandbox.relay.link import AgentLink
from trio_sandbox.service import service
from trio_sandbox.testing.agent import SimulatedAgent
from trio_sandbox.testing.clock import GuestClock
from trio_sandbox.testing.guest import SimulatedGuest
from trio_sandbox.testing.port import Port
from trio_sandbox.testing.strokes import deal_strokes
from trio_sandbox.vm.console import ConsoleLog
from trio_sandbox.vm.qmp import QmpClosed, QmpError
from trio_sandbox.vm.running import MachineExit, end_process


@attrs.define(eq=False)
class SimulatedMonitor:
    """The monitor. `said`: the commands that came. `refuses`: those that QEMU would not do."""

    clock: GuestClock
    said: list[str] = attrs.Factory(list)
    refuses: set[str] = attrs.Factory(set)
    closed: bool = False

    async def execute(self, command: str, **arguments: object) -> Any:
        """Raises QmpError and QmpClosed as QmpClient does."""
        await trio.lowlevel.checkpoint()
        self.said.append(command)
        if self.closed:
            raise QmpClosed(f"{command}: the monitor is closed")
        if command in self.refuses:
            raise QmpError(command, "refused by the test")
        match command:
            case "stop":
                self.clock.stop()
            case "cont":
                self.clock.resume()
            case "query-cpus-fast" | "query-blockstats":
                return []
            case _:
                raise QmpError(command, "not simulated")
        return {}


@attrs.define(eq=False)
class SimulatedMachine:
    """A RunningMachine, and the process of it that `end_process` ends."""

    guest: SimulatedGuest
    agent: Port
    clock: GuestClock = attrs.Factory(GuestClock)
    qmp: SimulatedMonitor = attrs.field(init=False)
    console: ConsoleLog = attrs.Factory(lambda: ConsoleLog(None))
    grace: float = 0.0
    exited: trio.Event = attrs.Factory(trio.Event)
    exit: MachineExit | None = None
    pid: int = attrs.Factory(os.getpid)
    _pid1: SimulatedAgent | None = None
    _power: trio.CancelScope = attrs.Factory(lambda: trio.CancelScope(shield=True))
    _ended: tuple[int, str | None] | None = None
    _gone: trio.Event = attrs.Factory(trio.Event)

    def __attrs_post_init__(self) -> None:
        self.qmp = SimulatedMonitor(self.clock)

    async def run(self, port: Port) -> None:
        """Be the process. port: the guest's end of the agent stream."""
        try:
            with self._power:  # from the shield: a machine ends by its own end, and by nobody's cancellation
                async with trio.open_nursery() as nursery:
                    self._pid1 = SimulatedAgent(
                        self.guest, port, self.clock, nursery, lambda: self.end(0, "guest-shutdown")
                    )
                    await self._pid1.run()
                    await trio.sleep_forever()
        finally:
            self._ended = self._ended or (1, None)
            self.qmp.closed = True
            port.close()
            self._gone.set()

    def end(self, returncode: int, shutdown_reason: str | None) -> None:
        """The process ends now. Harmless when it has."""
        if self._ended is None:
            self._ended = returncode, shutdown_reason
            self._power.cancel(reason="the simulated machine is off")

    def panic(self, message: str) -> None:
        """The guest's kernel panics, and resets the machine."""
        self.console.append(f"Kernel panic - not syncing: {message}\n".encode())
        self.end(0, "guest-reset")

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        if number is signal.SIGKILL:
            self.end(-9, None)
        elif number is signal.SIGTERM and not self.guest.ignores_sigterm:
            self.end(0, "host-signal")

    async def wait_process(self) -> None:
        await self._gone.wait()

    def note_exit(self) -> None:
        """The process is gone: what is known of its end."""
        assert self._ended is not None
        self.exit = MachineExit(*self._ended, console_tail=self.console.tail(), stderr="")
        self.exited.set()

    @property
    def processes(self) -> list[int]:
        """The guest's processes."""
        return [] if self._pid1 is None or self._gone.is_set() else list(self._pid1.processes.alive)

    def written(self, pid: int) -> int | None:
        """Bytes that a process has written."""
        process = None if self._pid1 is None else self._pid1.processes.alive.get(pid)
        return None if process is None else process.written

    @property
    def sessions(self) -> list[int]:
        """The agent's sessions."""
        return [] if self._pid1 is None or self._gone.is_set() else list(self._pid1.sessions)


async def _supervise(
    guest: SimulatedGuest, *, task_status: trio.TaskStatus[SimulatedMachine] = trio.TASK_STATUS_IGNORED
) -> None:
    """Own a machine from its start to its end, as `supervise_vmm` does."""
    near, far = Port.pair()
    machine = SimulatedMachine(guest, near)
    guest.inhabit(machine)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(machine.run, far)
            try:
                task_status.started(machine)
                await machine.wait_process()
            finally:
                await end_process(machine, machine.grace)  # noqa: ASYNC102 - shielded within
                machine.note_exit()
            await trio.sleep_forever()
    finally:
        guest.inhabit(None)


async def serve_simulated_machine(
    guest: SimulatedGuest,
    config: SandboxConfig,
    mark: Callable[[str], None],
    cut_clients: Callable[[], Awaitable[object]],
    *,
    task_status: trio.TaskStatus[tuple[SimulatedMachine, AgentLink]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Boot `guest` and own its machine. Reports `started((machine, link))` when programs can run in it, and deals the
    strokes of the guest's faults from then on. cut_clients: cuts the connections of all clients.

    Raises BootError, RemoteProtocolError. Cancellation: the machine is killed.
    """
    async with service(_supervise, guest, name="simulated machine") as machine:
        mark("spawned")
        link = AgentLink(machine.agent)
        async with service(link.serve, name="agent link"):
            await configure(config, machine, link, configuration(config))
            task_status.started((machine, link))
            await deal_strokes(guest, cut_clients)
            await trio.sleep_forever()
