"""A whole relay with a scripted agent behind it and scripted clients before it, on streams in memory.

What a client or the agent does not read holds up whoever writes to it (the streams towards them are lockstep), and
every byte of output says whose it is and where in the stream it belongs, so that loss, doubling and mixing show.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio
import trio.testing

from trio_sandbox.relay.admission import Admission
from trio_sandbox.relay.client_messages import (
    Answer,
    Busy,
    Ended,
    Join,
    Opened,
    Request,
    Welcome,
)
from trio_sandbox.relay.connection import ClientConnection
from trio_sandbox.relay.events import DataReceived, Event, MessageReceived, Opener, PingReceived
from trio_sandbox.relay.frames import FrameType, Role
from trio_sandbox.relay.link import AgentLink
from trio_sandbox.relay.messages import (
    Deadline,
    Done,
    Exec,
    Exited,
    Hello,
    Ready,
    Resize,
    Signal,
    Started,
)
from trio_sandbox.relay.mux import Mux
from trio_sandbox.relay.relay import Relay
from trio_sandbox.relay.states import FINAL
from trio_sandbox.relay.survivors import REPLAY_BYTES
from trio_sandbox.service import service

EXITED = Exited(0, 0, False, False, False, 1, 2, 3)
KILLED = Exited(-1, 9, False, False, False, 1, 2, 3)


def tagged(session: int, start: int, size: int) -> bytes:
    """Bytes of the one true output of a session: blocks of its number and their own."""
    first, last = start // 8, (start + size) // 8 + 1
    words = array("I", [session]) * (2 * (last - first))
    words[1::2] = array("I", range(first, last))
    return words.tobytes()[start - first * 8 :][:size]


def held_stream() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """Our end, whose writes wait until they are read, and the peer's, whose writes never wait."""
    to_peer, from_us = trio.testing.lockstep_stream_one_way_pair()
    to_us, from_peer = trio.testing.memory_stream_one_way_pair()
    return trio.StapledStream(to_peer, from_peer), trio.StapledStream(to_us, from_us)


@attrs.define(eq=False)
class GuestSession:
    """What the agent knows of a session."""

    slot: int
    request: Opener
    produced: int = 0
    stdin: bytearray = attrs.Factory(bytearray)
    stdin_ended: bool = False
    uncredited: int = 0
    killed: bool = False
    over: bool = False


