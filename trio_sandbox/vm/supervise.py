"""One VMM process from its start to its reaped end.

Runs in: the task that `service(supervise_vmm, …)` starts. Owns: the QEMU process, its console, monitor and agent
sockets. Ends when: its block ends, and not before: after QEMU's exit it stays to own the evidence. Cancellation: QEMU
is killed and reaped before the cancellation goes on; a graceful end is what the block above asks for with
`Machine.grace`.

QEMU is started with Popen from Trio's own thread, never with trio.run_process: that calls Popen in a worker thread, and
PR_SET_PDEATHSIG fires when the *thread* that forked exits, which Trio's idle workers do after ten seconds.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from trio_sandbox.errors import BootError, HostNotReadyError
from trio_sandbox.service import service, wait_any
from trio_sandbox.vm.command import MachineSpec, qemu_argv
from trio_sandbox.vm.console import ConsoleLog, Record, drain
from trio_sandbox.vm.guest_memory import Pages, guest_address
from trio_sandbox.vm.qmp import QmpClient, QmpClosed
from trio_sandbox.vm.running import MachineExit, end_process

log = logging.getLogger("trio_sandbox.vm")

POWER_OFF_TIMEOUT = 2.0
"""Seconds from the agent's goodbye to the end of QEMU; 15 ms is usual."""
LAST_WORDS_TIMEOUT = 1.0
"""Seconds for the console's and the monitor's last bytes after QEMU is gone."""

Build = Callable[["Sockets"], MachineSpec]


@attrs.frozen
class Sockets:
    """The far ends of a machine's sockets, as descriptors that QEMU inherits."""

    console: int
    monitor: int
    agent: int


@attrs.define(eq=False)
class Machine:
    """A running VMM, as the block above sees it.

    `agent` is the stream to the guest's agent. `grace`: seconds that the end of the block waits for a power-off which
    it asked for; 0 kills at once.
    """

    process: subprocess.Popen[bytes]
    pidfd: int
    agent: trio.SocketStream
    qmp: QmpClient
    console: ConsoleLog
    stderr: ConsoleLog
    spec: MachineSpec
    grace: float = 0.0
    exited: trio.Event = attrs.Factory(trio.Event)
    exit: MachineExit | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, now. Harmless when QEMU is gone already."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Harmless when QEMU is gone already."""
        if self.process.poll() is None:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                pass

    async def wait_process(self) -> None:
        """Wait until QEMU is reaped. Cancellation: no effect."""
        while self.process.poll() is None:
            await trio.lowlevel.wait_readable(self.pidfd)
            if self.process.poll() is None:
                # Before Linux 6.15 a pidfd of a multi-threaded process can be readable while some threads still end.
                await trio.sleep(0.001)

    async def end(self) -> None:
        """End it with the grace that was granted; returns when QEMU is reaped. Shielded from cancellation."""
        await end_process(self, self.grace)


