"""A person at a terminal, attached to a scripted program."""

from __future__ import annotations

import copy
import os
import signal
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest

from tests.client.ptys import Person, person
from tests.client.scripted import DETACHED, STARTED, ScriptedControl, ScriptedSession, exited, failed, out
from trio_sandbox.client import attach as attach_module
from trio_sandbox.client import session_end
from trio_sandbox.client.attach import AttachResult
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.errors import ExecFailedError, SandboxCrashedError, TerminalError
from trio_sandbox.relay.client_messages import (
    Attach,
)
from trio_sandbox.relay.messages import (
    Exec,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def somebody() -> Iterator[Person]:
    with person() as found:
        yield found
        assert found.gone or not found.is_raw()  # whatever the test did


class Scene:
    """One attach that runs beside its test."""

    def __init__(self, session: ScriptedSession, somebody: Person) -> None:
        self.session = session
        self.somebody = somebody
        self.control = ScriptedControl(session)
        self.sandbox = Sandbox(self.control)
        self.result: AttachResult | None = None
        self.error: Exception | None = None
        self.scope = anyio.CancelScope()

    async def attach(self, cmd: str | int = "sh", **options: Any) -> None:
        with self.scope:
            try:
                self.result = await self.sandbox.attach(cmd, terminal=self.somebody.terminal, **options)
            except Exception as error:
                self.error = error

    def outcome(self) -> tuple[int, bool, int]:
        assert self.result is not None, self.error
        return int(self.result), self.result.detached, self.result.session_id


@asynccontextmanager
async def attached(
    somebody: Person, cmd: str | int = "sh", session: ScriptedSession | None = None, **options: Any
) -> AsyncIterator[Scene]:
    """An attach whose program has started and has shown its prompt; the block's end waits for it."""
    scene = Scene(session or ScriptedSession(), somebody)
    somebody.seen.clear()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: scene.attach(cmd, **options))
            scene.session.say(STARTED, out(b"$ "))
            await somebody.wait_to_see(b"$ ")
            assert somebody.is_raw()
            yield scene


async def test_typing_output_and_the_exit_code(somebody: Person) -> None:
    async with attached(somebody) as scene:
        somebody.type(b"l\x03\r")
        await scene.session.wait_for_input(b"l\x03\r")
        scene.session.say(out(b"here\r\n"), exited(3))
    assert scene.outcome() == (3, False, 41)
    assert somebody.look() == b"$ here\r\n"
    assert scene.session.calls == [("send", b"l\x03\r")]


async def test_what_is_asked_for(somebody: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "screen-256color")
    options: dict[str, Any] = {"args": ["-l"], "cwd": "/w", "user": "u", "env": {"A": "1"}}
    async with attached(somebody, "sh", **options) as scene:
        scene.session.say(exited())
    (request,) = scene.control.requests
    assert isinstance(request, Exec)
    assert (request.argv, request.cwd, request.user) == ((b"sh", b"-l"), "/w", "u")
    assert (request.tty, request.stdin, request.rows, request.cols) == (True, True, 30, 100)
    assert (request.detached, request.detachable) == (False, True)
    assert b"TERM=screen-256color" in request.env and b"A=1" in request.env


async def test_the_shell(somebody: Person) -> None:
    session = ScriptedSession(STARTED, exited(4))
    control = ScriptedControl(session)
    assert await Sandbox(control).attach_shell(terminal=somebody.terminal) == 4
    assert control.requests[0].argv == (b"/bin/sh",)


async def test_the_detach_keys_leave_the_program_running(somebody: Person) -> None:
    async with attached(somebody, detach_keys="ctrl-p,ctrl-q") as scene:
        somebody.type(b"a\x10b\x10")
        await scene.session.wait_for_input(b"a\x10b")
        somebody.type(b"\x11late")
    assert scene.outcome() == (0, True, 41)
    assert somebody.look() == b"$ \r\n[detached from session 41]\r\n".replace(b"\r\n", b"\r\r\n")
    assert scene.session.calls[-1] == "detach"
    assert scene.session.sent() == b"a\x10b"


async def test_the_usual_key_and_none(somebody: Person) -> None:
    async with attached(somebody) as scene:
        somebody.type(b"\x1d")
    assert scene.outcome() == (0, True, 41)
    async with attached(somebody, detach_keys="") as scene:
        somebody.type(b"\x1d")
        await scene.session.wait_for_input(b"\x1d")
        scene.session.say(exited())
    assert scene.outcome() == (0, False, 41)


async def test_detaching_from_a_terminal_that_is_stopped(somebody: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach_module, "FAREWELL_TIMEOUT", 0.01)
    async with attached(somebody) as scene:
        termios.tcflow(somebody.slave, termios.TCOOFF)
        scene.session.say(out(b"never shown"))
        await anyio.wait_all_tasks_blocked()
        somebody.type(b"\x1d")
    assert scene.outcome() == (0, True, 41)


