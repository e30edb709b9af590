"""Program handles over a scripted session, on both backends."""

from __future__ import annotations

import math
from typing import Any

import anyio
import pytest

from tests.client.scripted import (
    ERR,
    OPENED,
    OUT,
    STARTED,
    ScriptedSession,
    SessionEvent,
    exited,
    failed,
    handle,
    on,
    out,
)
from trio_sandbox.client import session_end
from trio_sandbox.client.options import Stdin
from trio_sandbox.client.outcome import ExecEventType, ExitStatus, ResourceUsage
from trio_sandbox.client.program import WAIT_KEEPS, ExecHandle, Leave
from trio_sandbox.errors import ExecFailedError, ExecTimeoutError, LocalProtocolError, SandboxNotRunningError
from trio_sandbox.relay.events import MessageReceived
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Exited,
    StdinClosed,
)

pytestmark = pytest.mark.anyio


async def test_events_in_order_and_none_at_the_end() -> None:
    program = handle(STARTED, OUT, ERR, exited(3))
    events = [event async for event in program]
    assert [event.event_type for event in events] == [
        ExecEventType.STARTED,
        ExecEventType.STDOUT,
        ExecEventType.STDERR,
        ExecEventType.EXITED,
    ]
    assert (events[0].pid, events[1].data, events[3].code) == (7, b"out", 3)
    assert await program.recv() is None
    assert await program.wait() == (3, False)


async def test_collect_is_idempotent_and_keeps_streams_apart() -> None:
    program = handle(STARTED, OUT, ERR, OUT, exited())
    first = await program.collect()
    assert (first.stdout_bytes, first.stderr_bytes, first.success) == (b"outout", b"err", True)
    assert await program.collect() == first


@pytest.mark.parametrize(("code", "signal", "seen"), [(0, 0, 0), (255, 0, 255), (-1, 9, 137), (-1, 15, 143)])
async def test_exit_codes(code: int, signal: int, seen: int) -> None:
    end = exited(code, signal).message
    assert isinstance(end, Exited)
    assert ExitStatus.of(end).code == seen
    output = await handle(STARTED, exited(code, signal)).collect()
    assert (output.exit_code, output.signal) == (seen, signal or None)


async def test_a_timeout_carries_the_output_so_far() -> None:
    program = handle(STARTED, OUT, ERR, exited(-1, 9, timed_out=True), timeout=1.5)
    for _ in range(2):
        with pytest.raises(ExecTimeoutError, match=r"at its timeout of 1\.5 s") as caught:
            await program.collect()
        assert (caught.value.stdout, caught.value.stderr) == (b"out", b"err")


async def test_a_program_that_never_started() -> None:
    program = handle(failed("not_found", 2, "no such program"))
    for call in (program.wait, program.collect, program.wait):
        with pytest.raises(ExecFailedError, match="no such program") as caught:
            await call()
        assert (caught.value.kind, caught.value.errno) == ("not_found", 2)
    assert (program.pid, program.exit) == (None, None)


async def test_stdin_bytes_are_fed_and_a_pipe_is_taken_once() -> None:
    session = ScriptedSession()
    ExecHandle(session, Stdin.bytes(b"all"), None)
    assert session.calls == [("feed", b"all")]
    session = ScriptedSession()
    program = ExecHandle(session, Stdin.pipe(), None)
    sink = program.take_stdin()
    assert sink is not None
    assert program.take_stdin() is None
    await sink.write(b"x")
    await sink.close()
    assert session.calls == [("send", b"x"), "close"]


async def test_leaving_the_block_kills_and_waits_for_the_guests_word() -> None:
    session = ScriptedSession(STARTED, OUT, after_kill=exited(-1, 9))
    async with on(session):
        pass
    assert session.calls == ["kill", "abandon"]
    assert session.over


async def test_a_cancelled_collect_in_a_block_still_waits_for_it() -> None:
    session = ScriptedSession(STARTED, after_kill=exited(-1, 9))
    with anyio.move_on_after(0.01) as scope:
        async with on(session) as program:
            await program.collect()
    assert scope.cancelled_caught
    assert session.over


async def test_a_guest_that_says_nothing_after_a_kill_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_end, "KILL_TIMEOUT", 0.01)
    session = ScriptedSession(STARTED)
    async with on(session):
        pass
    assert session.calls == ["kill", "abandon"]


async def test_a_machine_that_goes_while_a_block_is_left() -> None:
    class Dying(ScriptedSession):
        async def receive(self) -> SessionEvent:
            await anyio.lowlevel.checkpoint()
            raise SandboxNotRunningError("x")

    async with ExecHandle(Dying(), Stdin.null(), None):
        pass


@pytest.mark.parametrize("number", [0, 65, -1, "TERM", 1.5, True])
async def test_wrong_signals(number: Any) -> None:
    with pytest.raises(ValueError, match="not a signal"):
        await handle().signal(number)


async def test_all_that_is_known_of_an_end() -> None:
    end = exited(-1, 11, core=True, held_open=True, utime_us=1_500_000, stime_us=250_000, maxrss_kib=3)
    usage = ResourceUsage(1.5, 0.25, 3072)
    status = ExitStatus(139, False, signal=11, core_dumped=True, held_open=True, usage=usage)
    program = handle(STARTED, end)
    assert (program.pid, program.exit) == (None, None)
    events = [event async for event in program]
    assert (events[-1].code, events[-1].signal, events[-1].exit) == (139, 11, status)
    assert (program.pid, program.exit) == (7, status)
    output = await program.collect()
    assert (output.pid, output.signal, output.core_dumped, output.held_open) == (7, 11, True, True)
    assert (output.exit_code, output.success, output.usage) == (139, False, usage)


