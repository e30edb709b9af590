"""Starting programs through the handle of a sandbox: what is asked for, and when."""

from __future__ import annotations

import anyio
import pytest

from tests.client.scripted import OUT, STARTED, ScriptedControl, ScriptedSession, exited
from trio_sandbox.client.sandbox import Sandbox

pytestmark = pytest.mark.anyio


async def test_exec_collects() -> None:
    session = ScriptedSession(STARTED, OUT, exited(3))
    output = await Sandbox(ScriptedControl(session)).exec("x")
    assert (output.exit_code, output.stdout_bytes, output.pid) == (3, b"out", 7)
    assert session.calls == []


async def test_shell() -> None:
    control = ScriptedControl(*(ScriptedSession(STARTED, exited()) for _ in range(2)))
    await Sandbox(control).shell("a | b", tty=True)
    await Sandbox(control).shell_stream("a | b", env={"A": "1"})
    assert [request.argv for request in control.requests] == [(b"/bin/sh", b"-c", b"a | b")] * 2
    assert control.requests[0].tty and b"A=1" in control.requests[1].env


async def test_a_program_is_on_its_way_when_its_handle_is_there() -> None:
    session = ScriptedSession()
    flushes = []
    flush = session.flush

    async def counted() -> None:
        flushes.append(list(session.calls))
        await flush()

    session.flush = counted  # type: ignore[method-assign]
    await Sandbox(ScriptedControl(session)).exec_stream("x", stdin="all of it")
    assert flushes == [[("feed", b"all of it")]]


@pytest.mark.parametrize("detached", [False, True])
async def test_a_start_that_is_cancelled_leaves_nothing(detached: bool) -> None:
    session = ScriptedSession()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await Sandbox(ScriptedControl(session)).exec_stream("x", detached=detached)
    assert scope.cancelled_caught
    assert session.calls == ["kill", "abandon"]


async def test_a_cancelled_exec_is_killed_and_its_end_is_awaited() -> None:
    session = ScriptedSession(STARTED, after_kill=exited(-1, 9))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Sandbox(ScriptedControl(session)).exec, "x")
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert session.calls == ["kill", "abandon"]
    assert session.over