async def test_a_program_that_ends_while_it_is_left(somebody: Person) -> None:
    async with attached(somebody, session=ScriptedSession(after_detach=exited(5))) as scene:
        somebody.type(b"\x1d")
    assert scene.outcome() == (5, False, 41)


async def test_attaching_again(somebody: Person) -> None:
    async with attached(somebody, 41) as scene:
        somebody.type(b"x")
        await scene.session.wait_for_input(b"x")
        somebody.type(b"\x1d")
    assert scene.control.requests == [Attach(41, True, rows=31, cols=100)]
    assert scene.session.calls[0] == ("resize", 30, 100)  # a change, and so a new drawing, whatever the size was
    assert scene.outcome() == (0, True, 41)


async def test_a_session_that_is_not_there(somebody: Person) -> None:
    scene = Scene(ScriptedSession(failed("no_such_session")), somebody)
    await scene.attach(5)
    assert isinstance(scene.error, ExecFailedError) and scene.error.kind == "no_such_session"


async def test_the_size_is_followed(somebody: Person) -> None:
    async with attached(somebody) as scene:
        await anyio.wait_all_tasks_blocked()
        somebody.resize(40, 120)
        os.kill(os.getpid(), signal.SIGWINCH)
        await scene.session.wait_for(("resize", 40, 120))
        os.kill(os.getpid(), signal.SIGWINCH)  # nothing new
        scene.session.say(exited())
    assert scene.session.calls == [("resize", 40, 120)]


async def test_a_size_that_changes_while_it_begins(somebody: Person) -> None:
    session = ScriptedSession()
    scene = Scene(session, somebody)
    open_session = scene.control.open_session

    def change(request: Any) -> ScriptedSession:
        somebody.resize(10, 20)
        return open_session(request)

    scene.control.open_session = change  # type: ignore[method-assign]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scene.attach)
        await session.wait_for(("resize", 10, 20))
        session.say(STARTED, exited())
    assert (scene.control.requests[0].rows, scene.control.requests[0].cols) == (30, 100)


async def test_a_terminal_without_a_size(somebody: Person) -> None:
    somebody.resize(0, 0)
    for cmd, size in (("sh", (24, 80)), (41, (0, 0))):
        scene = Scene(ScriptedSession(STARTED, exited()), somebody)
        await scene.attach(cmd)
        (request,) = scene.control.requests
        assert (request.rows, request.cols) == size
        assert scene.session.calls == []


async def test_raw_mode_again_after_having_been_stopped(somebody: Person) -> None:
    before = somebody.modes
    async with attached(somebody) as scene:
        await anyio.wait_all_tasks_blocked()
        termios.tcsetattr(somebody.slave, termios.TCSANOW, before)  # as a shell does when it takes over
        assert not somebody.is_raw()
        somebody.resize(41, 121)
        os.kill(os.getpid(), signal.SIGCONT)
        await scene.session.wait_for(("resize", 41, 121))
        assert somebody.is_raw()
        scene.session.say(exited())


async def test_outside_of_the_main_thread_the_size_stays(somebody: Person) -> None:
    def elsewhere() -> int:
        async def attach() -> int:
            session = ScriptedSession(STARTED, exited(6))
            return await Sandbox(ScriptedControl(session)).attach("sh", terminal=somebody.terminal)

        return anyio.run(attach)

    assert await anyio.to_thread.run_sync(elsewhere) == 6


async def test_a_cancel_restores_the_terminal_before_the_kill_is_confirmed(somebody: Person) -> None:
    raw_at_kill = []
    session = ScriptedSession(after_kill=exited(-1, 9))
    session.on_call = lambda call: raw_at_kill.append(somebody.is_raw()) if call == "kill" else None
    async with attached(somebody, session=session) as scene:
        scene.scope.cancel()
    assert scene.result is None
    assert scene.session.calls == ["kill", "abandon"]
    assert raw_at_kill == [False]


async def test_a_cancel_leaves_a_session_that_was_attached_to_again(somebody: Person) -> None:
    async with attached(somebody, 41) as scene:
        scene.scope.cancel()
    assert scene.session.calls == [("resize", 30, 100), "detach"]


async def test_a_sandbox_that_crashes_raises_its_error_bare(somebody: Person) -> None:
    async with attached(somebody) as scene:
        scene.session.say(SandboxCrashedError("box", "panic"))
        scene.session.say(SandboxCrashedError("box", "panic"))
    assert isinstance(scene.error, SandboxCrashedError)


async def test_a_command_that_is_not_there(somebody: Person) -> None:
    scene = Scene(ScriptedSession(failed("not_found", 2)), somebody)
    await scene.attach("no-such")
    assert isinstance(scene.error, ExecFailedError) and scene.error.kind == "not_found"


