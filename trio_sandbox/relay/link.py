"""The agent stream on Trio: one reader task, one writer task, and the sessions that others use it through.

Runs in: the task of `service(link.serve)`, with the writer beneath it. Owns: the agent stream. Ends when: its block
ends; a stream that closes only sets `lost`, because why it closed is for the VMM's supervisor to say. Raises
RemoteProtocolError for wrong bytes. Cancellation: no frame is half delivered; one that is half sent was the stream's
last.

The reader never waits for a consumer: credit bounds what can arrive for each session, so it is only put where its owner
finds it.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable

import trio

from trio_sandbox.errors import RemoteProtocolError, UnsupportedError
from trio_sandbox.relay.frames import FrameType, Role
from trio_sandbox.relay.messages import (
    Attach,
    Deadline,
    Emit,
    ErrorReport,
    Exec,
    Fs,
    Message,
    Resize,
    Signal,
    Subscribe,
)
from trio_sandbox.relay.mux import DataReceived, Event, MessageReceived, Mux, PingReceived, WindowOpened
from trio_sandbox.relay.states import SideState
from trio_sandbox.service import service

log = logging.getLogger("trio_sandbox.relay")

READ_SIZE = 131_072
FINAL = frozenset({FrameType.EXITED, FrameType.FAILED})


class LinkLost(Exception):
    """The agent stream closed. Internal: whoever waits learns the reason from the machine's end."""