class Agent:
    """The guest's end. Reads while `reading` is set; programs output and end when the test says so."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.mux = Mux(Role.GUEST)
        self.sessions: dict[int, GuestSession] = {}
        self.reading = trio.Event()
        self.reading.set()
        self._turn = trio.Lock()

    async def flush(self) -> None:
        async with self._turn:
            while data := self.mux.data_to_send():
                await self.stream.send_all(data)

    def stop_reading(self) -> None:
        if self.reading.is_set():
            self.reading = trio.Event()

    async def run(self) -> None:
        while True:
            data = await self.stream.receive_some(65_536)
            await self.reading.wait()
            for event in self.mux.receive_data_untrusted(bytes(data)):
                self.take(event)
            await self.flush()

    def take(self, event: Event) -> None:
        if isinstance(event, PingReceived):
            self.mux.send_ping(FrameType.PONG, event.body)
        elif isinstance(event, DataReceived):
            session = self.sessions[event.session]
            session.stdin += event.data
            session.stdin_ended |= event.end
            session.uncredited += len(event.data)
        elif isinstance(event, MessageReceived):
            self.take_message(event)

    def take_message(self, event: MessageReceived) -> None:
        if isinstance(event.message, Opener):
            assert event.session not in self.sessions, "a session's number was used twice"
            self.sessions[event.session] = GuestSession(event.slot, event.message)
            if isinstance(event.message, Exec):
                self.mux.send_message(Started(event.session), event.session)
        elif isinstance(event.message, Signal):
            assert 0 < event.message.signal <= 64, "the agent would refuse it"
        elif isinstance(event.message, Resize):
            assert min(event.message.rows, event.message.cols) > 0, "the agent would refuse it"
            assert max(event.message.rows, event.message.cols) < 1 << 16, "the agent would refuse it"
        elif isinstance(event.message, Deadline):
            assert 0 <= event.message.deadline_ms <= (2**63 - 1) // 1_000_000, "the agent would refuse it"
        elif event.type is FrameType.KILL:
            self.kill(event.session)
        elif event.type is FrameType.CLIENT_GONE:
            for number, session in self.sessions.items():
                if session.slot == event.slot and not session.over:
                    self.kill(number)

    def kill(self, number: int) -> None:
        if not self.sessions[number].over:  # another KILL may have come with it
            self.sessions[number].killed = True
            self.end(number)

    def end(self, number: int) -> None:
        session = self.sessions[number]
        session.over = True
        last = (KILLED if session.killed else EXITED) if isinstance(session.request, Exec) else Done()
        self.mux.send_message(last, number)

    def output(self, number: int, size: int) -> int:
        """As much output as there is credit for; how much."""
        session = self.sessions[number]
        size = min(size, self.mux.sendable(number))
        if size:
            self.mux.send_data(FrameType.STDOUT, number, tagged(number, session.produced, size))
            session.produced += size
        return size

    def credit(self, number: int) -> None:
        """Take what has come on standard input."""
        session = self.sessions[number]
        self.mux.acknowledge(number, session.uncredited, at_once=True)
        session.uncredited = 0


@attrs.define(eq=False)
class LocalSession:
    """What a client knows of a session of its own."""

    request: Opener
    number: int = 0
    started: bool = False
    start: int = 0  # where in the session's output this client's part begins
    got: int = 0
    fed: int = 0
    stdin_ended: bool = False
    end: object = None
    killed: bool = False


class Client:
    """A client of the relay. Reads while `reading` is set and checks every byte; consumes what it reads."""

    def __init__(self, stream: trio.abc.Stream, seen: defaultdict[int, int]) -> None:
        self.stream = stream
        self.mux = Mux(Role.CLIENT)
        self.sessions: dict[int, LocalSession] = {}
        self.reading = trio.Event()
        self.reading.set()
        self.consuming = True
        self.trusting = True
        self.unconsumed: defaultdict[int, int] = defaultdict(int)
        self.welcome: Welcome | None = None
        self.busy: Busy | None = None
        self.pongs = 0
        self.closed = trio.Event()
        self.seen = seen
        self.answer: Answer | None = None
        self.ended: Ended | None = None
        self._turn = trio.Lock()

    def stop_reading(self) -> None:
        if self.reading.is_set():
            self.reading = trio.Event()

    async def run(self) -> None:
        try:
            while True:
                data = await self.stream.receive_some(65_536)
                await self.reading.wait()
                if not data:
                    break
                if not self.trusting:
                    continue  # the test made nonsense of it
                for event in self.mux.receive_data_untrusted(bytes(data)):
                    self.take(event)
                await self.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(self.stream)
        self.closed.set()

    async def flush(self) -> None:
        async with self._turn:
            while data := self.mux.data_to_send():
                await self.stream.send_all(data)

    async def join(self, wait_ms: int = 0) -> None:
        self.mux.send_message(Join((1,), False, wait_ms))
        await self.flush()

    async def hang_up(self) -> None:
        await self.stream.aclose()

    def take(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            session = self.sessions[event.session]
            place = session.start + session.got
            assert event.data == tagged(session.number, place, len(event.data)), "bytes lost, doubled or another's"
            session.got += len(event.data)
            self.unconsumed[event.session] += len(event.data)
            if self.consuming:
                self.consume(event.session)
        elif isinstance(event, PingReceived):
            self.pongs += 1
        elif isinstance(event, MessageReceived):
            self.take_message(event)

    def consume(self, local: int) -> None:
        self.mux.acknowledge(local, self.unconsumed.pop(local, 0), at_once=True)

    def take_message(self, event: MessageReceived) -> None:
        match event.message:
            case Welcome() as welcome:
                self.welcome = welcome
            case Busy() as busy:
                self.busy = busy
            case Answer() as answer:
                self.answer = answer
            case Ended() as ended:
                self.ended = ended
            case Opened(session_id=number):
                self.sessions[event.session].number = number
            case Started():
                self.sessions[event.session].started = True
            case message if event.type in FINAL:
                self.sessions[event.session].end = message
                self.unconsumed.pop(event.session, None)

    def open(self, request: Opener, start: int = 0) -> int:
        local = max(self.sessions, default=0) + 1
        self.mux.open_session(local, request)
        self.sessions[local] = LocalSession(request, start=start)
        return local

    def open_now(self) -> list[int]:
        return sorted(self.mux.open_sessions)


@attrs.define(eq=False)
class Facts:
    """A sandbox for the relay to serve."""

    env: dict[str, str] = attrs.Factory(dict)

    async def answer(self, request: Request) -> Answer:
        await trio.lowlevel.checkpoint()
        return Answer(state=request.op)

    @asynccontextmanager
    async def forkable(self) -> AsyncIterator[str]:
        await trio.lowlevel.checkpoint()
        yield "{}"

    def welcome(self, slot: int, limit: int, used: int) -> Welcome:
        return Welcome(1, "box", slot, limit, used, self.env, "/", "", "/bin/sh", logs="/logs")

    def check_open(self) -> None:
        pass


class World:
    """Link, relay, agent and clients."""

    def __init__(self, nursery: trio.Nursery, link: AgentLink, agent: Agent, relay: Relay, facts: Facts) -> None:
        self.nursery, self.link, self.agent, self.relay, self.facts = nursery, link, agent, relay, facts
        self.clients: list[Client] = []
        self.connections: list[ClientConnection] = []
        self.seen: defaultdict[int, int] = defaultdict(int)

    def connect(self, accepting: trio.Nursery | None = None) -> Client:
        """A client; accepting: where the relay serves it."""
        ours, theirs = held_stream()
        client = Client(theirs, self.seen)
        (accepting or self.nursery).start_soon(self.relay._accept, MemoryTransport(ours))
        self.nursery.start_soon(client.run)
        self.clients.append(client)
        return client

    async def joined(self) -> Client:
        client = self.connect()
        await client.join()
        await settle()
        assert client.welcome is not None
        return client

    def connection(self, client: Client) -> ClientConnection:
        """The relay's end of a client that is welcome."""
        assert client.welcome is not None
        for connection in self.relay._connections:
            if connection._channel is not None and connection._channel.slot == client.welcome.slot:
                return connection
        raise AssertionError("the client has no connection")

    def replay_start(self, number: int, *, replay: bool) -> int:
        """Where the output of a session that is attached to now begins. Settle first."""
        session = self.agent.sessions.get(number)  # one that does not read may not know of it yet
        produced = session.produced if session is not None else 0
        return max(0, produced - REPLAY_BYTES) if replay else produced


@attrs.define(eq=False)
class MemoryTransport:
    """Frames over a stream in memory."""

    stream: trio.abc.Stream
    is_local: bool = True

    async def receive(self) -> bytes:
        return bytes(await self.stream.receive_some(65_536))

    async def send(self, frames: list[bytes]) -> None:
        await self.stream.send_all(b"".join(frames))

    async def aclose(self) -> None:
        await self.stream.aclose()


async def settle() -> None:
    """Let everything happen that can happen without time passing."""
    await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def world(admission: Admission | None = None) -> AsyncIterator[World]:
    """A relay that has begun. What goes wrong in its tasks leaves the block."""
    ours, theirs = held_stream()
    link, agent = AgentLink(ours), Agent(theirs)
    facts = Facts()
    relay = Relay(facts, admission=admission or Admission())
    async with service(link.serve, name="link"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.run)
            agent.mux.send_message(Hello((1,), "scripted", "none"))
            await agent.flush()
            await link.machine_message(FrameType.HELLO)
            agent.mux.send_message(Ready({}))
            await agent.flush()
            await link.machine_message(FrameType.READY)
            relay.begin(link)
            yield World(nursery, link, agent, relay, facts)
            nursery.cancel_scope.cancel(reason="the test is over")
