"""Leaving a program to itself: detach, and what it leaves behind."""

from __future__ import annotations

import anyio
import pytest

from tests.client.scripted import (
    DETACHED,
    OPENED,
    OUT,
    STARTED,
    ScriptedSession,
    SessionEvent,
    exited,
    failed,
    handle,
    on,
)
from trio_sandbox.client import session_end
from trio_sandbox.client.program import Leave
from trio_sandbox.errors import ExecFailedError, LocalProtocolError

pytestmark = pytest.mark.anyio


async def test_detaching_drops_what_comes_and_returns_the_number() -> None:
    session = ScriptedSession(STARTED, OUT)
    async with on(session, leave=Leave.MAY_DETACH) as program:
        await program.recv()
        assert await program.detach() == program.session_id == 41
        assert program.detached
        assert await program.recv() is None
        with pytest.raises(LocalProtocolError, match="session 41"):
            await program.wait()
    assert session.calls == ["detach"]


async def test_detaching_waits_for_the_start() -> None:
    session = ScriptedSession()
    program = on(session, leave=Leave.MAY_DETACH)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(program.detach)
        await anyio.wait_all_tasks_blocked()
        assert session.calls == []
        session.say(STARTED)
    assert session.calls == ["detach"]


async def test_detaching_beside_a_recv_that_waits() -> None:
    session = ScriptedSession(STARTED)
    program = on(session, leave=Leave.MAY_DETACH)
    await program.recv()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(program.recv)
        await anyio.wait_all_tasks_blocked()
        assert await program.detach() == 41


async def test_a_program_that_ends_while_it_is_detached_from_has_its_exit() -> None:
    program = on(ScriptedSession(STARTED, after_detach=exited(3)), leave=Leave.MAY_DETACH)
    await program.recv()
    await program.detach()
    assert program.exit is not None and program.exit.code == 3
    assert not program.detached
    assert await program.wait() == (3, False)


async def test_there_is_no_detaching_from_what_never_started() -> None:
    with pytest.raises(ExecFailedError):
        await handle(failed("not_found"), leave=Leave.MAY_DETACH).detach()


@pytest.mark.parametrize("events", [(), (STARTED,), (STARTED, OUT)])
async def test_leaving_the_block_of_a_detached_program_leaves_it_running(events: tuple[SessionEvent, ...]) -> None:
    session = ScriptedSession(*(events or (OPENED, STARTED)))
    async with on(session, leave=Leave.DETACHES) as program:
        for _ in events:
            await program.recv()
    assert session.calls == ["detach"]
    assert program.detached


async def test_a_cancelled_detach_still_leaves_it_running() -> None:
    session = ScriptedSession(STARTED, after_detach=None)
    async with anyio.create_task_group() as tasks:

        async def use() -> None:
            async with on(session, leave=Leave.MAY_DETACH) as program:
                await program.recv()
                await program.detach()

        tasks.start_soon(use)
        await session.wait_for("detach")
        tasks.cancel_scope.cancel()
        await anyio.lowlevel.cancel_shielded_checkpoint()
        session.say(DETACHED)
    assert session.calls == ["detach"]


async def test_a_relay_that_never_answers_a_detach_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_end, "KILL_TIMEOUT", 0.01)
    session = ScriptedSession(STARTED, after_detach=None)
    async with on(session, leave=Leave.DETACHES) as program:
        await program.recv()
    assert session.calls == ["detach"]  # and no kill: it was to survive


async def test_detaching_lifts_the_deadline_first() -> None:
    session = ScriptedSession(STARTED)
    async with on(session, leave=Leave.MAY_DETACH, deadline=anyio.current_time() + 1000) as program:
        with anyio.fail_after(900):
            await program.recv()
        await program.detach()
    assert session.calls == [("deadline", 0), "detach"]


async def test_what_ends_with_its_client_cannot_be_left() -> None:
    session = ScriptedSession(STARTED, after_kill=exited(-1, 9))
    async with on(session) as program:
        with pytest.raises(LocalProtocolError, match="detached=True"):
            await program.detach()
    assert session.calls == ["kill", "abandon"]
