"""A sandbox without a guest for tests of the client half: it keeps what it is asked, and answers as the test says."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import anyio
import attrs

from trio_sandbox.errors import SandboxError
from trio_sandbox.relay.events import DataReceived, MessageReceived
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Done,
    Failed,
    FileStatus,
    Fs,
    StdinClosed,
)

Event = MessageReceived | DataReceived
STATUS = FileStatus(0o100644, 5, 1, 2, 1, 77, 3, 0, 1_500_000, 2_500_000, 3_500_000, 0)


def out(data: bytes) -> Event:
    return DataReceived(FrameType.STDOUT, 1, data)


def done(errno: int = 0, **fields: object) -> Event:
    return MessageReceived(FrameType.DONE, 1, 0, Done(errno=errno, **fields))  # type: ignore[arg-type]


def failed(kind: str, errno: int = 0) -> Event:
    return MessageReceived(FrameType.FAILED, 1, 0, Failed(kind, errno, f"it is {kind}"))


STDIN_CLOSED: Event = MessageReceived(FrameType.STDIN_CLOSED, 1, 0, StdinClosed(32))


@attrs.define
class Answer:
    """What a session says at once, once its input has ended, and once it is killed."""

    events: Sequence[Event] = ()
    after_input: Callable[[bytes], Sequence[Event]] = lambda _: ()
    after_kill: Sequence[Event] = (done(125),)


class FakeSession:
    """A session that plays an Answer, and keeps what it was told."""

    def __init__(self, answer: Answer) -> None:
        self.id = 1
        self.session_id = 1
        self.over = False
        self.stdin_open = True
        self.killed = self.abandoned = False
        self.input = bytearray()
        self._answer = answer
        self._events: deque[Event] = deque()
        self._news = anyio.Event()
        self._say(answer.events)

    def _say(self, events: Sequence[Event]) -> None:
        self._events.extend(events)
        if any(event.type in (FrameType.DONE, FrameType.FAILED, FrameType.STDIN_CLOSED) for event in events):
            self.stdin_open = False
        self._news.set()

    async def receive(self) -> Event:
        await anyio.lowlevel.checkpoint()
        while not self._events:
            self._news = anyio.Event()
            await self._news.wait()
        event = self._events.popleft()
        self.over = event.type in (FrameType.DONE, FrameType.FAILED)
        return event

    def feed(self, data: bytes) -> None:
        self.input += data
        self.close_stdin()

    async def send_stdin(self, data: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if not self.stdin_open:
            raise BrokenPipeError
        self.input += data

    def close_stdin(self) -> None:
        if self.stdin_open:
            self.stdin_open = False
            self._say(self._answer.after_input(bytes(self.input)))

    def kill(self) -> None:
        if not self.over:
            self.killed = True
            self._say(self._answer.after_kill)

    async def flush(self) -> None:
        await anyio.lowlevel.checkpoint()

    def abandon(self) -> None:
        self.abandoned = True

    def signal(self, number: int) -> None:
        raise AssertionError("no file operation is sent a signal")

    def resize(self, rows: int, cols: int) -> None:
        raise AssertionError("no file operation has a terminal")

    def set_deadline(self, ms: int) -> None:
        raise AssertionError("a file operation's deadline comes with its request")

    def detach(self) -> None:
        raise AssertionError("no file operation is detached from")


class FakeControl:
    """A sandbox whose sessions answer in turn; the last answer is for all further ones."""

    def __init__(self, *answers: Answer | Sequence[Event]) -> None:
        self._answers = deque(answer if isinstance(answer, Answer) else Answer(answer) for answer in answers)
        self.requests: list[Fs] = []
        self.opened: list[FakeSession] = []
        self.refusal: SandboxError | None = None
        self.default_workdir = "/base"
        self.default_user = "worker"

    def open_session(self, request: object) -> FakeSession:
        if self.refusal is not None:
            raise self.refusal
        assert isinstance(request, Fs)
        self.requests.append(request)
        answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        session = FakeSession(answer)
        self.opened.append(session)
        return session
