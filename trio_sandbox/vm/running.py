"""What a sandbox needs of a machine that runs, whatever makes it one. Types only, and the ladder that ends it."""

from __future__ import annotations

import logging
import signal
from typing import Any, Protocol

import attrs
import trio

from trio_sandbox.vm.console import ConsoleLog

log = logging.getLogger("trio_sandbox.vm")

TERM_TIMEOUT = 2.0
"""Seconds between SIGTERM, which QEMU takes as a wish, and SIGKILL."""
REAP_LOG_INTERVAL = 10.0
"""Seconds between complaints about a killed process that the kernel will not let go."""


@attrs.frozen
class MachineExit:
    """How QEMU ended: its exit status (negative for a signal), QMP's SHUTDOWN reason, and what it and the guest said
    last.
    """

    returncode: int
    shutdown_reason: str | None
    console_tail: str
    stderr: str


class Monitor(Protocol):
    """The monitor of a machine. See `trio_sandbox.vm.qmp.QmpClient` for what the call promises."""

    async def execute(self, command: str, **arguments: object) -> Any: ...


class RunningMachine(Protocol):
    """A machine as the sandbox sees it, which does not own it. See `trio_sandbox.vm.supervise.Machine`."""

    grace: float

    @property
    def pid(self) -> int: ...
    @property
    def qmp(self) -> Monitor: ...
    @property
    def console(self) -> ConsoleLog: ...
    @property
    def exited(self) -> trio.Event: ...
    @property
    def exit(self) -> MachineExit | None: ...
    def kill(self) -> None: ...


class Mortal(Protocol):
    """A process that `end_process` ends."""

    @property
    def pid(self) -> int: ...
    def send_signal(self, number: signal.Signals) -> None:
        """Harmless when it is gone already."""

    async def wait_process(self) -> None:
        """Wait until it is reaped. Cancellation: no effect."""


async def end_process(process: Mortal, grace: float) -> None:
    """The ladder: `grace` seconds to end by itself, SIGTERM, SIGKILL; returns when the process is reaped. Shielded."""
    with trio.CancelScope(shield=True):
        if grace and not await _gone_within(process, grace):
            log.warning("VMM %d did not power off within %.1f s: SIGTERM", process.pid, grace)
            process.send_signal(signal.SIGTERM)
            await _gone_within(process, TERM_TIMEOUT)
        process.send_signal(signal.SIGKILL)
        while not await _gone_within(process, REAP_LOG_INTERVAL):
            log.error("VMM %d was killed %.0f s ago and the kernel still keeps it", process.pid, REAP_LOG_INTERVAL)


async def _gone_within(process: Mortal, seconds: float) -> bool:
    with trio.move_on_after(seconds):
        await process.wait_process()
        return True
    return False
