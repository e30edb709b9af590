"""Programs in the guest: the handle of one, its events, and its collected output. anyio only.

A handle owns no task. Whoever awaits `recv`, `wait` or `collect` moves the program along; output that nobody takes
stops the program when its 256 KiB of credit are used up, and stops nothing else.
"""

from __future__ import annotations

import enum
from types import TracebackType

import anyio
import attrs

from trio_sandbox.client.options import Stdin, StdinMode
from trio_sandbox.client.session_end import end_session
from trio_sandbox.client.transport import ProgramSession
from trio_sandbox.errors import ExecFailedError, ExecTimeoutError
from trio_sandbox.relay.events import DataReceived, MessageReceived
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import Exited, Failed, Started, StdinClosed


@attrs.frozen
class ExitStatus:
    """An exit code, and whether it is 0. 128 + n for a program that signal n ended, as shells have it."""

    code: int
    success: bool


@attrs.frozen
class ExecOutput:
    """What a program wrote, and how it ended.

    exit_code: its own, or 128 + n when signal n ended it; `signal` is then n, else None.
    """

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes
    signal: int | None = None

    @property
    def success(self) -> bool:
        return self.exit_code == 0

    @property
    def stdout_text(self) -> str:
        """Strict UTF-8: raises UnicodeDecodeError for bytes that are not."""
        return self.stdout_bytes.decode()

    @property
    def stderr_text(self) -> str:
        """Strict UTF-8: raises UnicodeDecodeError for bytes that are not."""
        return self.stderr_bytes.decode()


class ExecEventType(enum.StrEnum):
    STARTED = "started"
    STDOUT = "stdout"
    STDERR = "stderr"
    EXITED = "exited"
    FAILED = "failed"
    STDIN_ERROR = "stdin_error"


@attrs.frozen
class ExecEvent:
    """STARTED has `pid`; STDOUT and STDERR `data`; EXITED `code` and, when a signal ended it, `signal`; FAILED and
    STDIN_ERROR a message in `data` and the guest's errno in `code`."""

    event_type: ExecEventType
    pid: int | None = None
    data: bytes | None = None
    code: int | None = None
    signal: int | None = None


class ExecSink:
    """The program's standard input. Taken once from its handle."""

    def __init__(self, session: ProgramSession) -> None:
        self._session = session

    async def write(self, data: bytes) -> None:
        """Send bytes, waiting while the program does not read. Raises BrokenPipeError when it takes no more.

        Cancellation: an unknown part of `data` was sent.
        """
        await self._session.send_stdin(data)

    async def close(self) -> None:
        """Send the end of input. Harmless when it was sent before."""
        await anyio.lowlevel.checkpoint()
        self._session.close_stdin()


_OUTPUT = {FrameType.STDOUT: ExecEventType.STDOUT, FrameType.STDERR: ExecEventType.STDERR}


class ExecHandle:
    """One running program: an async iterator of ExecEvent, and an async context manager that kills it on leaving.

    Not for two receivers at once.
    """

    def __init__(self, session: ProgramSession, stdin: Stdin, timeout: float | None) -> None:
        self._session = session
        self._timeout = timeout
        self._sink = ExecSink(session) if stdin.mode is StdinMode.PIPE else None
        self._end: Exited | None = None
        self._failure: Failed | None = None
        self._stdout = bytearray()
        self._stderr = bytearray()
        if stdin.mode is StdinMode.BYTES:
            session.feed(stdin.data)

    @property
    def id(self) -> str:
        """The session's number in its sandbox, as text."""
        return str(self._session.id)

    def take_stdin(self) -> ExecSink | None:
        """The program's standard input, once; None afterwards, and when it is not `Stdin.pipe()`."""
        sink, self._sink = self._sink, None
        return sink

    async def recv(self) -> ExecEvent | None:
        """The next event, None after the last. Raises SandboxCrashedError or SandboxNotRunningError when the machine
        ends first.

        Cancellation: no effect.
        """
        if self._end is not None or self._failure is not None:
            await anyio.lowlevel.checkpoint()
            return None
        return self._translate(await self._session.receive())

    def _translate(self, event: MessageReceived | DataReceived) -> ExecEvent:
        if isinstance(event, DataReceived):
            return ExecEvent(_OUTPUT[event.type], data=event.data)
        match event.message:
            case Started(pid):
                return ExecEvent(ExecEventType.STARTED, pid=pid)
            case Exited() as end:
                self._end = end
                return ExecEvent(ExecEventType.EXITED, code=exit_code(end), signal=end.signal or None)
            case Failed(_, errno, message) as failure:
                self._failure = failure
                return ExecEvent(ExecEventType.FAILED, data=message.encode(), code=errno or None)
            case StdinClosed(errno):
                return ExecEvent(ExecEventType.STDIN_ERROR, data=b"the program closed its input", code=errno or None)
            case other:
                return ExecEvent(ExecEventType.STDIN_ERROR, data=f"the agent said {other}".encode())

    def __aiter__(self) -> ExecHandle:
        return self

    async def __anext__(self) -> ExecEvent:
        event = await self.recv()
        if event is None:
            raise StopAsyncIteration
        return event

    async def wait(self) -> tuple[int, bool]:
        """Wait for the end, dropping output: (exit code, success). May be called again.

        Raises ExecFailedError when the program never started, ExecTimeoutError at its timeout. Cancellation: no effect
        on the program.
        """
        while await self.recv() is not None:
            pass
        end = self._ended()
        return exit_code(end), exit_code(end) == 0

    async def collect(self) -> ExecOutput:
        """Wait for the end, keeping the output that `recv` has not returned before. May be called again.

        Raises ExecFailedError, ExecTimeoutError (with the output so far). Cancellation: no effect on the program; call
        it again.
        """
        while (event := await self.recv()) is not None:
            if event.event_type is ExecEventType.STDOUT:
                self._stdout += event.data or b""
            elif event.event_type is ExecEventType.STDERR:
                self._stderr += event.data or b""
        end = self._ended()
        return ExecOutput(exit_code(end), bytes(self._stdout), bytes(self._stderr), end.signal or None)

    def _ended(self) -> Exited:
        if self._failure is not None:
            raise ExecFailedError(self._failure.kind, self._failure.errno, self._failure.message)
        assert self._end is not None
        if self._end.timed_out:
            raise ExecTimeoutError(self._timeout or 0.0, bytes(self._stdout), bytes(self._stderr))
        return self._end

    async def signal(self, sig: int) -> None:
        """Send a signal to the program's process group. Harmless when it has ended."""
        await anyio.lowlevel.checkpoint()
        if (type(sig) is not int and not isinstance(sig, enum.IntEnum)) or not 0 < sig <= 64:
            raise ValueError(f"{sig!r} is not a signal number")
        self._session.signal(int(sig))

    async def kill(self) -> None:
        """Kill the program and everything that it started. The EXITED event still comes."""
        await anyio.lowlevel.checkpoint()
        self._session.kill()

    async def aclose(self) -> None:
        """Kill the program if it runs, and wait up to 5 s for the guest's word that it is gone; shielded from
        cancellation.
        """
        await end_session(self._session, self.recv)

    async def __aenter__(self) -> ExecHandle:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def exit_code(end: Exited) -> int:
    """A program's exit code, 128 + n for signal n."""
    return 128 + end.signal if end.signal else end.code
