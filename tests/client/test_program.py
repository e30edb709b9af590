"""Program handles over a scripted session, on both backends."""

from __future__ import annotations

from collections import deque
from typing import Any

import anyio
import pytest

from trio_sandbox.client import session_end
from trio_sandbox.client.options import Stdin
from trio_sandbox.client.program import ExecEventType, ExecHandle, exit_code
from trio_sandbox.errors import ExecFailedError, ExecTimeoutError, SandboxNotRunningError
from trio_sandbox.relay.events import DataReceived, MessageReceived
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import Exited, Failed, Started

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def exited(code: int = 0, signal: int = 0, timed_out: bool = False) -> MessageReceived:
    return MessageReceived(FrameType.EXITED, 1, 0, Exited(code, signal, False, timed_out, False, 0, 0, 0))


STARTED = MessageReceived(FrameType.STARTED, 1, 0, Started(7))
OUT = DataReceived(FrameType.STDOUT, 1, b"out")
ERR = DataReceived(FrameType.STDERR, 1, b"err")


class ScriptedSession:
    """Delivers its events, then what a kill brings, then waits for ever."""

    def __init__(self, *events: MessageReceived | DataReceived, after_kill: MessageReceived | None = None) -> None:
        self.id = 1
        self.over = False
        self.stdin_open = True
        self.events = deque(events)
        self.after_kill = after_kill
        self.calls: list[object] = []

    async def receive(self) -> MessageReceived | DataReceived:
        await anyio.lowlevel.checkpoint()
        if not self.events:
            await anyio.sleep_forever()
        event = self.events.popleft()
        self.over = event.type in (FrameType.EXITED, FrameType.FAILED)
        return event

    def feed(self, data: bytes) -> None:
        self.calls.append(("feed", data))

    async def send_stdin(self, data: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        self.calls.append(("send", data))

    def close_stdin(self) -> None:
        self.calls.append("close")

    def signal(self, number: int) -> None:
        self.calls.append(("signal", number))

    async def flush(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.calls.append("flush")

    @property
    def session_id(self) -> int:
        return self.id

    def resize(self, rows: int, cols: int) -> None:
        self.calls.append(("resize", rows, cols))

    def set_deadline(self, ms: int) -> None:
        self.calls.append(("deadline", ms))

    def detach(self) -> None:
        self.calls.append("detach")

    def kill(self) -> None:
        self.calls.append("kill")
        if self.after_kill is not None:
            self.events.append(self.after_kill)

    def abandon(self) -> None:
        self.calls.append("abandon")


def handle(*events: MessageReceived | DataReceived, **options: Any) -> ExecHandle:
    return ExecHandle(ScriptedSession(*events), options.get("stdin", Stdin.null()), options.get("timeout"))


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
    assert exit_code(end) == seen
    output = await handle(STARTED, exited(code, signal)).collect()
    assert (output.exit_code, output.signal) == (seen, signal or None)


async def test_a_timeout_carries_the_output_so_far() -> None:
    program = handle(STARTED, OUT, ERR, exited(-1, 9, timed_out=True), timeout=1.5)
    for _ in range(2):
        with pytest.raises(ExecTimeoutError, match=r"1\.5 s") as caught:
            await program.collect()
        assert (caught.value.stdout, caught.value.stderr) == (b"out", b"err")


async def test_a_program_that_never_started() -> None:
    program = handle(MessageReceived(FrameType.FAILED, 1, 0, Failed("not_found", 2, "no such program")))
    with pytest.raises(ExecFailedError, match="no such program") as caught:
        await program.wait()
    assert (caught.value.kind, caught.value.errno) == ("not_found", 2)


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
    async with ExecHandle(session, Stdin.null(), None):
        pass
    assert session.calls == ["kill", "abandon"]
    assert session.over


async def test_a_cancelled_collect_in_a_block_still_waits_for_it() -> None:
    session = ScriptedSession(STARTED, after_kill=exited(-1, 9))
    with anyio.move_on_after(0.01) as scope:
        async with ExecHandle(session, Stdin.null(), None) as program:
            await program.collect()
    assert scope.cancelled_caught
    assert session.over


async def test_a_guest_that_says_nothing_after_a_kill_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_end, "KILL_TIMEOUT", 0.01)
    session = ScriptedSession(STARTED)
    async with ExecHandle(session, Stdin.null(), None):
        pass
    assert session.calls == ["kill", "abandon"]


async def test_a_machine_that_goes_while_a_block_is_left() -> None:
    class Dying(ScriptedSession):
        async def receive(self) -> MessageReceived | DataReceived:
            await anyio.lowlevel.checkpoint()
            raise SandboxNotRunningError("x")

    async with ExecHandle(Dying(), Stdin.null(), None):
        pass


@pytest.mark.parametrize("number", [0, 65, -1, "TERM", 1.5, True])
async def test_wrong_signals(number: Any) -> None:
    with pytest.raises(ValueError, match="not a signal"):
        await handle().signal(number)
