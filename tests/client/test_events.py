"""Emitting and subscribing over a scripted session, on both backends."""

from __future__ import annotations

from collections import deque
from typing import Any, cast

import anyio
import pytest

from trio_sandbox.client import session_end
from trio_sandbox.client.event_lines import Event
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.client.transport import SandboxControl
from trio_sandbox.errors import ExecFailedError, RemoteProtocolError, SandboxNotRunningError
from trio_sandbox.relay.events import DataReceived, MessageReceived, Opener
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Done,
    Emit,
    Failed,
    StdinClosed,
    Subscribe,
)
from trio_sandbox.relay.states import FINAL

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def out(data: bytes) -> DataReceived:
    return DataReceived(FrameType.STDOUT, 1, data)


def done(**fields: Any) -> MessageReceived:
    return MessageReceived(FrameType.DONE, 1, 0, Done(**fields))


REFUSED = MessageReceived(FrameType.FAILED, 1, 0, Failed("too_many_sessions", 11, "too many subscriptions are open"))
CLOSED = MessageReceived(FrameType.STDIN_CLOSED, 1, 0, StdinClosed(0))


class ScriptedSession:
    """Delivers its events, then what a kill brings, then waits for ever."""

    def __init__(self, *events: MessageReceived | DataReceived, obedient: bool = True) -> None:
        self.over = False
        self.events = deque(events)
        self.obedient = obedient
        self.calls: list[str] = []

    async def receive(self) -> MessageReceived | DataReceived:
        await anyio.lowlevel.checkpoint()
        if not self.events:
            await anyio.sleep_forever()
        event = self.events.popleft()
        self.over = event.type in FINAL
        return event

    def kill(self) -> None:
        self.calls.append("kill")
        if self.obedient:
            self.events.append(done())

    def abandon(self) -> None:
        self.calls.append("abandon")


class ScriptedControl:
    """A sandbox with sessions prepared, that keeps what they were opened with."""

    def __init__(self, *sessions: ScriptedSession) -> None:
        self.sessions = deque(sessions)
        self.owns_lifecycle = False
        self.must_be_ended = False
        self.requests: list[Opener | str] = []

    async def ping(self) -> None:
        self.requests.append("ping")
        await anyio.lowlevel.checkpoint()

    def open_session(self, request: Opener) -> ScriptedSession:
        self.requests.append(request)
        if not self.sessions:
            raise SandboxNotRunningError("gone")
        return self.sessions.popleft()


def sandbox(*sessions: ScriptedSession) -> tuple[Sandbox, ScriptedControl]:
    control = ScriptedControl(*sessions)
    return Sandbox(cast(SandboxControl, control)), control


async def test_emit_says_how_many_listen() -> None:
    session = ScriptedSession(done(count=3))
    sb, control = sandbox(session)
    assert await sb.emit("go.now", {"n": [1, "é"]}) == 3
    assert control.requests == [Emit("go.now", '{"n":[1,"é"]}'.encode())]
    assert session.calls == []


async def test_emit_checks_before_anything_is_sent() -> None:
    sb, control = sandbox()
    for name, payload, error in [
        ("no name", 1, ValueError),
        ("a", object(), TypeError),
        ("a", "x" * 70_000, ValueError),
    ]:
        with pytest.raises(error):
            await sb.emit(name, payload)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await sb.emit("a", 1)
    assert control.requests == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (REFUSED, ExecFailedError),
        (done(errno=5, message="broken"), ExecFailedError),
        (done(errno=-1), RemoteProtocolError),
        (done(count=-1), RemoteProtocolError),
        (out(b"a 1\n"), RemoteProtocolError),
        (CLOSED, RemoteProtocolError),
    ],
)
async def test_emit_that_goes_wrong_leaves_no_session(answer: Any, error: type[Exception]) -> None:
    session = ScriptedSession(answer)
    sb, _ = sandbox(session)
    with pytest.raises(error):
        await sb.emit("a", 1)
    assert session.over or session.calls == ["abandon"]


async def test_a_cancelled_emit_leaves_no_session() -> None:
    session = ScriptedSession()
    sb, _ = sandbox(session)
    with anyio.move_on_after(0.01) as scope:
        await sb.emit("a", 1)
    assert scope.cancelled_caught
    assert session.calls == ["abandon"]


