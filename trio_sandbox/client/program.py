"""Programs in the guest: the handle of one, and its standard input. anyio only.

A handle owns no task. Whoever awaits `recv`, `wait` or `collect` moves the program along; output that nobody takes
stops the program when its 256 KiB of credit are used up, and stops nothing else.

The guest kills a program a little after the scope that it was started in has expired (client/deadlines.py). A handle
that is used in a scope which ends later, or in none, takes the program along: entering it, `recv`, `wait` and `collect`
tell the guest the later end. A program that nobody looks at before the first scope ends is killed; start it detached,
or outside of the scope.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from types import TracebackType

import anyio
import attrs

from trio_sandbox.client.deadlines import GuestDeadline
from trio_sandbox.client.options import Stdin, StdinMode, check_size
from trio_sandbox.client.outcome import ExecEvent, ExecEventType, ExecOutput, ExitStatus
from trio_sandbox.client.session_end import end_session, wait_for_end
from trio_sandbox.client.transport import ProgramSession
from trio_sandbox.errors import ExecFailedError, ExecTimeoutError, LocalProtocolError
from trio_sandbox.relay.client_messages import (
    Detached,
    Opened,
)
from trio_sandbox.relay.events import DataReceived, MessageReceived
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Exited,
    Failed,
    Started,
    StdinClosed,
)

WAIT_KEEPS = 65_536
"""Bytes of each stream that `wait` keeps of what it drops, for the error of a `timeout=`."""


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
        """Send the end of input; to a terminal, its end-of-file character. Harmless when it was sent before."""
        self._session.close_stdin()
        await self._session.flush()


_OUTPUT = {FrameType.STDOUT: ExecEventType.STDOUT, FrameType.STDERR: ExecEventType.STDERR}


@attrs.define(eq=False)
class _Output:
    """Both streams; of each, what is over `limit` is forgotten from its beginning."""

    limit: int | None = None
    stdout: bytearray = attrs.Factory(bytearray)
    stderr: bytearray = attrs.Factory(bytearray)

    def add(self, event: ExecEvent) -> None:
        if event.event_type not in (ExecEventType.STDOUT, ExecEventType.STDERR):
            return
        stream = self.stdout if event.event_type is ExecEventType.STDOUT else self.stderr
        stream += event.data or b""
        if self.limit is not None:
            del stream[: -self.limit]


class Leave(enum.Enum):
    """What leaving a handle's block means for its program."""

    KILLS = "kills"
    MAY_DETACH = "may detach"
    """It kills, but for a program that was detached from."""
    DETACHES = "detaches"


