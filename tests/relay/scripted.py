"""A guest for tests of the link: a Mux in the guest's role on a memory stream, moved by the test itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
import trio.testing

from trio_sandbox.relay.budget import Grant
from trio_sandbox.relay.channel import ClientChannel
from trio_sandbox.relay.events import DataReceived, Event, MessageReceived, Opener
from trio_sandbox.relay.frames import FrameType, Role
from trio_sandbox.relay.link import AgentLink, Session
from trio_sandbox.relay.messages import (
    Exited,
    Hello,
    Message,
    Ready,
)
from trio_sandbox.relay.mux import Mux
from trio_sandbox.service import service

EXITED = Exited(0, 0, False, False, False, 1, 2, 3)


class ScriptedGuest:
    """Says what the test tells it to, and keeps what the host said until the test asks."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.mux = Mux(Role.GUEST)
        self.events: list[Event] = []

    async def flush(self) -> None:
        while data := self.mux.data_to_send():
            await self.stream.send_all(data)

    async def say(self, message: Message, session: int = 0) -> None:
        self.mux.send_message(message, session)
        await self.flush()

    async def output(self, session: int, data: bytes, kind: FrameType = FrameType.STDOUT) -> None:
        self.mux.send_data(kind, session, data)
        await self.flush()

    async def absorb(self) -> None:
        """Take all that the host has to say; needs virtual time."""
        while True:
            with trio.move_on_after(1) as scope:
                self.events += self.mux.receive_data_untrusted(bytes(await self.stream.receive_some(65_536)))
            if scope.cancelled_caught:
                return

    async def next(self) -> Event:
        while not self.events:
            data = await self.stream.receive_some(65_536)
            assert data, "the host closed the stream"
            self.events += self.mux.receive_data_untrusted(bytes(data))
        return self.events.pop(0)

    async def next_message(self, kind: FrameType) -> MessageReceived:
        while True:
            event = await self.next()
            if isinstance(event, MessageReceived) and event.type is kind:
                return event

    async def next_data(self) -> DataReceived:
        while True:
            event = await self.next()
            if isinstance(event, DataReceived):
                return event


def open_session(link: AgentLink, request: Opener, channel: ClientChannel | None = None) -> Session:
    """A session on a channel of its own, or on `channel`."""
    channel = channel or ClientChannel(link, 1)
    made: list[Session] = []

    def make(number: int, grant: Grant) -> Session:
        made.append(Session(number, link, partial(channel.ended, number)))
        return made[0]

    channel.open(request, make)
    return made[0]


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[AgentLink, ScriptedGuest]]:
    """A link that is open for sessions, and its guest."""
    near, far = trio.testing.memory_stream_pair()
    link, guest = AgentLink(near), ScriptedGuest(far)
    async with service(link.serve, name="link"):
        await guest.say(Hello((1,), "scripted", "none"))
        await link.machine_message(FrameType.HELLO)
        await guest.say(Ready({}))
        await link.machine_message(FrameType.READY)
        yield link, guest
