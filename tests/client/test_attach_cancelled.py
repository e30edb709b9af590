"""A cancel at every single step of an attach: the terminal is itself again, and the program is ended or left."""

from __future__ import annotations

import os

import pytest
import trio

from tests.client.ptys import Person, person
from tests.client.scripted import STARTED, ScriptedControl, ScriptedSession, exited, out
from trio_sandbox.client.sandbox import Sandbox

STEPS = 400
"""More than an attach takes; it must end by itself before."""


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope before the n-th step of any task."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


async def attach_and_cancel(somebody: Person, cmd: str | int, step: int) -> tuple[bool, list[ScriptedSession]]:
    """One attach that types, shows and ends; whether the cancel came in time, and the sessions that were opened."""
    session = ScriptedSession(STARTED, out(b"shown"), after_kill=exited(-1, 9))
    session.on_call = lambda call: session.say(exited()) if call == ("send", b"typed") else None
    control = ScriptedControl(session)
    somebody.type(b"typed")
    with trio.CancelScope() as scope:
        instrument = CancelAtStep(scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            await Sandbox(control).attach(cmd, terminal=somebody.terminal)
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught, [session] if control.requests else []


@pytest.mark.parametrize("cmd", ["sh", 41])
def test_a_cancel_at_every_step(cmd: str | int) -> None:
    descriptors = sorted(os.listdir("/proc/self/fd"))
    for step in range(1, STEPS):
        with person() as somebody:
            before = somebody.modes
            cancelled, sessions = trio.run(attach_and_cancel, somebody, cmd, step)
            assert somebody.modes == before, step
            for session in sessions:
                assert session.over or "abandon" in session.calls, step
                if cancelled and cmd == 41:
                    assert "kill" not in session.calls, step
        assert sorted(os.listdir("/proc/self/fd")) == descriptors, step
        if not cancelled:
            break
    else:
        pytest.fail("the attach never ended")
    assert step > 10
