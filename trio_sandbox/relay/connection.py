"""One client's connection to the relay: JOIN, then its sessions until it hangs up.

Runs in: a task of the listener that accepted it, with a reader and a writer beneath. Owns: the transport, the client's
place and channel. Ends when: the client closes, breaks the protocol, or the sandbox ends. Cancellation: the client's
sessions are killed in the guest; nothing of it is left.

A client that does not read is not read from either, once as much control waits for it as CONTROL_LIMIT; its output
waits in its windows. So it stalls itself and nobody else.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Protocol

import attrs
import trio

from trio_sandbox.convert import shortened
from trio_sandbox.errors import (
    ClientLimitError,
    ExecFailedError,
    LocalProtocolError,
    RemoteProtocolError,
    SandboxDrainingError,
    SandboxError,
    SandboxNotRunningError,
    SandboxPausedError,
)
from trio_sandbox.relay.admission import Admission
from trio_sandbox.relay.bridge import Bridge
from trio_sandbox.relay.budget import CLIENT_SESSIONS, Grant
from trio_sandbox.relay.channel import ClientChannel, stdin_wish
from trio_sandbox.relay.client_messages import (
    Answer,
    Attach,
    Busy,
    Ended,
    Join,
    Request,
    Welcome,
)
from trio_sandbox.relay.events import DataReceived, Event, MessageReceived, Opener, PingReceived, WindowOpened
from trio_sandbox.relay.frames import PROTOCOL_VERSION, FrameType, Role
from trio_sandbox.relay.link import CONTROL_LIMIT, AgentLink, LinkLost
from trio_sandbox.relay.messages import (
    Exec,
    Failed,
    Resize,
)
from trio_sandbox.relay.mux import Mux
from trio_sandbox.relay.states import OPENERS, SideState
from trio_sandbox.relay.survivors import Survivors

log = logging.getLogger("trio_sandbox.relay")

JOIN_TIMEOUT = 10.0
"""Seconds for a new connection to say JOIN, and for a control connection to say its REQUEST."""
LAST_WORDS_TIMEOUT = 1.0
"""Seconds for a client to take what is still to be said when the connection ends."""
FORK_TIMEOUT = 300.0
"""Seconds that a client may take to make children of what it was told of."""
PINGS_LIMIT = 64
"""Unanswered pings of one client."""
MAX_WAIT = 86_400.0
EAGAIN, ESHUTDOWN = 11, 108


class Transport(Protocol):
    """How frames travel. A receive returns whole or cut frames as they come, b"" at the end.

    is_local: its client runs on this machine, as the user that the sandbox belongs to.
    """

    @property
    def is_local(self) -> bool: ...
    async def receive(self) -> bytes: ...
    async def send(self, frames: list[bytes]) -> None: ...
    async def aclose(self) -> None: ...


class Served(Protocol):
    """The sandbox, as a client's connection needs it. Implemented by `Relay`."""

    admission: Admission

    @property
    def link(self) -> AgentLink: ...
    @property
    def survivors(self) -> Survivors: ...
    def welcome(self, slot: int) -> Welcome: ...
    def check_open(self) -> None:
        """Raise why no session may begin, if none may."""

    async def answer(self, request: Request) -> Answer: ...
    def forkable(self) -> AbstractAsyncContextManager[Answer]:
        """The answer to "fork", and what it tells of for the length of the block."""


class ClientGone(Exception):
    """The client hung up. Internal."""