class AgentLink:
    """The host's end of one agent stream."""

    def __init__(self, stream: trio.abc.Stream, *, greeted: bool = False) -> None:
        """greeted: the agent has said HELLO to another host before it was cloned."""
        self._stream = stream
        self._mux = Mux(Role.HOST, SideState.CONFIGURING if greeted else SideState.GREETING)
        self._ids = itertools.count(1)
        self._sessions: dict[int, Session] = {}
        self._machine: dict[FrameType, MessageReceived] = {}
        self._arrived = trio.lowlevel.ParkingLot()
        self._to_write = trio.Event()
        self._failure: Callable[[], BaseException] | None = None
        self.lost = trio.Event()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Move frames until the block ends."""
        async with service(self._write, name="agent writer"):
            task_status.started()
            try:
                await self._read()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            self.lost.set()
            self._arrived.unpark_all()
            await trio.sleep_forever()

    async def _read(self) -> None:
        while data := await self._stream.receive_some(READ_SIZE):
            for event in self._mux.receive_data_untrusted(data):
                self._dispatch(event)

    async def _write(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            while True:
                while data := self._mux.data_to_send():
                    await self._stream.send_all(data)
                self._to_write = trio.Event()
                await self._to_write.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.sleep_forever()  # the reader sees the same and says so

    def _wake_writer(self) -> None:
        self._to_write.set()

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, PingReceived):
            return
        session = self._sessions.get(event.session)
        if session is not None:
            session.take(event)
        elif isinstance(event, DataReceived):  # its owner has gone: keep the credit flowing until it ends
            self._mux.acknowledge(event.session, len(event.data))
            self._wake_writer()
        elif isinstance(event, MessageReceived) and not event.session:
            if isinstance(event.message, ErrorReport):
                raise RemoteProtocolError(f"the agent refused a frame: {event.message.code}: {event.message.message}")
            self._machine[event.type] = event
            self._arrived.unpark_all()

    # -- the machine

    async def machine_message(self, *types: FrameType) -> MessageReceived:
        """Wait for the first message of one of `types`. Raises LinkLost. Cancellation: no effect."""
        await trio.lowlevel.checkpoint()
        while True:
            for kind in types:
                if kind in self._machine:
                    return self._machine[kind]
            if self.lost.is_set():
                raise LinkLost
            await self._arrived.park()

    def send(self, message: Message) -> None:
        """Queue a message to the machine; it is written as soon as the stream takes it."""
        self._mux.send_message(message)
        self._wake_writer()

    @property
    def accepting(self) -> bool:
        """Whether sessions can begin: the agent is ready, and nobody has begun to power off."""
        return self._mux.state is SideState.OPEN

    def fail(self, failure: Callable[[], BaseException]) -> None:
        """The machine is gone: every session raises what `failure` makes, now and from now on."""
        self._failure = failure
        for session in self._sessions.values():
            session.wake()

    # -- sessions

    def open_session(self, request: Exec | Fs | Emit | Subscribe | Attach) -> Session:
        """Begin a session; its first event is STARTED or FAILED. Raises the machine's failure, LocalProtocolError when
        too large.
        """
        if self._failure is not None:
            raise self._failure()
        if not isinstance(request, Exec):
            raise UnsupportedError(type(request).__name__)
        number = next(self._ids)
        self._mux.open_session(number, request)
        session = self._sessions[number] = Session(number, self)
        self._wake_writer()
        return session


class Session:
    """One program in the guest, as its one owner sees it.

    Bytes count as consumed when `receive` returns them. Not for two receivers at once.
    """

    def __init__(self, number: int, link: AgentLink) -> None:
        self.id = number
        self._link = link
        self._mux = link._mux
        self._inbox: deque[MessageReceived | DataReceived] = deque()
        self._parked = trio.lowlevel.ParkingLot()
        self._unsent = memoryview(b"")
        self._end_after_unsent = False
        self.stdin_open = True
        self.over = False

    def take(self, event: MessageReceived | DataReceived | WindowOpened) -> None:
        """Called by the reader: put an event where `receive` finds it, or send what the new credit allows."""
        if isinstance(event, WindowOpened):
            self._push()
        else:
            if event.type is FrameType.STDIN_CLOSED:
                self.stdin_open = False
                self._unsent = memoryview(b"")
            if event.type in FINAL:
                self.stdin_open = False
                del self._link._sessions[self.id]
            self._inbox.append(event)
        self._parked.unpark_all()

    def wake(self) -> None:
        """Let those who wait look again."""
        self._parked.unpark_all()

    async def receive(self) -> MessageReceived | DataReceived:
        """The next event; EXITED or FAILED is the last. Raises the machine's failure. Cancellation: no effect."""
        await trio.lowlevel.checkpoint()
        while not self._inbox:
            self._check_machine()
            await self._parked.park()
        event = self._inbox.popleft()
        if isinstance(event, DataReceived):
            self._mux.acknowledge(self.id, len(event.data))
            self._link._wake_writer()
        self.over = event.type in FINAL
        return event

    def _check_machine(self) -> None:
        if self._link._failure is not None:
            raise self._link._failure()

    def feed(self, data: bytes) -> None:
        """Give the program all of its standard input, of any size: it is sent as credit comes, without a task or a
        wait.
        """
        self._unsent, self._end_after_unsent = memoryview(data), True
        self._push()

    def _push(self) -> None:
        if not self.stdin_open or not (self._unsent or self._end_after_unsent):
            return
        size = min(len(self._unsent), self._mux.sendable(self.id))
        piece, self._unsent = self._unsent[:size], self._unsent[size:]
        end = self._end_after_unsent and not self._unsent
        if size or end:
            self._mux.send_data(FrameType.STDIN, self.id, piece, end=end)
            self._link._wake_writer()
        if end:
            self.stdin_open = self._end_after_unsent = False

    async def send_stdin(self, data: bytes) -> None:
        """Send bytes, waiting for credit. Raises BrokenPipeError when the program closed its input or ended, or the
        machine's failure.

        Cancellation: an unknown part of `data` was sent.
        """
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            while self.stdin_open and not self._mux.sendable(self.id):
                self._check_machine()
                await self._parked.park()
            if not self.stdin_open:
                self._check_machine()
                raise BrokenPipeError("the program takes no more input")
            size = min(len(rest), self._mux.sendable(self.id))
            self._mux.send_data(FrameType.STDIN, self.id, rest[:size])
            rest = rest[size:]
            self._link._wake_writer()

    def close_stdin(self) -> None:
        """Send the end of standard input. Harmless when it is closed already."""
        if self.stdin_open and self._mux.is_open(self.id):
            self._mux.send_data(FrameType.STDIN, self.id, b"", end=True)
            self._link._wake_writer()
        self.stdin_open = False

    def signal(self, number: int) -> None:
        """Send a signal to the program's process group. Harmless when it has ended."""
        if self._mux.is_open(self.id):
            self._mux.send_message(Signal(number), self.id)
            self._link._wake_writer()

    @property
    def session_id(self) -> int:
        """The session's number in the sandbox."""
        return self.id

    def resize(self, rows: int, cols: int) -> None:
        """Give the program's terminal another size. Harmless when it has ended."""
        if self._mux.is_open(self.id):
            self._mux.send_message(Resize(rows, cols), self.id)
            self._link._wake_writer()

    def set_deadline(self, ms: int) -> None:
        """Let the guest kill the session in `ms` milliseconds, 0 for never. Harmless when it has ended."""
        if self._mux.is_open(self.id):
            self._mux.send_message(Deadline(ms), self.id)
            self._link._wake_writer()

    def detach(self) -> None:
        """Leave the session running without us; DETACHED is its last event."""
        raise UnsupportedError("detach()")

    def kill(self) -> None:
        """Kill everything that the program started. Harmless when it has ended."""
        if self._mux.is_open(self.id):
            self._mux.send_empty(FrameType.KILL, self.id)
            self._link._wake_writer()

    def abandon(self) -> None:
        """Nobody will receive again: kill the program, and let its late output go."""
        self.kill()
        if self._link._sessions.pop(self.id, None) is not None:
            for event in self._inbox:
                if isinstance(event, DataReceived):
                    self._mux.acknowledge(self.id, len(event.data))
        self._inbox.clear()
        self._unsent = memoryview(b"")
        self.stdin_open = False
