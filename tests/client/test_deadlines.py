"""The deadline that goes with a request: the caller's, a little later, and never none where there is one."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from tests.client.scripted import STARTED, ScriptedControl, ScriptedSession, exited
from trio_sandbox.client.deadlines import MAX_MS, deadline_ms
from trio_sandbox.client.program import ExecHandle
from trio_sandbox.client.sandbox import Sandbox

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@pytest.mark.parametrize(("seconds", "seen"), [(None, 0), (10, 10_250), (0.0001, 251), (-1, 1), (1e300, MAX_MS)])
async def test_the_deadline_of_the_caller(seconds: float | None, seen: int) -> None:
    with anyio.CancelScope(deadline=float("inf") if seconds is None else anyio.current_time() + seconds) as scope:
        assert deadline_ms() == seen
        scope.deadline = float("inf")
        await anyio.lowlevel.checkpoint()


async def test_the_nearest_of_several_scopes_counts_and_a_cancelled_one_is_over() -> None:
    with anyio.move_on_after(5), anyio.move_on_after(60):
        await anyio.lowlevel.checkpoint()
        assert deadline_ms() == 5_250
    with anyio.CancelScope() as scope:
        scope.cancel()
        assert deadline_ms() == 1
        await anyio.lowlevel.checkpoint()


async def start(session: ScriptedSession, **options: Any) -> tuple[ExecHandle, int]:
    """Start a program in the scopes that we are in: its handle, and the deadline that went with it."""
    control = ScriptedControl(session)
    handle = await Sandbox(control).exec_stream("x", **options)
    return handle, control.requests[0].deadline_ms


async def test_it_goes_with_every_way_to_start() -> None:
    control = ScriptedControl(*(ScriptedSession(STARTED, exited()) for _ in range(5)))
    sandbox = Sandbox(control)
    with anyio.fail_after(10):
        await sandbox.exec("x")
        await sandbox.shell("x", timeout=3)
        await sandbox.exec_stream("x")
        await sandbox.shell_stream("x")
        await sandbox.shell_stream("x", detached=True)
    assert [request.deadline_ms for request in control.requests] == [10_250, 10_250, 10_250, 10_250, 0]
    assert [request.timeout_ms for request in control.requests] == [0, 3_000, 0, 0, 0]
    assert [request.detached for request in control.requests] == [False, False, False, False, True]


async def test_without_a_scope_there_is_none() -> None:
    handle, sent = await start(ScriptedSession(STARTED, exited()))
    assert sent == 0
    with anyio.fail_after(5):
        await handle.wait()
    assert handle._session.calls == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("use", ["recv", "wait", "collect", "__aenter__", "__anext__"])
async def test_a_handle_that_outlives_its_scope_takes_its_program_along(use: str) -> None:
    session = ScriptedSession(STARTED, exited())
    with anyio.move_on_after(10):
        handle, sent = await start(session)
        assert sent == 10_250
        await handle.recv()
        assert session.calls == []  # the scope is the same
    with anyio.move_on_after(60):
        await getattr(handle, use)()
    assert session.calls == [("deadline", 60_250)]


async def test_without_any_scope_it_has_no_deadline_any_more() -> None:
    session = ScriptedSession(STARTED, exited())
    with anyio.move_on_after(10):
        handle, _ = await start(session)
    await handle.recv()
    with anyio.move_on_after(1_000):
        await handle.recv()
    assert session.calls == [("deadline", 0)]


async def test_the_end_of_somebodys_patience_is_not_sent() -> None:
    session = ScriptedSession(STARTED)
    with anyio.move_on_after(10):
        handle, _ = await start(session)
        with anyio.move_on_after(1) as patience:
            await handle.wait()
        assert patience.cancelled_caught
        await anyio.lowlevel.checkpoint()
    assert session.calls == []


async def test_a_scope_that_was_moved_is_sent_at_the_next_use() -> None:
    session = ScriptedSession(STARTED, exited())
    with anyio.move_on_after(10) as scope:
        handle, _ = await start(session)
        await anyio.sleep(5)
        scope.deadline += 20
        await handle.recv()
        await handle.recv()
    assert session.calls == [("deadline", 25_250)]


async def test_waiting_for_a_kill_gives_no_new_life() -> None:
    session = ScriptedSession(STARTED, after_kill=exited(-1, 9))
    with anyio.move_on_after(10) as scope:
        handle, _ = await start(session)
        async with handle:
            await handle.wait()
    assert scope.cancelled_caught
    assert session.calls == ["kill", "abandon"]


async def test_a_scopes_end_is_a_cancellation_and_no_timeout_of_the_program() -> None:
    session = ScriptedSession(STARTED, after_kill=exited(-1, 9))
    began = anyio.current_time()
    with anyio.move_on_after(10) as scope:
        await Sandbox(ScriptedControl(session)).exec("x", timeout=20)
    assert scope.cancelled_caught
    assert anyio.current_time() - began == 10


async def test_a_session_that_survives_has_no_deadline() -> None:
    session = ScriptedSession(STARTED)
    with anyio.fail_after(10):
        handle, sent = await start(session, detached=True)
        async with handle:
            await handle.recv()
    assert sent == 0
    assert session.calls == ["detach"]