@attrs.define(eq=False)
class ClientConnection:
    """The relay's end of one connection."""

    transport: Transport
    served: Served
    mux: Mux = attrs.Factory(lambda: Mux(Role.RELAY))
    _bridges: dict[int, Bridge] = attrs.Factory(dict)
    _channel: ClientChannel | None = None
    _pings: int = 0
    _gone: bool = False
    _sending: bool = False
    _writer: trio.CancelScope = attrs.Factory(lambda: trio.CancelScope(shield=True))
    _to_write: trio.Event = attrs.Factory(trio.Event)
    _written: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    async def serve(self) -> None:
        """Serve the client to its end. Raises nothing: what a client does wrong is logged."""
        async with self._writing():
            try:
                join = await self._join()
                await (self._serve_control() if join.control else self._serve_channel(join))
            except RemoteProtocolError as error:
                log.warning("a client broke the protocol: %s", error)
            except ClientLimitError as full:
                self.mux.send_message(Busy(full.what, full.limit, full.used))
                self.wake_writer()
            except (ClientGone, trio.BrokenResourceError, trio.ClosedResourceError):
                self._gone = True

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        """A writer beneath the block. What is queued when the block ends, in whatever way, is still said, for a moment:
        so the writer is shielded from what ends the block, and ends after it.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, nursery.cancel_scope)
            try:
                yield
            finally:
                if not self._gone:
                    with trio.move_on_after(LAST_WORDS_TIMEOUT, shield=True):
                        await self._flushed()
                self._writer.cancel(reason="the connection has ended")

    async def _write(self, connection: trio.CancelScope) -> None:
        with self._writer:
            try:
                while True:
                    while frames := self.mux.frames_to_send():
                        self._sending = True
                        await self.transport.send(frames)
                        self._sending = False
                        self._written.unpark_all()
                    self._to_write = trio.Event()
                    await self._to_write.wait()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._gone = True
                self._written.unpark_all()
                connection.cancel(reason="the client has gone")

    async def _flushed(self) -> None:
        while not self._gone and (self.mux.has_to_send or self._sending):
            await self._written.park()

    def wake_writer(self) -> None:
        """The mux has something to write."""
        self._to_write.set()

    async def _events(self) -> list[Event]:
        """What the client said next. Raises ClientGone, RemoteProtocolError."""
        while self.mux.control_size > CONTROL_LIMIT:
            await self._written.park()
        data = await self.transport.receive()
        if not data:
            raise ClientGone
        return self.mux.receive_data_untrusted(data)

    # -- the beginning

    async def _join(self) -> Join:
        events = await self._first("JOIN")
        first = events[0]
        if len(events) > 1 or not isinstance(first, MessageReceived) or not isinstance(first.message, Join):
            raise RemoteProtocolError("JOIN comes first, and alone")
        if PROTOCOL_VERSION not in first.message.versions:
            raise RemoteProtocolError(f"the client speaks versions {first.message.versions}, not {PROTOCOL_VERSION}")
        return first.message

    async def _first(self, what: str) -> list[Event]:
        """What a client says that must say something. Raises as `_events`, RemoteProtocolError for silence."""
        events: list[Event] = []
        with trio.move_on_after(JOIN_TIMEOUT) as patience:
            while not events:
                events = await self._events()
        if patience.cancelled_caught:
            raise RemoteProtocolError(f"no {what} within {JOIN_TIMEOUT:g} s")
        return events

    async def _serve_channel(self, join: Join) -> None:
        slot = await self._place(join)
        self._channel = ClientChannel(self.served.link, slot)
        try:
            self._welcome(slot)
            while True:
                for event in await self._events():
                    self._take(event)
                await self.served.link.wait_drained()
        finally:
            self._leave_all()
            self.served.admission.clients.release(slot)

    def _welcome(self, slot: int) -> None:
        try:
            welcome = self.served.welcome(slot)
            if not self.transport.is_local:  # a path of this machine says something to nobody else
                welcome = attrs.evolve(welcome, logs="")
            self.mux.send_message(welcome)
        except LocalProtocolError as error:  # an image may bring any environment
            log.error("clients cannot be served: %s", error)
            raise ClientGone from error
        self.wake_writer()

    async def _place(self, join: Join) -> int:
        """A client's place. One that hangs up while it waits gives up its turn. Raises ClientLimitError, ClientGone."""
        places = self.served.admission.clients
        patience = min(max(0, join.wait_ms) / 1000, MAX_WAIT)
        if not patience or places.used < places.limit:
            return await places.acquire(patience)
        number: int | None = None
        problem: Exception = ClientGone()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_hang_up, nursery.cancel_scope)
            try:
                number = await places.acquire(patience)
            except ClientLimitError as full:
                problem = full
            nursery.cancel_scope.cancel(reason="the wait is over")
        if number is None:
            raise problem
        return number

    async def _watch_hang_up(self, waiting: trio.CancelScope) -> None:
        try:
            await self._events()
            log.warning("a client spoke before it was welcome")
        except (ClientGone, RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        waiting.cancel(reason="the client has gone")

    # -- what a client says

    def _take(self, event: Event) -> None:
        if isinstance(event, PingReceived):
            self._ping(event.body)
            return
        bridge = self._bridges.get(event.session)
        if isinstance(event, MessageReceived) and event.type in OPENERS:
            self._open(event)
        elif isinstance(event, MessageReceived) and not event.session:
            raise RemoteProtocolError(f"{event.type.name} belongs on a control connection")
        elif bridge is None:  # it has ended
            if isinstance(event, DataReceived):
                self.mux.acknowledge(event.session, len(event.data))
        elif isinstance(event, WindowOpened):
            bridge.consumed(event.size)
        elif isinstance(event, DataReceived):
            bridge.stdin(event)
        else:
            bridge.message(event.type, event.message)

    def _ping(self, body: bytes) -> None:
        if self._pings >= PINGS_LIMIT:
            raise RemoteProtocolError(f"more than {PINGS_LIMIT} unanswered pings")

        def answered() -> None:
            self._pings -= 1
            if not self.served.link.failed and self.mux.state is SideState.OPEN:
                self.mux.send_ping(FrameType.PONG, body)
                self.wake_writer()

        self._pings += 1
        try:
            self.served.link.send_ping(answered)
        except (SandboxError, LinkLost):
            self._pings -= 1  # ENDED is the answer

    def _open(self, event: MessageReceived) -> None:
        request = event.message
        assert isinstance(request, Opener)
        try:
            self._begin(event.session, request)
        except ExecFailedError as error:
            self.mux.send_message(Failed(error.kind, error.errno, str(error)), event.session)
            self.wake_writer()
        except SandboxDrainingError as error:
            self.mux.send_message(Failed("draining", ESHUTDOWN, str(error)), event.session)
            self.wake_writer()
        except SandboxPausedError as error:
            self.mux.send_message(Failed("paused", EAGAIN, str(error)), event.session)
            self.wake_writer()
        except SandboxNotRunningError as error:
            self.mux.send_message(Failed("not_running", ESHUTDOWN, str(error)), event.session)
            self.wake_writer()
        except SandboxError as error:
            self.mux.send_message(Failed("other", ESHUTDOWN, shortened(str(error))), event.session)
            self.wake_writer()

    def _begin(self, local: int, request: Opener) -> None:
        self.served.check_open()
        assert self._channel is not None
        if len(self._bridges) >= CLIENT_SESSIONS:  # attached ones have a budget of their own
            raise ExecFailedError("too_many_sessions", EAGAIN, f"{CLIENT_SESSIONS} sessions are open already")
        survivors, channel = self.served.survivors, self._channel
        if isinstance(request, Attach):
            survivors.attach(request.session_id, self._maker(local, True, survivors), replay=request.replay)
            if request.rows and request.cols and (bridge := self._bridges.get(local)) is not None:
                bridge.message(FrameType.RESIZE, Resize(request.rows, request.cols))
        elif isinstance(request, Exec) and (request.detached or request.detachable):
            survivors.open(request, self._maker(local, request.stdin, survivors))
        else:
            channel.open(request, self._maker(local, stdin_wish(request) > 0, None))

    def _maker(self, local: int, takes_input: bool, survivors: Survivors | None) -> partial[Bridge]:
        return partial(self._make, local, takes_input, survivors)

    def _make(self, local: int, takes_input: bool, survivors: Survivors | None, number: int, grant: Grant) -> Bridge:
        assert self._channel is not None
        over = self._channel.ended if survivors is None else survivors.forget

        def ended() -> None:
            self._bridges.pop(local, None)
            over(number)

        leave = None if survivors is None else partial(self._left, local, survivors, number)
        bridge = Bridge(local, self.mux, self.served.link, self.wake_writer, ended, leave)
        self._bridges[local] = bridge
        bridge.open(number, grant, takes_input=takes_input)
        return bridge

    def _left(self, local: int, survivors: Survivors, number: int) -> None:
        self._bridges.pop(local, None)
        survivors.leave(number)

    # -- the end

    def _leave_all(self) -> None:
        """The client has gone: kill what was its own; what survives goes on, unless it was never detached from."""
        assert self._channel is not None
        for bridge in list(self._bridges.values()):
            if bridge.number not in self._channel.sessions:
                self.served.survivors.lose(bridge.number)
            bridge.let_go()
        self._bridges.clear()
        self._channel.close()

    def end(self, ended: Ended) -> None:
        """The sandbox has ended: say so, as the last word. A control connection's last word is its ANSWER."""
        if self._channel is not None and self.mux.state is SideState.OPEN:
            self.mux.send_message(ended)
            self.wake_writer()

    async def _serve_control(self) -> None:
        place = self.served.admission.controls.acquire_nowait()
        try:
            self._welcome(0)
            first = (await self._first("REQUEST"))[0]
            if not isinstance(first, MessageReceived) or not isinstance(first.message, Request):
                raise RemoteProtocolError("a control connection is for one REQUEST")
            if first.message.op == "fork" and self.transport.is_local:
                await self._serve_fork()
                return
            self.mux.send_message(await self.served.answer(first.message))
            self.wake_writer()
        finally:
            self.served.admission.controls.release(place)

    async def _serve_fork(self) -> None:
        """Hold what the sandbox can be forked from until the client hangs up."""
        async with self.served.forkable() as answer:
            self.mux.send_message(answer)
            self.wake_writer()
            with trio.move_on_after(FORK_TIMEOUT):
                await self._events()
