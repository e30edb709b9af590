"""A connection to the relay of a sandbox that somebody else owns. anyio only; owns no task.

Whoever waits for something reads the socket until it has come, for itself and for all others that wait: one leads, the
others follow, and when the leader leaves, whether content or cancelled, the next one leads. What arrives is bounded by
credit, so a session that nobody receives from holds up no other.

A frame once begun is sent whole, shielded from cancellation for at most SEND_TIMEOUT; then the connection is given up.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import anyio
from anyio.abc import SocketStream

from trio_sandbox.errors import (
    ClientLimitError,
    ConnectionLostError,
    RemoteProtocolError,
    SandboxCrashedError,
    SandboxDrainingError,
    SandboxError,
    SandboxNotRunningError,
    SandboxPausedError,
)
from trio_sandbox.lifecycle import State
from trio_sandbox.relay.client_messages import (
    Busy,
    Ended,
    Join,
    Welcome,
)
from trio_sandbox.relay.events import DataReceived, Event, MessageReceived, Opener, PingReceived
from trio_sandbox.relay.frames import PROTOCOL_VERSION, FrameType, Role
from trio_sandbox.relay.messages import (
    Failed,
    Message,
)
from trio_sandbox.relay.mux import Mux
from trio_sandbox.relay.session import SessionBuffer
from trio_sandbox.relay.states import FINAL, SideState

READ_SIZE = 131_072
SEND_TIMEOUT = 5.0
"""Seconds that the relay has to take what we have begun to send."""


REFUSALS = {
    "draining": SandboxDrainingError,
    "paused": SandboxPausedError,
    "not_running": SandboxNotRunningError,
}
"""The kinds of FAILED that are about the sandbox, not about the session."""


class Connection:
    """The client's end of one connection. Not for two threads at once."""

    def __init__(self, stream: SocketStream, address: str) -> None:
        self.address = address
        self.mux = Mux(Role.CLIENT)
        self.welcome: Welcome | None = None
        self.ended: Ended | None = None
        self._stream = stream
        self._failure: SandboxError | None = None
        self._ids = itertools.count(1)
        self._sessions: dict[int, RemoteSession] = {}
        self._machine: dict[FrameType, Message] = {}
        self._pongs: set[bytes] = set()
        self._ping_ids = itertools.count(1)
        self._leading = False
        self._followers: set[anyio.Event] = set()
        self._writing = anyio.Lock()

    # -- moving frames

    async def wait_until(self, ready: Callable[[], bool]) -> None:
        """Read and write until `ready()`. Raises why it never will be. Cancellation: nothing is lost."""
        await self.flush()
        while not ready():
            self.raise_failure()
            if self._leading:
                await self._follow()
            else:
                self._leading = True
                try:
                    await self._read()
                finally:
                    self._leading = False
                    for follower in self._followers:
                        follower.set()
            await self.flush()

    async def _follow(self) -> None:
        news = anyio.Event()
        self._followers.add(news)
        try:
            await news.wait()
        finally:
            self._followers.discard(news)

    async def _read(self) -> None:
        try:
            data = await self._stream.receive(READ_SIZE)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._fail(ConnectionLostError(self.address))
            with anyio.CancelScope(shield=True):  # closing a socket does not wait
                await self._stream.aclose()  # a handle of a sandbox that has ended holds nothing
            return
        try:
            for event in self.mux.receive_data_untrusted(data):
                self._dispatch(event)
        except RemoteProtocolError as error:
            self._fail(error)

    async def flush(self) -> None:
        """Write what is queued. Raises nothing: a connection that broke says so to whoever waits for an answer."""
        if not self.mux.has_to_send or self._failure is not None:
            await anyio.lowlevel.checkpoint_if_cancelled()
            return
        async with self._writing:
            while data := self.mux.data_to_send():
                with anyio.move_on_after(SEND_TIMEOUT, shield=True) as patience:
                    try:
                        await self._stream.send(data)
                    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                        return  # the reader sees the same, after what the relay said last
                if patience.cancelled_caught:
                    self._fail(ConnectionLostError(self.address))
                    return

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, PingReceived):
            self._pongs.add(event.body)
            return
        if isinstance(event, MessageReceived) and not event.session:
            if isinstance(event.message, Ended):
                self._over(event.message)
            elif event.message is not None:
                self._machine[event.type] = event.message
            return
        session = self._sessions.get(event.session)
        if isinstance(event, MessageReceived) and event.type in FINAL:
            self._sessions.pop(event.session, None)
        if session is not None:
            session.take(event)
        elif isinstance(event, DataReceived):
            self.mux.acknowledge(event.session, len(event.data))

    def _over(self, ended: Ended) -> None:
        self.ended = ended
        if ended.state == State.CRASHED:
            self._fail(SandboxCrashedError(self.name, ended.reason, ended.console_tail))
        else:
            self._fail(SandboxNotRunningError(self.name))

    @property
    def name(self) -> str:
        """The sandbox's, or its address before that is known."""
        return self.welcome.name if self.welcome is not None else self.address

    def _fail(self, error: SandboxError) -> None:
        if self._failure is None:
            self._failure = error

    def raise_failure(self) -> None:
        """Raise why nothing more will come, if that is so."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    async def aclose(self) -> None:
        """Close. The relay ends the sessions that do not survive their client."""
        self._fail(SandboxNotRunningError(self.name))
        await self._stream.aclose()
        for follower in self._followers:
            follower.set()

    # -- talking

    async def join(self, *, control: bool, wait: float) -> Welcome:
        """Ask for a place. Raises ClientLimitError, ConnectionLostError, RemoteProtocolError."""
        self.mux.send_message(Join((PROTOCOL_VERSION,), control, int(wait * 1000)))
        answers = (FrameType.WELCOME, FrameType.BUSY)
        await self.wait_until(lambda: any(kind in self._machine for kind in answers))
        answer = self._machine.get(FrameType.WELCOME) or self._machine[FrameType.BUSY]
        if isinstance(answer, Busy):
            raise ClientLimitError(answer.what, answer.limit, answer.used)
        assert isinstance(answer, Welcome)
        self.welcome = answer
        return answer

    async def request(self, message: Message, answer: FrameType) -> Message:
        """Send a message about the sandbox and wait for its answer."""
        self.mux.send_message(message)
        await self.wait_until(lambda: answer in self._machine)
        return self._machine.pop(answer)

    async def ping(self) -> None:
        """Return when the agent has answered."""
        self.raise_failure()
        body = b"%016x" % next(self._ping_ids)
        self.mux.send_ping(FrameType.PING, body)
        await self.wait_until(lambda: body in self._pongs)
        self._pongs.discard(body)

    def open_session(self, request: Opener) -> RemoteSession:
        """Begin a session; it is asked for with the next thing that anybody awaits."""
        self.raise_failure()
        if self.mux.state is not SideState.OPEN:
            raise SandboxNotRunningError(self.address)
        number = next(self._ids)
        self.mux.open_session(number, request)
        session = self._sessions[number] = RemoteSession(self, number)
        return session

    def forget(self, session: int) -> None:
        """Nobody receives from the session any more."""
        self._sessions.pop(session, None)


class RemoteSession(SessionBuffer):
    """A session behind a connection: what `client.transport.ClientSession` promises. Not for two receivers at once."""

    def __init__(self, connection: Connection, number: int) -> None:
        super().__init__(connection.mux, number, _nothing)
        self.session_id = 0
        self._connection = connection

    async def receive(self) -> MessageReceived | DataReceived:
        """The next event; EXITED, FAILED, DONE or DETACHED is the last. Raises why none comes, LocalProtocolError
        once it is abandoned. Cancellation: no effect.
        """
        await self._connection.wait_until(lambda: bool(self._inbox) or self.abandoned)
        if (event := self.pop()) is None:
            self.raise_if_abandoned()
        assert event is not None
        if isinstance(event, MessageReceived) and isinstance(event.message, Failed):
            self._raise_refusal(event.message)
        return event

    def _raise_refusal(self, failed: Failed) -> None:
        if (refusal := REFUSALS.get(failed.kind)) is not None:
            raise refusal(self._connection.name)

    async def send_stdin(self, data: bytes) -> None:
        """Send bytes, waiting for credit. Raises BrokenPipeError when the program takes no more, and why the
        connection ended. Cancellation: an unknown part of `data` was sent.
        """
        rest = memoryview(data)
        while rest:
            await self._connection.wait_until(lambda: not self.stdin_open or self._mux.sendable(self.id) > 0)
            if not self.stdin_open:
                raise BrokenPipeError("the program takes no more input")
            rest = self.send_some(rest)
        await self._connection.flush()

    async def flush(self) -> None:
        """Write what was asked of the session."""
        await self._connection.flush()

    def detach(self) -> None:
        """Ask to leave the program running without us; DETACHED is the last event."""
        if self._mux.is_open(self.id):
            self._mux.send_empty(FrameType.DETACH, self.id)

    def abandon(self) -> None:
        """Nobody will receive again: kill it, and let its late output go. What is queued is written by whoever awaits
        next.
        """
        self.kill()
        self._connection.forget(self.id)
        self.let_go()
        self.abandoned = True


def _nothing() -> None:
    """What is queued is written by whoever awaits next: a client owns no task."""


async def open_connection(path: str | os.PathLike[str]) -> Connection:
    """Connect to a relay's Unix socket, however long its path. Raises ConnectionLostError when nobody listens."""
    folder, name = os.path.split(os.path.abspath(path))
    try:
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConnectionLostError(os.fspath(path)) from error
    try:
        stream = await anyio.connect_unix(f"/proc/self/fd/{descriptor}/{name}")
    except OSError as error:
        raise ConnectionLostError(os.fspath(path)) from error
    finally:
        os.close(descriptor)
    return Connection(stream, os.fspath(path))
