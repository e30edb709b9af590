"""The states of a sandbox, why it ends, and the table of what may follow what. No I/O, no clock.

Rule 1: every transition is in TRANSITIONS; what is not there cannot happen, and `Lifecycle` checks it. Rule 2: nobody
assigns a state. It is where the sandbox's own task is: `serve_sandbox` enters `within(STATE)` blocks, and the
innermost one counts.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs


class State(enum.StrEnum):
    """Where a sandbox is. The -ING states pass by themselves; STOPPED and CRASHED are terminal."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSED = "paused"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"
    CRASHED = "crashed"


class Input(enum.Enum):
    """What moves a sandbox from one state to another."""

    READY = "the agent is ready"
    BOOT_FAILED = "the boot failed"
    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain, idle timeout or max duration"
    DRAINED = "the last session ended"
    STOP = "stop"
    KILL = "kill, or the block was left"
    GONE = "the machine is gone as it was asked to be"
    CRASH = "the machine is gone and nobody asked"


TRANSITIONS: dict[tuple[State, Input], State] = {
    (State.CREATING, Input.READY): State.RUNNING,
    (State.CREATING, Input.BOOT_FAILED): State.CRASHED,
    (State.CREATING, Input.KILL): State.STOPPED,
    (State.RUNNING, Input.PAUSE): State.PAUSED,
    (State.RUNNING, Input.DRAIN): State.DRAINING,
    (State.RUNNING, Input.STOP): State.STOPPING,
    (State.RUNNING, Input.KILL): State.STOPPING,
    (State.RUNNING, Input.CRASH): State.CRASHED,
    (State.PAUSED, Input.RESUME): State.RUNNING,
    (State.PAUSED, Input.DRAIN): State.DRAINING,
    (State.PAUSED, Input.STOP): State.STOPPING,
    (State.PAUSED, Input.KILL): State.STOPPING,
    (State.PAUSED, Input.CRASH): State.CRASHED,
    (State.DRAINING, Input.DRAINED): State.STOPPING,
    (State.DRAINING, Input.STOP): State.STOPPING,
    (State.DRAINING, Input.KILL): State.STOPPING,
    (State.DRAINING, Input.CRASH): State.CRASHED,
    (State.STOPPING, Input.GONE): State.STOPPED,
    (State.STOPPING, Input.CRASH): State.CRASHED,
}

TERMINAL = frozenset({State.STOPPED, State.CRASHED})


class EndReason(enum.StrEnum):
    """Why a sandbox ended. Never folded into the state."""

    REQUESTED = "requested"
    KILLED = "killed"
    DRAINED = "drained"
    IDLE = "idle"
    MAX_DURATION = "max-duration"
    PARENT_GONE = "parent-gone"
    GUEST_SHUTDOWN = "guest-shutdown"
    GUEST_REBOOT = "guest-reboot"
    VMM_EXITED = "vmm-exited"
    KERNEL_PANIC = "kernel-panic"
    AGENT_LOST = "agent-lost"
    CANCELLED = "cancelled"
    BOOT_FAILED = "boot-failed"


CRASHES = frozenset(
    {EndReason.GUEST_REBOOT, EndReason.VMM_EXITED, EndReason.KERNEL_PANIC, EndReason.AGENT_LOST, EndReason.BOOT_FAILED}
)
"""Reasons that nobody asked for: the state is CRASHED."""


@attrs.frozen
class End:
    """How a sandbox ended. `exit_code` follows `wait()`: 0 after a clean power-off, -9 when killed, 1 after a crash."""

    reason: EndReason
    exit_code: int
    console_tail: str = attrs.field(default="", repr=False)

    @property
    def state(self) -> State:
        return State.CRASHED if self.reason in CRASHES else State.STOPPED

    @property
    def success(self) -> bool:
        return self.exit_code == 0


PANIC_MARK = "Kernel panic - not syncing"


def end_of_machine(shutdown_reason: str | None, returncode: int, console_tail: str, asked: EndReason | None) -> End:
    """Tell how a machine ended, from QEMU's SHUTDOWN reason and its exit status.

    QEMU exits with 0 on power-off, reboot and panic alike, so the reason decides. `asked` is what we had asked for by
    then, if anything. The console is written by the guest: it names a panic for people and decides nothing else.
    """
    if asked in (EndReason.KILLED, EndReason.CANCELLED, EndReason.PARENT_GONE) and returncode < 0:
        return End(asked, returncode, console_tail)
    if shutdown_reason == "guest-shutdown":
        return End(asked or EndReason.GUEST_SHUTDOWN, 0, console_tail)
    if shutdown_reason in ("guest-reset", "guest-panic"):
        panicked = shutdown_reason == "guest-panic" or PANIC_MARK in console_tail
        return End(EndReason.KERNEL_PANIC if panicked else EndReason.GUEST_REBOOT, 1, console_tail)
    if asked is not None:  # it was asked to stop, did not, and was forced
        return End(asked, returncode or -9, console_tail)
    return End(EndReason.VMM_EXITED, returncode or 1, console_tail)


class Lifecycle:
    """The state of one sandbox as it is lived through. `history` is every state entered, in order."""

    def __init__(self) -> None:
        self.history: list[State] = []
        self.on_enter: Callable[[State], None] = lambda state: None
        """Called with each state that is entered."""

    @property
    def state(self) -> State:
        """The innermost state entered last. CREATING before anything."""
        return self.history[-1] if self.history else State.CREATING

    @contextmanager
    def within(self, state: State) -> Iterator[None]:
        """Be in `state` for the block. What comes after is whatever block or end is entered next."""
        self._enter(state)
        yield

    def end(self, end: End) -> None:
        """The machine is gone: enter the terminal state that `end` says, through STOPPING if nobody saw that pass."""
        if end.state is State.STOPPED and self.state not in (State.CREATING, State.STOPPING):
            self._enter(State.STOPPING)
        self._enter(end.state)

    def _enter(self, state: State) -> None:
        if self.history and state is not self.state and not self._is_legal(self.state, state):
            raise AssertionError(f"{self.state} cannot become {state}")
        if not self.history or state is not self.state:
            self.history.append(state)
            self.on_enter(state)

    @staticmethod
    def _is_legal(source: State, target: State) -> bool:
        return any(start is source and end is target for (start, _), end in TRANSITIONS.items())