class ExecHandle:
    """One running program: an async iterator of ExecEvent, and an async context manager. Leaving its block kills the
    program, or detaches from it when it was started with `detached=True`.

    Several tasks may use it at once: each event goes to one of them, and the end to all.
    """

    def __init__(
        self,
        session: ProgramSession,
        stdin: Stdin,
        timeout: float | None,
        *,
        deadline: float = math.inf,
        tty: bool = False,
        leave: Leave = Leave.KILLS,
    ) -> None:
        """deadline: what the session was opened with, on anyio's clock. tty: it may have a terminal."""
        self._session = session
        self._timeout = timeout
        self._deadline = GuestDeadline(session, deadline)
        self._tty = tty
        self._leave_means = leave
        self._receiving = anyio.Lock(fast_acquire=True)
        self._sink = ExecSink(session) if stdin.mode is StdinMode.PIPE else None
        self._pid: int | None = None
        self._exit: ExitStatus | None = None
        self._failure: Failed | None = None
        self._peeked: deque[ExecEvent] = deque()
        self._leaving = False
        self._left = False
        self._collecting = 0
        self._kept = _Output()
        self._dropped = _Output(WAIT_KEEPS)
        if stdin.mode is StdinMode.BYTES:
            session.feed(stdin.data)

    @property
    def id(self) -> str:
        """The session's number on this connection, as text."""
        return str(self._session.id)

    @property
    def session_id(self) -> int:
        """The session's number in the sandbox, for `Sandbox.attach_session`. Known once it has started."""
        return self._session.session_id

    @property
    def pid(self) -> int | None:
        """The program's process id in the guest; None until its STARTED was received."""
        return self._pid

    @property
    def exit(self) -> ExitStatus | None:
        """How it ended; None until its EXITED was received."""
        return self._exit

    @property
    def detached(self) -> bool:
        """Whether the session goes on without this handle."""
        return self._left

    def take_stdin(self) -> ExecSink | None:
        """The program's standard input, once; None afterwards, and when it is not `Stdin.pipe()`."""
        sink, self._sink = self._sink, None
        return sink

    async def send_request(self) -> None:
        """See the request to start it on its way. Cancellation: it is killed, as `aclose` kills it."""
        try:
            await self._session.flush()
        except BaseException:
            await end_session(self._session, self._last)  # noqa: ASYNC102, ASYNC120 - shielded and timed within
            raise

    # -- what it says

    async def recv(self) -> ExecEvent | None:
        """The next event, None after the last. Raises SandboxCrashedError or SandboxNotRunningError when the machine
        ends first.

        Cancellation: no effect.
        """
        await self._use()
        return await self._next()

    async def _use(self) -> None:
        """Called where the caller's scopes are those that the program is to live in."""
        if self._deadline.renew():
            await self._session.flush()

    async def wait_until_started(self) -> int:
        """Wait until the program runs, and return its `pid`; its STARTED still comes.

        Raises ExecFailedError when it cannot be started. Cancellation: no effect.
        """
        await self._use()
        async with self._receiving:
            while self._pid is None and (event := await self._read()) is not None:
                self._peeked.append(event)
        await anyio.lowlevel.checkpoint()
        if self._pid is None:
            self._result()
        assert self._pid is not None
        return self._pid

    async def _next(self) -> ExecEvent | None:
        """As `recv`, for whoever ends the program: no use of the handle."""
        async with self._receiving:
            if not self._peeked:
                return await self._read()
            await anyio.lowlevel.checkpoint()
            return self._peeked.popleft()

    async def _read(self) -> ExecEvent | None:
        while not self._over:
            if (event := self._translate(await self._session.receive())) is not None:
                return event
        await anyio.lowlevel.checkpoint()
        return None

    @property
    def _over(self) -> bool:
        return self._exit is not None or self._failure is not None or self._left

    def _translate(self, event: MessageReceived | DataReceived) -> ExecEvent | None:
        if isinstance(event, DataReceived):
            return ExecEvent(_OUTPUT[event.type], data=event.data)
        match event.message:
            case Started(pid):
                self._pid = pid
                if self._leaving:
                    self._leave()
                return ExecEvent(ExecEventType.STARTED, pid=pid)
            case Exited() as end:
                self._exit = status = ExitStatus.of(end)
                return ExecEvent(ExecEventType.EXITED, code=status.code, signal=status.signal, exit=status)
            case Failed(_, errno, message) as failure:
                self._failure = failure
                return ExecEvent(ExecEventType.FAILED, data=message.encode(), code=errno or None)
            case StdinClosed(errno):
                return ExecEvent(ExecEventType.STDIN_ERROR, data=b"the program closed its input", code=errno or None)
            case Opened():
                return None
            case Detached():
                self._left = True
                return None
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

        Raises ExecFailedError when the program never started, ExecTimeoutError at its timeout (with the last 64 KiB of
        each stream), LocalProtocolError when it was detached from. Cancellation: no effect on the program.
        """
        while (event := await self.recv()) is not None:
            self._take(event)
        status = self._result()
        return status.code, status.success

    async def collect(self) -> ExecOutput:
        """Wait for the end, keeping the output that `recv` has not returned and `wait` not dropped before. May be
        called again.

        Raises as `wait`, ExecTimeoutError with all the output so far. Cancellation: no effect on the program; what was
        collected is there when it is called again.
        """
        self._collecting += 1
        try:
            while (event := await self.recv()) is not None:
                self._take(event)
        finally:
            self._collecting -= 1
        status = self._result()
        return ExecOutput(
            exit_code=status.code,
            stdout_bytes=bytes(self._kept.stdout),
            stderr_bytes=bytes(self._kept.stderr),
            signal=status.signal,
            pid=self._pid,
            core_dumped=status.core_dumped,
            held_open=status.held_open,
            usage=status.usage,
        )

    def _take(self, event: ExecEvent) -> None:
        """Keep output while anybody collects: a `wait` beside it takes nothing away."""
        if self._collecting:
            self._kept.add(event)
        elif self._timeout is not None:
            self._dropped.add(event)

    def _result(self) -> ExitStatus:
        if self._failure is not None:
            raise ExecFailedError(self._failure.kind, self._failure.errno, self._failure.message)
        if self._exit is None:
            raise LocalProtocolError(
                f"detached from session {self.session_id}, which goes on: attach_session({self.session_id}) returns it"
            )
        if self._exit.timed_out:
            kept, dropped = self._kept, self._dropped
            raise ExecTimeoutError(
                self._timeout, bytes(kept.stdout + dropped.stdout), bytes(kept.stderr + dropped.stderr)
            )
        return self._exit

    # -- what it is told

    async def signal(self, sig: int) -> None:
        """Send a signal to the program's process group. Harmless when it has ended."""
        if (type(sig) is not int and not isinstance(sig, enum.IntEnum)) or not 0 < sig <= 64:
            raise ValueError(f"{sig!r} is not a signal number")
        self._session.signal(int(sig))
        await self._session.flush()

    async def resize(self, rows: int, cols: int) -> None:
        """Give the program's terminal another size, 1 to 65,535 each; the program gets SIGWINCH. Works beside a `recv`
        that waits. Harmless when it has ended.

        Raises ValueError, and LocalProtocolError for a program that was started without a terminal.
        """
        if not self._tty:
            raise LocalProtocolError("resize() needs a program with a terminal: start it with tty=True")
        self._session.resize(check_size("rows", rows), check_size("cols", cols))
        await self._session.flush()

    async def kill(self) -> None:
        """Kill the program and everything that it started. The EXITED event still comes."""
        self._session.kill()
        await self._session.flush()

    # -- how it is left

    async def detach(self) -> int:
        """Leave the program running without us, and return the session's number for `Sandbox.attach_session`.

        Only for what was started with `detached=True` or attached to: LocalProtocolError for any other. The output that
        was not received is dropped here; the sandbox keeps the newest 64 KiB. Input of `Stdin.bytes` that was not sent
        yet is not sent. A program that ended meanwhile has its `exit`. Raises ExecFailedError when it never started.
        Cancellation: leaving the handle's block detaches all the same.
        """
        self.ask_to_detach()
        await self._session.flush()
        while await self._next() is not None:
            pass
        if self._failure is not None:
            self._result()
        return self.session_id

    def ask_to_detach(self) -> None:
        """Begin what `detach` does, without waiting: whoever receives sees the events end."""
        if self._leave_means is Leave.KILLS:
            raise LocalProtocolError("this program ends with its client: start it with detached=True to detach from it")
        if not self._leaving and not self._over:
            self._leaving = True
            if self._pid is not None:
                self._leave()

    def _leave(self) -> None:
        """Only a program that has started can be left."""
        self._deadline.lift()
        self._session.detach()

    async def aclose(self) -> None:
        """Kill the program if it runs, and wait up to 5 s for the guest's word that it is gone; shielded from
        cancellation. When it was started with `detached=True`, or `detach` has begun, it is left instead. Where the
        guest does not say it in time, `wait` and the like raise LocalProtocolError from then on.
        """
        if self._leave_means is Leave.DETACHES:
            self.ask_to_detach()
        if self._leaving:
            await wait_for_end(self._session, self._last)
        else:
            await end_session(self._session, self._last)

    async def _last(self) -> ExecEvent | None:
        await self._session.flush()  # whoever receives already may wait with the kill unsent
        return await self._next()

    async def __aenter__(self) -> ExecHandle:
        await self._use()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