async def test_events_in_a_block() -> None:
    session = ScriptedSession(out(b'a 1\n! 2\nb {"x'), out(b'": null}\n'))
    sb, control = sandbox(session)
    async with sb.events() as stream:
        assert control.requests == [Subscribe("", True, 65_536), "ping"]
        assert await anext(stream) == Event("a", 1)
        assert stream.dropped == 0
        assert await anext(stream) == Event("b", {"x": None}, dropped=2)
        assert stream.dropped == 2
    assert session.calls == ["kill", "abandon"]
    assert session.over
    assert [event async for event in stream] == []


async def test_events_without_a_block_begin_at_first_use() -> None:
    session = ScriptedSession(out(b"p 1\n"), out(b"p 2\n"), out(b"! 7\n"), done())
    sb, control = sandbox(session)
    stream = sb.events("p", overflow="drop_newest", buffer_bytes=16_384)
    assert control.requests == []
    assert [event.payload async for event in stream] == [1, 2]
    assert control.requests == [Subscribe("p", False, 16_384)]
    assert stream.dropped == 7
    assert [event async for event in stream] == []
    await stream.aclose()
    assert session.calls == []


async def test_closing_twice_and_before_use() -> None:
    session = ScriptedSession(out(b"a 1\na 2\n"))
    sb, control = sandbox(session)
    unused = sb.events()
    await unused.aclose()
    assert [event async for event in unused] == []
    assert control.requests == []
    used = sb.events()
    async for _ in used:
        break
    await used.aclose()
    await used.aclose()
    assert session.calls == ["kill", "abandon"]
    assert [event async for event in used] == []


async def test_a_guest_that_does_not_end_a_subscription(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_end, "KILL_TIMEOUT", 0.01)
    session = ScriptedSession(obedient=False)
    sb, _ = sandbox(session)
    async with sb.events():
        pass
    assert session.calls == ["kill", "abandon"]


@pytest.mark.parametrize("script", [(out(b"a 1\n!\n"),), (CLOSED,), (out(b"a 1\na"), done()), (done(count=-1),)])
async def test_a_guest_that_says_what_are_no_events(script: tuple[Any, ...]) -> None:
    session = ScriptedSession(*script)
    sb, _ = sandbox(session)
    stream = sb.events()
    with pytest.raises(RemoteProtocolError):
        async for event in stream:
            assert event == Event("a", 1)
    assert session.calls == ["abandon"]
    assert [event async for event in stream] == []
    await stream.aclose()
    assert session.calls == ["abandon"]


@pytest.mark.parametrize("end", [REFUSED, done(errno=12, message="no memory")])
async def test_a_guest_that_refuses(end: MessageReceived) -> None:
    session = ScriptedSession(end)
    sb, _ = sandbox(session)
    async with sb.events() as stream:
        with pytest.raises(ExecFailedError):
            await anext(stream)
        assert [event async for event in stream] == []
    assert session.calls == []


async def test_a_machine_that_is_gone() -> None:
    sb, _ = sandbox()
    with pytest.raises(SandboxNotRunningError):
        await anext(sb.events())
    with pytest.raises(SandboxNotRunningError):
        async with sb.events():
            pass


async def test_a_cancelled_receive_loses_nothing() -> None:
    session = ScriptedSession(out(b"a 1\na"))
    sb, _ = sandbox(session)
    stream = sb.events()
    assert await anext(stream) == Event("a", 1)
    with anyio.move_on_after(0.01) as scope:
        await anext(stream)
    assert scope.cancelled_caught
    session.events += [out(b" 2\na 3\n"), done()]
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anext(stream)
    assert scope.cancelled_caught
    assert [event.payload async for event in stream] == [2, 3]


async def test_a_cancel_while_the_block_is_entered_leaves_no_session() -> None:
    session = ScriptedSession()
    sb, _ = sandbox(session)
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with sb.events():
            raise AssertionError("the block is not entered")
    assert session.calls == ["kill", "abandon"]


async def test_many_events_in_one_piece_let_others_run() -> None:
    sb, _ = sandbox(ScriptedSession(out(b"a 1\n" * 100), done()))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        assert len([event async for event in sb.events()]) == 100
        group.cancel_scope.cancel()
    assert turns >= 100


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": ""}, ValueError),
        ({"name": "a b"}, ValueError),
        ({"name": 1}, TypeError),
        ({"overflow": "block"}, ValueError),
        ({"overflow": []}, ValueError),
        ({"buffer_bytes": 16_383}, ValueError),
        ({"buffer_bytes": 262_145}, ValueError),
        ({"buffer_bytes": 65_536.0}, TypeError),
        ({"buffer_bytes": True}, TypeError),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception]) -> None:
    sb, _ = sandbox()
    with pytest.raises(error):
        sb.events(**arguments)
