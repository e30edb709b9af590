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
import os
from collections.abc import Callable
from typing import Protocol

import trio

from trio_sandbox.errors import RemoteProtocolError, UnsupportedError
from trio_sandbox.relay.client_messages import (
    Detached,
)
from trio_sandbox.relay.events import DataReceived, Event, MessageReceived, Opener, PingReceived
from trio_sandbox.relay.frames import Frame, FrameType, Role, encode
from trio_sandbox.relay.messages import (
    ErrorReport,
    Exec,
    Fs,
    Message,
    Subscribe,
)
from trio_sandbox.relay.mux import Mux
from trio_sandbox.relay.session import SessionBuffer, SessionEvent
from trio_sandbox.relay.states import FINAL, SideState
from trio_sandbox.service import service

log = logging.getLogger("trio_sandbox.relay")

READ_SIZE = 131_072
CONTROL_LIMIT = 262_144
"""Bytes of control frames that may wait for the agent before clients are made to wait. One frame may exceed it."""
FORGIVEN = frozenset({"unknown_session", "no_stdin", "stdin_ended", "out_of_memory"})
"""Refusals of the agent that concern one session alone: what a client asked for, not what this side got wrong."""


WORK = (Exec, Fs)
"""The requests whose sessions count as work."""


class LinkLost(Exception):
    """The agent stream closed. Internal: whoever waits learns the reason from the machine's end."""


class Tap(Protocol):
    """Who sees the output of programs pass. Called by the reader, which it must not keep waiting."""

    def __call__(self, session: int, kind: FrameType, tty: bool, data: bytes, /) -> None: ...


class Sink(Protocol):
    """Where the events of one session go. Called by the reader: must not wait."""

    def take(self, event: SessionEvent) -> None: ...

    def wake(self) -> None:
        """The machine is gone: let whoever waits look at `AgentLink.failure`."""