async def test_two_that_wait_both_learn_the_end_and_a_wait_takes_nothing_from_a_collect() -> None:
    session = ScriptedSession(STARTED)
    program = on(session)
    seen: dict[str, object] = {}

    async def collect(name: str) -> None:
        seen[name] = (await program.collect()).stdout_bytes

    async def wait() -> None:
        seen["wait"] = await program.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        tasks.start_soon(collect, "one")
        tasks.start_soon(collect, "two")
        await anyio.wait_all_tasks_blocked()
        session.say(OUT, OUT, OUT, exited(4))
    assert seen == {"one": b"outoutout", "two": b"outoutout", "wait": (4, False)}


async def test_a_collect_that_was_cancelled_has_lost_nothing_and_what_a_wait_dropped_is_gone() -> None:
    session = ScriptedSession(STARTED, out(b"1"))
    program = on(session)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(program.collect)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    session.say(out(b"2"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(program.wait)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    session.say(out(b"3"), exited())
    assert (await program.collect()).stdout_bytes == b"13"


async def test_a_wait_that_times_out_has_the_last_of_the_output() -> None:
    program = handle(STARTED, out(b"a" * WAIT_KEEPS), ERR, out(b"b"), exited(-1, 9, timed_out=True), timeout=2.0)
    for _ in range(2):
        with pytest.raises(ExecTimeoutError) as caught:
            await program.wait()
        assert caught.value.stdout == b"a" * (WAIT_KEEPS - 1) + b"b"
        assert caught.value.stderr == b"err"
    assert program.exit is not None and program.exit.timed_out


async def test_a_wait_keeps_nothing_where_no_error_can_ask_for_it() -> None:
    program = handle(STARTED, out(b"a"), exited())
    await program.wait()
    assert not program._dropped.stdout


async def test_a_resize_passes_a_recv_that_waits() -> None:
    session = ScriptedSession()
    program = on(session, tty=True)
    events = []

    async def receive() -> None:
        events.append(await program.recv())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        await program.resize(50, 132)
        assert (session.calls, events) == ([("resize", 50, 132)], [])
        session.say(STARTED)
    assert [event and event.event_type for event in events] == [ExecEventType.STARTED]


@pytest.mark.parametrize(("rows", "cols"), [(0, 80), (24, 65_536), (24, -1), (True, 80), ("24", 80), (24.0, 80)])
async def test_wrong_sizes(rows: Any, cols: Any) -> None:
    program = handle(tty=True)
    with pytest.raises(ValueError, match="must be 1 to 65535"):
        await program.resize(rows, cols)


async def test_a_program_on_pipes_has_no_size() -> None:
    with pytest.raises(LocalProtocolError, match="tty=True"):
        await handle().resize(24, 80)


async def test_what_a_relay_says_first_is_no_event() -> None:
    program = handle(OPENED, STARTED, exited())
    assert [event.event_type async for event in program] == [ExecEventType.STARTED, ExecEventType.EXITED]


async def test_a_closed_input_is_an_event() -> None:
    closed = MessageReceived(FrameType.STDIN_CLOSED, 1, 0, StdinClosed(32))
    event = await handle(STARTED, closed, deadline=math.inf).recv()
    assert event is not None and event.event_type is ExecEventType.STARTED
    program = handle(closed)
    event = await program.recv()
    assert event is not None and (event.event_type, event.code) == (ExecEventType.STDIN_ERROR, 32)


async def test_waiting_for_the_start_takes_no_event_away() -> None:
    session = ScriptedSession(OPENED)
    program = on(session)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(program.wait_until_started)
        await anyio.wait_all_tasks_blocked()
        session.say(STARTED, OUT, exited())
    assert program.pid == await program.wait_until_started() == 7
    assert [event.event_type async for event in program] == ["started", "stdout", "exited"]


async def test_waiting_for_a_start_that_fails() -> None:
    program = handle(failed("not_found"))
    with pytest.raises(ExecFailedError):
        await program.wait_until_started()
    event = await program.recv()
    assert event is not None and event.event_type is ExecEventType.FAILED
    assert await program.recv() is None


async def test_what_is_told_without_waiting_for_an_answer_is_surely_sent() -> None:
    session = ScriptedSession(STARTED)
    program = on(session, tty=True, stdin=Stdin.pipe())
    sink = program.take_stdin()
    assert sink is not None
    for told in (program.signal(1), program.resize(1, 1), program.kill(), sink.close()):
        await told
        assert session.flushed == len(session.calls)
    assert session.calls == [("signal", 1), ("resize", 1, 1), "kill", "close"]


async def test_a_kill_and_the_end_of_a_block_get_past_a_recv_that_waits() -> None:
    session = ScriptedSession(STARTED, after_kill=exited(-1, 9))
    program = on(session)
    async with anyio.create_task_group() as tasks:
        await program.recv()
        tasks.start_soon(program.recv)
        await anyio.wait_all_tasks_blocked()
        await program.aclose()
    assert session.calls == ["kill", "abandon"]
    assert program.exit is not None


async def test_a_new_deadline_gets_past_a_recv_that_waits() -> None:
    session = ScriptedSession(STARTED)
    program = on(session, deadline=anyio.current_time() + 1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(program.collect)
        await session.wait_for(("deadline", 0))
        await anyio.wait_all_tasks_blocked()
        assert session.flushed == 1
        session.say(exited())


async def test_a_session_that_was_attached_to_does_not_know_its_timeout() -> None:
    program = handle(STARTED, exited(-1, 9, timed_out=True), leave=Leave.DETACHES)
    with pytest.raises(ExecTimeoutError, match=r"at its timeout$") as caught:
        await program.wait()
    assert caught.value.timeout is None
