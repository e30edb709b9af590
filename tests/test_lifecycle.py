"""The lifecycle table, and how the end of a machine is told."""

from __future__ import annotations

import pytest

from trio_sandbox.lifecycle import (
    CRASHES,
    PANIC_MARK,
    TERMINAL,
    TRANSITIONS,
    End,
    EndReason,
    Input,
    Lifecycle,
    State,
    end_of_machine,
)


def test_every_state_can_be_reached_and_every_passing_one_left() -> None:
    assert {state for (state, _) in TRANSITIONS} == set(State) - TERMINAL
    assert set(TRANSITIONS.values()) == set(State) - {State.CREATING}


def test_every_input_is_used_and_every_live_state_can_crash_or_fail() -> None:
    assert {input_ for (_, input_) in TRANSITIONS} == set(Input)
    for state in set(State) - TERMINAL:
        assert any(start is state and target is State.CRASHED for (start, _), target in TRANSITIONS.items())


@pytest.mark.parametrize(
    ("shutdown", "returncode", "tail", "asked", "reason", "code"),
    [
        ("guest-shutdown", 0, "", EndReason.REQUESTED, EndReason.REQUESTED, 0),
        ("guest-shutdown", 0, "", None, EndReason.GUEST_SHUTDOWN, 0),
        ("guest-reset", 0, "", None, EndReason.GUEST_REBOOT, 1),
        ("guest-reset", 0, PANIC_MARK + ": sysrq", None, EndReason.KERNEL_PANIC, 1),
        ("guest-reset", 0, PANIC_MARK, EndReason.REQUESTED, EndReason.KERNEL_PANIC, 1),
        ("guest-panic", 0, "", None, EndReason.KERNEL_PANIC, 1),
        (None, -9, "", EndReason.KILLED, EndReason.KILLED, -9),
        (None, -9, "", EndReason.CANCELLED, EndReason.CANCELLED, -9),
        (None, -9, "", None, EndReason.VMM_EXITED, -9),
        (None, -11, "", None, EndReason.VMM_EXITED, -11),
        (None, 0, "", None, EndReason.VMM_EXITED, 1),
        (None, -9, "", EndReason.REQUESTED, EndReason.REQUESTED, -9),
        ("host-signal", 0, "", EndReason.REQUESTED, EndReason.REQUESTED, -9),
        # The guest can print anything: a panic text decides nothing when QEMU says that power went off.
        ("guest-shutdown", 0, PANIC_MARK, None, EndReason.GUEST_SHUTDOWN, 0),
    ],
)
def test_end_of_machine(
    shutdown: str | None, returncode: int, tail: str, asked: EndReason | None, reason: EndReason, code: int
) -> None:
    end = end_of_machine(shutdown, returncode, tail, asked)
    assert (end.reason, end.exit_code, end.success) == (reason, code, code == 0)
    assert end.state is (State.CRASHED if reason in CRASHES else State.STOPPED)


def test_history_follows_the_blocks() -> None:
    lifecycle = Lifecycle()
    with lifecycle.within(State.CREATING):
        with lifecycle.within(State.RUNNING):
            assert lifecycle.state is State.RUNNING
        with lifecycle.within(State.STOPPING):
            pass
    lifecycle.end(End(EndReason.REQUESTED, 0))
    assert lifecycle.history == [State.CREATING, State.RUNNING, State.STOPPING, State.STOPPED]


def test_an_illegal_move_is_refused() -> None:
    lifecycle = Lifecycle()
    lifecycle.end(End(EndReason.KILLED, -9))
    with pytest.raises(AssertionError, match="stopped cannot become running"), lifecycle.within(State.RUNNING):
        pass