class AgentLink:
    """The host's end of one agent stream."""

    def __init__(self, stream: trio.abc.Stream, *, greeted: bool = False, first_session: int = 1) -> None:
        """greeted: the agent has said HELLO to another host before it was cloned. first_session: the lowest id of a
        session, above those of the sandbox that this one was forked from.
        """
        self.mux = Mux(Role.HOST, SideState.CONFIGURING if greeted else SideState.GREETING)
        self._stream = stream
        self.first_session = self.next_session = first_session
        self._sinks: dict[int, Sink] = {}
        self._pings: dict[bytes, Callable[[], None]] = {}
        self._ping_ids = itertools.count(1)
        self._machine: dict[FrameType, MessageReceived] = {}
        self._arrived = trio.lowlevel.ParkingLot()
        self._drained = trio.lowlevel.ParkingLot()
        self._to_write = trio.Event()
        self._writer_idle = False
        self._unsent = b""
        self._holding = False  # nothing but `_unsent` is written
        self._abandoned_freeze = False
        self._failure: Callable[[], BaseException] | None = None
        self.reads = 0
        """Times that something was read, for whoever wants to know that the reader has kept up."""
        self.pongs = 0
        """Answers to pings that have come, in time or not."""
        self.working: set[int] = set()
        """Programs and file operations under way, whoever's they are: what a drain waits for, and what is not idle."""
        self.tap: Tap | None = None
        """Sees what the programs print that are started from now on."""
        self._programs: dict[int, bool] = {}  # those that it sees, and whether each is on a terminal
        self.on_activity: Callable[[], None] = lambda: None
        """Called when a session begins, and when one of `working` ends."""
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
            self._drained.unpark_all()
            await trio.sleep_forever()

    async def _read(self) -> None:
        while data := await self._stream.receive_some(READ_SIZE):
            self.reads += 1
            for event in self.mux.receive_data_untrusted(data):
                self._dispatch(event)

    async def _write(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        try:
            while True:
                while data := self._unsent or self._next_data():
                    self._unsent = b""
                    await self._stream.send_all(data)
                    if not self.backlogged:
                        self._drained.unpark_all()
                self._to_write, self._writer_idle = trio.Event(), True
                await self._to_write.wait()
                self._writer_idle = False
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.sleep_forever()  # the reader sees the same and says so

    def _next_data(self) -> bytes:
        return b"" if self._holding else self.mux.data_to_send()

    def wake_writer(self) -> None:
        """The mux has something to write. What the socket takes at once goes at once: a turn of the loop saved."""
        if self._holding:
            return
        if self._writer_idle and not self._unsent and isinstance(self._stream, trio.SocketStream):
            self._send_at_once(self._stream)
        if self._unsent or self.mux.has_to_send:
            self._to_write.set()

    def _send_at_once(self, stream: trio.SocketStream) -> None:
        data = self.mux.data_to_send()
        try:
            sent = os.write(stream.socket.fileno(), data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError:  # the writer meets it too
            sent = 0
        self._unsent = data[sent:]

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, PingReceived):
            self.pongs += 1
            if (answered := self._pings.pop(event.body, None)) is not None:
                answered()
            return
        sink = self._sinks.get(event.session)
        if isinstance(event, MessageReceived):
            if isinstance(event.message, ErrorReport):
                self._refused(event.message, sink)
                return
            if not event.session:
                self._machine[event.type] = event
                self._arrived.unpark_all()
                if event.type is FrameType.FROZEN and self._abandoned_freeze:
                    self.thaw()
                return
            if event.type in FINAL:
                self._sinks.pop(event.session, None)
                self._programs.pop(event.session, None)
                self._ended(event.session)
        elif self.tap is not None and isinstance(event, DataReceived) and event.session in self._programs:
            self.tap(event.session, event.type, self._programs[event.session], event.data)
        if sink is not None:
            sink.take(event)
        elif isinstance(event, DataReceived):  # its owner has gone: keep the credit flowing until it ends
            self.acknowledge(event.session, len(event.data))

    def _ended(self, session: int) -> None:
        if session in self.working:
            self.working.discard(session)
            self.on_activity()

    def _refused(self, report: ErrorReport, sink: Sink | None) -> None:
        if report.code not in FORGIVEN:
            raise RemoteProtocolError(f"the agent refused a frame: {report.code}: {report.message}")
        log.warning("the agent refused a frame of %s: %s: %s", sink, report.code, report.message)

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
        self.mux.send_message(message)
        self.wake_writer()

    async def freeze(self) -> None:
        """Have the agent send what it has and hold still, and hold still too: then the machine can be copied between
        two frames. Whoever calls it calls `thaw`, or `abandon_freeze` when this did not come to its end.

        Raises LinkLost. Cancellation: as above.
        """
        self._machine.pop(FrameType.FROZEN, None)
        self._holding = True
        self._say(FrameType.FREEZE)
        await self.machine_message(FrameType.FROZEN)

    def thaw(self) -> None:
        """Go on; what has been queued meanwhile is written."""
        self._abandoned_freeze = False
        self._say(FrameType.THAW)
        self._holding = False
        self._to_write.set()

    def abandon_freeze(self) -> None:
        """Go on as soon as the agent holds still, since it can be told so only then."""
        if FrameType.FROZEN in self._machine:
            self.thaw()
        else:
            self._abandoned_freeze = True

    def _say(self, kind: FrameType) -> None:
        self._unsent += encode(Frame(kind), Role.HOST)
        self._to_write.set()

    def client_gone(self, slot: int) -> None:
        """Have the agent kill every session of a client."""
        if self.accepting:
            self.mux.send_empty(FrameType.CLIENT_GONE, slot=slot)
            self.wake_writer()

    async def ping(self) -> None:
        """Return when the agent has answered. Raises the machine's failure or LinkLost. Cancellation: no effect."""
        answered = trio.Event()
        token = self.send_ping(answered.set)
        try:
            await answered.wait()
        finally:
            self._pings.pop(token, None)
        self.raise_failure()

    def send_ping(self, answered: Callable[[], None]) -> bytes:
        """Ping the agent; `answered` is called with its answer, or when the machine has gone. Raises as `ping` does."""
        self.raise_failure()
        if not self.accepting:
            raise LinkLost
        token = b"%016x" % next(self._ping_ids)
        self._pings[token] = answered
        self.mux.send_ping(FrameType.PING, token)
        self.wake_writer()
        return token

    @property
    def accepting(self) -> bool:
        """Whether sessions can begin: the agent is ready, and nobody has begun to power off."""
        return self.mux.state is SideState.OPEN

    @property
    def backlogged(self) -> bool:
        """Whether so much control waits for the agent that no client may cause more."""
        return self.mux.control_size > CONTROL_LIMIT

    async def wait_drained(self) -> None:
        """Wait while `backlogged`. Cancellation: no effect."""
        while self.backlogged and not self.lost.is_set():
            await self._drained.park()

    def fail(self, failure: Callable[[], BaseException]) -> None:
        """The machine is gone: every session raises what `failure` makes, now and from now on."""
        self._failure = failure
        for sink in list(self._sinks.values()):
            sink.wake()
        while self._pings:
            self._pings.popitem()[1]()

    @property
    def failed(self) -> bool:
        """Whether the machine is gone."""
        return self._failure is not None

    def raise_failure(self) -> None:
        """Raise what the machine ended with, if it has."""
        if self._failure is not None:
            raise self._failure()

    # -- sessions

    def open(self, request: Opener, slot: int, make: Callable[[int], Sink], *, counts: bool = True) -> int:
        """Begin a session whose events go to what `make(id)` returns; its id. counts: it is work, or at least activity.

        Raises the machine's failure, LocalProtocolError for a request that is too large.
        """
        self.raise_failure()
        number = self.next_session
        self.next_session += 1
        self.mux.open_session(number, request, slot)
        self._sinks[number] = make(number)
        if counts and isinstance(request, WORK):
            self.working.add(number)
        if counts and self.tap is not None and isinstance(request, Exec):
            self._programs[number] = request.tty
        if counts and not isinstance(request, Subscribe):
            self.on_activity()
        self.wake_writer()
        return number

    def redirect(self, session: int, sink: Sink | None) -> None:
        """From now on the session's events go to `sink`; to nobody with None, and its output is dropped."""
        if sink is None:
            self._sinks.pop(session, None)
        elif self.mux.is_open(session):
            self._sinks[session] = sink

    def acknowledge(self, session: int, size: int, *, at_once: bool = False) -> None:
        """The consumer of a session's output took so many bytes."""
        self.mux.acknowledge(session, size, at_once=at_once)
        self.wake_writer()

    def kill(self, session: int) -> None:
        """Kill what a session started. Harmless when it has ended."""
        if self.mux.is_open(session):
            self.mux.send_empty(FrameType.KILL, session)
            self.wake_writer()


class Session(SessionBuffer):
    """A session of this process: what `client.transport.ClientSession` promises, waiting on Trio.

    Not for two receivers at once. Made by `ClientChannel.open` or `Survivors.open`. ended: called when it is over or
    abandoned. leave: called when it is detached from; None where it does not survive its client.
    """

    def __init__(
        self, number: int, link: AgentLink, ended: Callable[[], None], leave: Callable[[], None] | None = None
    ) -> None:
        super().__init__(link.mux, number, link.wake_writer)
        self._link = link
        self._on_end = ended
        self._leave = leave
        self._parked = trio.lowlevel.ParkingLot()

    def take(self, event: SessionEvent) -> None:
        super().take(event)
        if isinstance(event, MessageReceived) and event.type in FINAL:
            self._on_end()
        self._parked.unpark_all()

    def wake(self) -> None:
        self._parked.unpark_all()

    async def receive(self) -> MessageReceived | DataReceived:
        """The next event; EXITED, FAILED or DONE is the last. Raises the machine's failure, LocalProtocolError once it
        is abandoned. Cancellation: no effect.
        """
        # What has arrived is bounded by credit, so whoever takes it all without a break starves nobody.
        await trio.lowlevel.checkpoint_if_cancelled()
        while (event := self.pop()) is None:
            self._link.raise_failure()
            self.raise_if_abandoned()
            await self._parked.park()
        return event

    async def send_stdin(self, data: bytes) -> None:
        """Send bytes, waiting for credit. Raises BrokenPipeError when the program closed its input or ended, or the
        machine's failure.

        Cancellation: an unknown part of `data` was sent.
        """
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            while self.stdin_open and not self._mux.sendable(self.id):
                self._link.raise_failure()
                await self._parked.park()
            if not self.stdin_open:
                self._link.raise_failure()
                raise BrokenPipeError("the program takes no more input")
            rest = self.send_some(rest)

    async def flush(self) -> None:
        """What was asked of the session is on its way: the link's writer sees to that."""
        await trio.lowlevel.checkpoint()

    def detach(self) -> None:
        """Leave the program running without us; DETACHED is the next event, and the last. Raises UnsupportedError for
        one that does not survive its client.
        """
        if self._leave is None:
            raise UnsupportedError("detaching from this program", "start it with detached=True, or by attach()")
        if self._ended:
            return
        self._leave()
        self.let_go()
        super().take(MessageReceived(FrameType.DETACHED, self.id, 0, Detached(self.id)))
        self._parked.unpark_all()

    def abandon(self) -> None:
        """Nobody will receive again: kill it, and let its late output go."""
        self.kill()
        self._link.redirect(self.id, None)
        self.let_go()
        self.abandoned = True
        self._on_end()
        self._parked.unpark_all()
