"""The relay of one sandbox: who may speak to it, over which listeners, and what it answers.

Runs in: the task of `service(relay.serve)`, around the machine: it begins to listen once the machine is ready, and
outlives it long enough to tell every client how it ended. Owns: the listeners and a task for each connection. Ends
when: its block ends. Raises StorageError when a listener cannot be opened. Cancellation: connections are closed after
at most a second of last words.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Protocol

import attrs
import trio

from trio_sandbox.convert import shortened
from trio_sandbox.relay.admission import Admission
from trio_sandbox.relay.budget import Grant
from trio_sandbox.relay.channel import ClientChannel
from trio_sandbox.relay.client_messages import (
    Answer,
    Attach,
    Ended,
    Request,
    Welcome,
)
from trio_sandbox.relay.connection import LAST_WORDS_TIMEOUT, ClientConnection, Transport
from trio_sandbox.relay.events import Opener
from trio_sandbox.relay.link import AgentLink, LinkLost, Session
from trio_sandbox.relay.messages import (
    Exec,
)
from trio_sandbox.relay.survivors import Survivors
from trio_sandbox.service import service

CONNECTION_LIMIT = 128
"""Connections at once, those that wait for a place among them; one more is closed without a word."""

Accept = Callable[[Transport], Awaitable[None]]


class Listener(Protocol):
    """Something that accepts clients: a Unix socket, a WebSocket."""

    @property
    def address(self) -> str: ...
    async def serve(self, accept: Accept, *, task_status: trio.TaskStatus[None]) -> None:
        """Accept clients until cancelled; report `started()` once it listens."""


class SandboxFacts(Protocol):
    """What the relay asks its sandbox."""

    def welcome(self, slot: int, limit: int, used: int) -> Welcome: ...
    def check_open(self) -> None: ...
    async def answer(self, request: Request) -> Answer: ...
    def forkable(self) -> AbstractAsyncContextManager[str]: ...


@attrs.define(eq=False)
class Relay:
    """One sandbox's relay. `begin` gives it the agent stream when there is one."""

    facts: SandboxFacts
    listeners: tuple[Listener, ...] = ()
    admission: Admission = attrs.Factory(Admission)
    _link: AgentLink | None = None
    _survivors: Survivors | None = None
    _own: ClientChannel | None = None
    _connections: set[ClientConnection] = attrs.Factory(set)
    _begun: trio.Event = attrs.Factory(trio.Event)
    _answering: int = 0
    _answered: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    # -- its life

    async def serve(self, *, task_status: trio.TaskStatus[Relay]) -> None:
        """Be the relay until the block that it serves ends."""
        async with AsyncExitStack() as stack:
            for listener in self.listeners:
                await stack.enter_async_context(service(listener.serve, self._accept, name=listener.address))
            task_status.started(self)
            await trio.sleep_forever()

    async def _accept(self, transport: Transport) -> None:
        connection = ClientConnection(transport, self)
        self._connections.add(connection)
        try:
            if len(self._connections) <= CONNECTION_LIMIT:
                await self._begun.wait()  # a client that comes while the machine starts waits for it
                await connection.serve()
        finally:
            self._connections.discard(connection)
            with trio.CancelScope(shield=True):  # closing a socket does not wait
                await transport.aclose()

    def begin(self, link: AgentLink) -> None:
        """The machine is ready: this process has its own channel, and clients are served."""
        self._link = link
        self._survivors = Survivors(link)
        self._own = ClientChannel(link, self.admission.clients.acquire_nowait())
        self._begun.set()

    def end(self, ended: Ended) -> None:
        """The machine is gone: tell every client."""
        for connection in list(self._connections):
            connection.end(attrs.evolve(ended, console_tail=shortened(ended.console_tail)))

    async def last_words(self) -> None:
        """Wait, a moment only, until those who asked for the end have their answer; shielded from cancellation."""
        with trio.move_on_after(LAST_WORDS_TIMEOUT, shield=True):
            while self._answering:
                await self._answered.park()

    # -- what connections ask

    @property
    def link(self) -> AgentLink:
        """The agent stream. Raises LinkLost before there is one."""
        if self._link is None:
            raise LinkLost
        return self._link

    @property
    def survivors(self) -> Survivors:
        """The sessions that outlive their clients."""
        if self._survivors is None:
            raise LinkLost
        return self._survivors

    def welcome(self, slot: int) -> Welcome:
        """What a new client is told."""
        return self.facts.welcome(slot, self.admission.clients.limit, self.admission.clients.used)

    @property
    def transports(self) -> tuple[Transport, ...]:
        """Those of the clients behind sockets that are connected now."""
        return tuple(connection.transport for connection in self._connections)

    def check_open(self) -> None:
        """Raise why no session may begin, if none may."""
        self.facts.check_open()

    async def answer(self, request: Request) -> Answer:
        """Do what a control connection asks."""
        self._answering += 1
        try:
            answer = await self.facts.answer(request)
            return attrs.evolve(answer, console_tail=shortened(answer.console_tail))
        finally:
            self._answering -= 1
            self._answered.unpark_all()

    @asynccontextmanager
    async def forkable(self) -> AsyncIterator[Answer]:
        """The answer to "fork", and what it tells of for the length of the block."""
        async with self.facts.forkable() as told:
            yield Answer(fork=told)

    # -- this process's own channel

    def open_session(self, request: Opener) -> Session:
        """Begin a session of this process's handle. Raises ExecFailedError, and why none may begin."""
        self.facts.check_open()
        assert self._own is not None
        link, survivors = self.link, self.survivors
        made: list[Session] = []

        def make(over: Callable[[int], None], number: int, grant: Grant) -> Session:
            leave = None if over == self._own_ended else partial(survivors.leave, number)
            made.append(Session(number, link, partial(over, number), leave))
            return made[0]

        if isinstance(request, Attach):
            survivors.attach(request.session_id, partial(make, survivors.forget), replay=request.replay)
            if request.rows and request.cols:
                made[0].resize(request.rows, request.cols)
        elif isinstance(request, Exec) and (request.detached or request.detachable):
            survivors.open(request, partial(make, survivors.forget))
        else:
            self._own.open(request, partial(make, self._own_ended))
        return made[0]

    def _own_ended(self, number: int) -> None:
        assert self._own is not None
        self._own.ended(number)