async def supervise_vmm(
    build: Build,
    launcher: Path,
    record: Record | None,
    sign_timeout: float,
    *,
    task_status: trio.TaskStatus[Machine] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Start a VMM and own it. Reports `started(machine)` at the guest's first sign: a byte of its agent, so HELLO is on
    its way; for a clone at once, and a state that cannot be restored is a BootError then.

    build: makes the machine's spec from its socket descriptors; called once for each try. launcher: the host program
    that ties QEMU's life to ours. record: is shown what the guest prints. sign_timeout: seconds for
    the first sign; a machine that gives none is killed and started once more. Raises BootError, HostNotReadyError.
    """
    try:
        await _run_vmm(build, launcher, record, sign_timeout, task_status)
    except _NoSign as first:
        log.warning("the machine gave no sign of life within %.0f s: trying once more", sign_timeout)
        try:
            await _run_vmm(build, launcher, record, sign_timeout, task_status)
        except _NoSign as second:
            raise BootError(
                "kernel", f"no sign of the guest agent within {sign_timeout:g} s, twice", second.console_tail
            ) from first


class _NoSign(Exception):
    def __init__(self, console_tail: str) -> None:
        self.console_tail = console_tail


async def _run_vmm(
    build: Build,
    launcher: Path,
    record: Record | None,
    sign_timeout: float,
    task_status: trio.TaskStatus[Machine],
) -> None:
    with _started_process(build, launcher, record) as (machine, console, stderr):
        try:
            async with (
                service(drain, console, machine.console, name="console"),
                service(drain, stderr, machine.stderr, name="vmm stderr"),
                service(machine.qmp.serve, name="qmp"),
            ):
                await _attend(machine, sign_timeout, task_status)
        finally:
            await machine.end()  # noqa: ASYNC102 - for a cancel that came while the services above were being entered


async def _attend(machine: Machine, sign_timeout: float, task_status: trio.TaskStatus[Machine]) -> None:
    """See the machine through its start and its life, and end it when the block it serves has ended."""
    try:
        if machine.spec.restore is None:
            await _first_sign(machine, sign_timeout)
            task_status.started(machine)
        else:
            # At once, so that what the clone is to be told waits for it in its port when it wakes.
            task_status.started(machine)
            await _restored(machine, sign_timeout)
        await machine.wait_process()
    finally:
        await machine.end()  # noqa: ASYNC102 - shielded within, until the killed process is reaped
        await _last_words(machine)  # noqa: ASYNC102 - shielded and timed within
        machine.exited.set()
    await trio.sleep_forever()


async def _first_sign(machine: Machine, sign_timeout: float) -> None:
    with trio.move_on_after(sign_timeout):
        await wait_any(machine.wait_process, partial(_spoken, machine.agent))
        if machine.process.poll() is None:
            return
        await _last_words(machine)
        said = machine.stderr.tail().strip() or f"exit status {machine.process.returncode}"
        raise BootError("spawn", f"the VMM ended at once: {said}", machine.console.tail())
    raise _NoSign(machine.console.tail())


async def _spoken(agent: trio.SocketStream) -> None:
    """Wait until there is something to read, and leave it there. The end of the stream is no word: QEMU is leaving."""
    try:
        if await agent.socket.recv(1, socket.MSG_PEEK):
            return
    except ConnectionResetError:
        pass
    await trio.sleep_forever()


async def _restored(machine: Machine, timeout: float) -> None:  # noqa: ASYNC109 - raises an error of its own
    """Make a clone go on from its device state. There is no second try: whoever asked can boot instead."""
    restore = machine.spec.restore
    assert restore is not None
    with trio.move_on_after(timeout):
        try:
            if restore.pages is not None:
                await _fill_memory(machine, restore.pages)
            await machine.qmp.restore(restore.state)
        except QmpClosed as error:
            await _last_words(machine)  # noqa: ASYNC120 - shielded within
            raise BootError("restore", machine.stderr.tail().strip() or str(error), machine.console.tail()) from error
        return
    raise BootError("restore", f"not restored within {timeout:g} s", machine.console.tail())


async def _fill_memory(machine: Machine, pages: Pages) -> None:
    """Give the machine's memory what it has beyond the file behind it, while nothing in it runs yet."""
    address = await guest_address(machine.qmp)
    memory = machine.spec.memory
    fill = partial(pages.write_to, machine.pid, address, machine.spec.memory_mib << 20)
    with trio.CancelScope(shield=True):  # a copy in memory
        await trio.to_thread.run_sync(fill, memory.descriptor if memory is not None else None)


async def _last_words(machine: Machine) -> None:
    """Wait, a moment only, until what QEMU and the guest said last has been read."""
    with trio.move_on_after(LAST_WORDS_TIMEOUT, shield=True):
        await machine.console.ended.wait()
        await machine.stderr.ended.wait()
        await machine.qmp.ended.wait()
    machine.exit = MachineExit(
        machine.process.returncode, machine.qmp.shutdown_reason, machine.console.tail(), machine.stderr.tail()
    )


@contextmanager
def _started_process(
    build: Build, launcher: Path, record: Record | None
) -> Iterator[tuple[Machine, trio.SocketStream, trio.SocketStream]]:
    """Spawn QEMU with its sockets. On leaving, the near ends are closed; the process must have been ended by then."""
    near: list[socket.socket] = []
    far: list[socket.socket] = []
    pidfd = -1
    try:
        for _ in range(4):
            ours, theirs = socket.socketpair()
            near.append(ours)
            far.append(theirs)
        spec = build(Sockets(far[0].fileno(), far[1].fileno(), far[2].fileno()))
        process = _spawn(launcher, spec, far[3].fileno())
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:  # no descriptor left for it
            process.kill()
            process.wait()
            raise
        for end in far:
            end.close()
        console, monitor, agent, stderr = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in near)
        machine = Machine(process, pidfd, agent, QmpClient(monitor), ConsoleLog(record), ConsoleLog(None), spec)
        yield machine, console, stderr
    finally:
        for end in (*near, *far):
            end.close()
        if pidfd >= 0:
            os.close(pidfd)


def _spawn(launcher: Path, spec: MachineSpec, stderr: int) -> subprocess.Popen[bytes]:
    argv = [str(launcher), "launch", str(os.getpid()), "--", *qemu_argv(spec)]
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            pass_fds=spec.descriptors,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except OSError as error:
        raise HostNotReadyError("vmm", f"cannot start {argv[0]}: {error.strerror}") from error
