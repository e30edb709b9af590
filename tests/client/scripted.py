"""A session that says what its test wrote down, and a sandbox that opens such sessions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio

from trio_sandbox.client.options import Stdin
from trio_sandbox.client.program import ExecHandle
from trio_sandbox.lifecycle import End
from trio_sandbox.relay.client_messages import (
    Detached,
    MetricsSample,
    Opened,
    SessionInfo,
)
from trio_sandbox.relay.events import DataReceived, MessageReceived, Opener
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Exited,
    Failed,
    Started,
)

SessionEvent = MessageReceived | DataReceived
FINAL = frozenset({FrameType.EXITED, FrameType.FAILED, FrameType.DETACHED})


def exited(code: int = 0, signal: int = 0, timed_out: bool = False, **facts: Any) -> MessageReceived:
    usual = {"core": False, "held_open": False, "utime_us": 0, "stime_us": 0, "maxrss_kib": 0}
    return MessageReceived(FrameType.EXITED, 1, 0, Exited(code, signal, timed_out=timed_out, **{**usual, **facts}))


def failed(kind: str, errno: int = 0, message: str = "no") -> MessageReceived:
    return MessageReceived(FrameType.FAILED, 1, 0, Failed(kind, errno, message))


def out(data: bytes) -> DataReceived:
    return DataReceived(FrameType.STDOUT, 1, data)


STARTED = MessageReceived(FrameType.STARTED, 1, 0, Started(7))
OPENED = MessageReceived(FrameType.OPENED, 1, 0, Opened(41, 16_384, 16_384, 16_384))
DETACHED = MessageReceived(FrameType.DETACHED, 1, 0, Detached(41))
OUT = out(b"out")
ERR = DataReceived(FrameType.STDERR, 1, b"err")


class ScriptedSession:
    """Delivers its events, then what its test says, then what a kill or a detach brings, then waits for ever.

    As behind a connection, what is asked for goes out with `flush`, or with the next `receive` that begins. `calls` is
    all that the client asked for, in order. An exception among the events is raised.
    """

    def __init__(
        self,
        *events: SessionEvent | Exception,
        after_kill: SessionEvent | None = None,
        after_detach: SessionEvent | None = DETACHED,
    ) -> None:
        self.id = 1
        self.session_id = 41
        self.over = False
        self.stdin_open = True
        self.events = deque(events)
        self.after_kill = after_kill
        self.after_detach = after_detach
        self.calls: list[object] = []
        self.flushed = 0
        """How many of them were sent."""
        self._answers: list[SessionEvent] = []
        self.on_call: Callable[[object], None] = lambda call: None
        self._changed = anyio.Event()

    def say(self, *events: SessionEvent | Exception) -> None:
        """The guest says something now."""
        self.events.extend(events)
        self._changed.set()

    def _called(self, call: object) -> None:
        self.calls.append(call)
        self._changed.set()
        self.on_call(call)

    async def wait_for(self, call: object) -> None:
        """Wait until the client has asked for this."""
        while call not in self.calls:
            await self._next_change()

    async def wait_for_input(self, data: bytes) -> None:
        """Wait until the client has sent these bytes, however cut, and nothing else."""
        while (sent := self.sent()) != data:
            assert data.startswith(sent), sent
            await self._next_change()

    async def _next_change(self) -> None:
        if self._changed.is_set():
            self._changed = anyio.Event()
        await self._changed.wait()

    def sent(self) -> bytes:
        return b"".join(call[1] for call in self.calls if isinstance(call, tuple) and call[0] == "send")

    async def receive(self) -> SessionEvent:
        await anyio.lowlevel.checkpoint()
        self._send()
        while not self.events:
            await self._next_change()
        event = self.events.popleft()
        if isinstance(event, Exception):
            raise event
        self.over = event.type in FINAL
        return event

    def feed(self, data: bytes) -> None:
        self._called(("feed", data))

    async def send_stdin(self, data: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if not self.stdin_open:
            raise BrokenPipeError
        self._called(("send", data))

    def close_stdin(self) -> None:
        self._called("close")

    def signal(self, number: int) -> None:
        self._called(("signal", number))

    async def flush(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._send()

    def _send(self) -> None:
        self.flushed = len(self.calls)
        answers, self._answers = self._answers, []
        if answers:
            self.say(*answers)

    def resize(self, rows: int, cols: int) -> None:
        self._called(("resize", rows, cols))

    def set_deadline(self, ms: int) -> None:
        self._called(("deadline", ms))

    def detach(self) -> None:
        self._called("detach")
        if self.after_detach is not None:
            self._answers.append(self.after_detach)

    def kill(self) -> None:
        self._called("kill")
        if self.after_kill is not None:
            self._answers.append(self.after_kill)

    def abandon(self) -> None:
        self._called("abandon")


class ScriptedControl:
    """A sandbox whose sessions are scripted; `requests` is what was opened."""

    def __init__(self, *sessions: ScriptedSession, env: Mapping[str, str] | None = None) -> None:
        self.scripts = deque(sessions)
        self.name = "scripted"
        self.shell = "/bin/sh"
        self.addresses = ()
        self.token = None
        self.console = ""
        self.timings: Mapping[str, float] = {}
        self.base_env = {"PATH": "/bin", **(env or {})}
        self.default_workdir = "/"
        self.default_words: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self.default_user = ""
        self.requests: list[Any] = []

    def find_logs(self) -> Path:
        raise NotImplementedError

    def open_session(self, request: Opener) -> ScriptedSession:
        self.requests.append(request)
        return self.scripts.popleft()

    async def ping(self) -> None:
        raise NotImplementedError

    async def sessions(self) -> tuple[SessionInfo, ...]:
        raise NotImplementedError

    owns_lifecycle = False
    must_be_ended = False

    async def metrics(self) -> MetricsSample:
        raise NotImplementedError

    async def leave(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def remove(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def drain(self, timeout: float | None) -> None:
        await anyio.lowlevel.checkpoint()

    async def pause(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def resume(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def touch(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def stop(self, timeout: float) -> None:
        raise NotImplementedError

    async def kill(self) -> None:
        raise NotImplementedError

    def fork_source(self) -> AbstractAsyncContextManager[dict[str, Any]]:
        raise NotImplementedError

    async def wait(self) -> End:
        raise NotImplementedError

    async def release(self) -> None:
        raise NotImplementedError


def handle(*events: SessionEvent | Exception, **options: Any) -> ExecHandle:
    """A program whose guest says `events`."""
    return on(ScriptedSession(*events), **options)


def on(session: ScriptedSession, **options: Any) -> ExecHandle:
    """The program of a session, without input unless `options` say otherwise."""
    return ExecHandle(session, options.pop("stdin", Stdin.null()), options.pop("timeout", None), **options)
