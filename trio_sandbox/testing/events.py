"""EMIT and SUBSCRIBE, and the guest programs' side of both, with queues that drop and count as the agent's do."""

from __future__ import annotations

import errno
import json
from collections import deque
from typing import TYPE_CHECKING, Any, Self

import attrs
import trio

from trio_sandbox.client.event_lines import check_name, encode_payload
from trio_sandbox.relay.events import MessageReceived
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Done,
    Emit,
    Failed,
    Subscribe,
)
from trio_sandbox.testing.pipes import Pipe
from trio_sandbox.testing.session import AgentSession, Killed

if TYPE_CHECKING:
    from trio_sandbox.testing.agent import SimulatedAgent
    from trio_sandbox.testing.processes import Process

WAITING_LIMIT = 262_144
"""Bytes of lines that may wait in one queue, EVENT_OVERHEAD counted for each."""
EVENT_OVERHEAD = 64
SUBSCRIPTION_LIMIT = 128


@attrs.define(eq=False)
class EventQueue:
    """The lines that one listener has not taken yet. name: of the events that it wants, "" for all."""

    name: str
    drop_oldest: bool
    lines: deque[bytes] = attrs.Factory(deque)
    dropped: int = 0
    _cost: int = 0

    def wants(self, name: str) -> bool:
        return self.name in ("", name)

    def add(self, line: bytes) -> None:
        """Keep a line, or count one that is lost."""
        cost = len(line) + EVENT_OVERHEAD
        while self.drop_oldest and self.lines and self._cost + cost > WAITING_LIMIT:
            self._forget()
            self.dropped += 1
        if self._cost + cost > WAITING_LIMIT:
            self.dropped += 1
            return
        self.lines.append(line)
        self._cost += cost

    def _forget(self) -> bytes:
        line = self.lines.popleft()
        self._cost -= len(line) + EVENT_OVERHEAD
        return line

    def take(self) -> tuple[int, bytes] | None:
        """How many were lost before the next line, and the line."""
        if not self.lines:
            return None
        dropped, self.dropped = self.dropped, 0
        return dropped, self._forget()


class Subscription(AgentSession):
    """SUBSCRIBE: lines on STDOUT as far as credit goes."""

    def __init__(self, agent: SimulatedAgent, opened: MessageReceived, request: Subscribe) -> None:
        super().__init__(agent, opened)
        self.queue = EventQueue(request.name, request.drop_oldest)
        self._out = self.output(FrameType.STDOUT, Pipe(capacity=1 << 20))

    def pump(self) -> None:
        super().pump()
        while not self._out.data and not self.is_over and (taken := self.queue.take()) is not None:
            dropped, line = taken
            self._out.put((b"! %d\n" % dropped if dropped else b"") + line)
            super().pump()

    def kill(self, why: Killed) -> None:
        super().kill(why)
        self.finish(Done())

    def end(self) -> None:
        """The sandbox stops."""
        self.finish(Done())


@attrs.define(eq=False)
class Listener:
    """A guest program that listens: an async iterator of (name, payload). dropped: how many were lost so far."""

    queue: EventQueue
    _process: Process
    dropped: int = 0
    _arrived: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    @property
    def is_gone(self) -> bool:
        """Whether its process has ended."""
        return self._process.pid not in self._process.table.alive

    def add(self, line: bytes) -> None:
        self.queue.add(line)
        self._arrived.unpark_all()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, Any]:
        await self._process.turn()
        while (taken := self.queue.take()) is None:
            await self._arrived.park()
        self.dropped += taken[0]
        name, _, payload = taken[1].decode().partition(" ")
        return name, json.loads(payload)


@attrs.define(eq=False)
class EventHub:
    """Who listens to what."""

    subscriptions: dict[int, Subscription] = attrs.Factory(dict)
    _listeners: list[Listener] = attrs.Factory(list)

    def emit(self, name: str, payload: Any) -> None:
        """A program's event, to the host. Raises ValueError and TypeError for what is none."""
        check_name(name)
        line = b"%s %s\n" % (name.encode(), encode_payload(payload))
        for subscription in list(self.subscriptions.values()):
            if subscription.queue.wants(name):
                subscription.queue.add(line)
                subscription.pump()

    def listen(self, name: str, *, drop_oldest: bool, owner: Process) -> Listener:
        """Listen from now on."""
        listener = Listener(EventQueue(name, drop_oldest), owner)
        self._listeners.append(listener)
        return listener

    def tell(self, event: Emit) -> Done:
        """The host's event, to the programs."""
        self._listeners = [listener for listener in self._listeners if not listener.is_gone]
        line = b"%s %s\n" % (event.name.encode(), event.payload)
        wanting = [listener for listener in self._listeners if listener.queue.wants(event.name)]
        for listener in wanting:
            listener.add(line)
        return Done(count=len(wanting))

    def refusal(self) -> Failed | None:
        """Why there can be no further subscription."""
        if len(self.subscriptions) < SUBSCRIPTION_LIMIT:
            return None
        return Failed("too_many_sessions", errno.EAGAIN, "too many subscriptions are open")