async def test_a_program_that_reads_no_more_can_still_be_left(somebody: Person) -> None:
    async with attached(somebody) as scene:
        scene.session.stdin_open = False
        somebody.type(b"x")
        await anyio.wait_all_tasks_blocked()
        somebody.type(b"y\x1d")
    assert scene.outcome() == (0, True, 41)


async def test_a_hang_up_is_told_to_what_was_started_here(somebody: Person) -> None:
    session = ScriptedSession()
    session.on_call = lambda call: session.say(exited(-1, 1)) if call == ("signal", 1) else None
    async with attached(somebody, session=session) as scene:
        somebody.hang_up()
    assert scene.outcome() == (129, False, 41)


async def test_what_ignores_the_hang_up_is_killed(somebody: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_end, "KILL_TIMEOUT", 0.01)
    async with attached(somebody, session=ScriptedSession(after_kill=exited(-1, 9))) as scene:
        somebody.hang_up()
    assert scene.outcome() == (137, False, 41)
    assert scene.session.calls == [("signal", 1), "kill", "abandon"]


async def test_a_hang_up_while_output_comes_is_noticed_too(somebody: Person) -> None:
    session = ScriptedSession()
    session.on_call = lambda call: session.say(out(b"dropped"), exited(-1, 1)) if call == ("signal", 1) else None
    async with attached(somebody, session=session) as scene:
        somebody.hang_up()
        session.say(out(b"nobody sees this"))
    assert scene.outcome() == (129, False, 41)
    assert scene.session.calls.count(("signal", 1)) == 1


async def test_a_hang_up_detaches_from_what_was_attached_to_again(somebody: Person) -> None:
    async with attached(somebody, 41) as scene:
        somebody.hang_up()
    assert scene.outcome() == (0, True, 41)
    assert scene.session.calls == [("resize", 30, 100), "detach"]


WRONG: list[tuple[Callable[[Sandbox], Awaitable[object]], type[Exception], str]] = [
    (lambda sandbox: sandbox.attach("sh", detach_keys="ctrl-1"), ValueError, "ctrl-1"),
    (lambda sandbox: sandbox.attach(41, ["x"]), TypeError, "takes no arguments"),
    (lambda sandbox: sandbox.attach(41, cwd="/"), TypeError, "takes no arguments"),
    (lambda sandbox: sandbox.attach(0), ValueError, "not a session's number"),
    (lambda sandbox: sandbox.attach(True), ValueError, "not a session's number"),
    (lambda sandbox: sandbox.attach("sh", cwd="w"), ValueError, "absolute"),
    (lambda sandbox: sandbox.attach(b"sh"), TypeError, "cmd must be str"),  # type: ignore[arg-type]
    (lambda sandbox: sandbox.attach_session(1 << 32), ValueError, "not a session's number"),
    (lambda sandbox: sandbox.attach("sh"), TerminalError, "cannot attach"),
    (lambda sandbox: sandbox.attach_shell(), TerminalError, "cannot attach"),
    (lambda sandbox: sandbox.attach(41), TerminalError, "cannot attach"),
]


@pytest.mark.parametrize(("call", "error", "words"), WRONG)
async def test_nothing_is_started_for_a_wrong_call_or_without_a_terminal(
    call: Callable[[Sandbox], Awaitable[object]], error: type[Exception], words: str
) -> None:
    control = ScriptedControl(ScriptedSession())
    with pytest.raises(error, match=words):
        await call(Sandbox(control))
    assert control.requests == []


async def test_a_session_is_taken_over_and_left(somebody: Person) -> None:
    session = ScriptedSession(STARTED, out(b"replayed"))
    control = ScriptedControl(session)
    async with await Sandbox(control).attach_session(41, replay=False) as handle:
        sink = handle.take_stdin()
        assert sink is not None
        await sink.write(b"x")
        await handle.resize(24, 80)
        assert [event and event.data for event in (await handle.recv(), await handle.recv())] == [None, b"replayed"]
    assert control.requests == [Attach(41, False)]
    assert session.calls == [("send", b"x"), ("resize", 24, 80), "detach"]
    assert DETACHED not in session.events


async def test_a_session_that_is_busy() -> None:
    with pytest.raises(ExecFailedError) as caught:
        await Sandbox(ScriptedControl(ScriptedSession(failed("session_busy", 16)))).attach_session(41)
    assert caught.value.kind == "session_busy"


async def test_a_cancelled_take_over_detaches() -> None:
    session = ScriptedSession()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Sandbox(ScriptedControl(session)).attach_session, 41)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        session.say(STARTED)
    assert session.calls == ["detach"]


def test_a_result_is_an_exit_code() -> None:
    result = AttachResult(3, detached=False, session_id=9)
    assert result == 3
    assert copy.copy(result).session_id == 9
    assert repr(result) == "AttachResult(3, detached=False, session_id=9)"
