"""Sessions that outlive their client: started detached, or detached from. One at most is attached to each.

The relay reads them while nobody does, keeps the newest output, and gives it to whoever attaches next. One that ended
unseen is kept too, so that its end can still be learnt; the oldest such make room for new ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs

from trio_sandbox.errors import ExecFailedError
from trio_sandbox.relay.budget import Grant
from trio_sandbox.relay.channel import ClientChannel
from trio_sandbox.relay.client_messages import (
    SessionInfo,
)
from trio_sandbox.relay.events import JOINED_SIZE, DataReceived, MessageReceived
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.link import AgentLink, Sink
from trio_sandbox.relay.messages import (
    Exec,
    Started,
)
from trio_sandbox.relay.session import SessionEvent
from trio_sandbox.relay.states import FINAL

REPLAY_BYTES = 65_536
"""Bytes of recent output that are kept for each session."""
ENDED_LIMIT = 64
"""Sessions that ended while nobody was attached, and are kept."""
COMMAND_LIMIT = 200
"""Bytes of a command as `infos` shows it: all of them go into one message."""
ENOENT, EBUSY = 2, 16

Make = Callable[[int, Grant], Sink]


class RecentOutput:
    """The newest REPLAY_BYTES of a session's output, as the pieces that came."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[FrameType, bytes]] = deque()
        self._size = 0

    def add(self, kind: FrameType, data: bytes) -> None:
        """Keep `data`, and forget as much of the oldest."""
        data = data[-REPLAY_BYTES:]
        self._size += len(data)
        if self._pieces and self._pieces[-1][0] is kind and len(self._pieces[-1][1]) + len(data) <= JOINED_SIZE:
            data = self._pieces.pop()[1] + data
        self._pieces.append((kind, data))
        while self._size > REPLAY_BYTES:
            oldest_kind, oldest = self._pieces.popleft()
            surplus = self._size - REPLAY_BYTES
            self._size -= len(oldest)
            if surplus < len(oldest):
                self._pieces.appendleft((oldest_kind, oldest[surplus:]))
                self._size += len(oldest) - surplus

    def events(self) -> list[DataReceived]:
        """What is kept, as events of session 0: they cost no credit."""
        return [DataReceived(kind, 0, data) for kind, data in self._pieces]


@attrs.define(eq=False)
class Survivor:
    """One session that outlives its client, as the link's sink."""

    number: int
    grant: Grant
    command: str
    tty: bool
    registry: Survivors
    survives: bool
    """Whether its client's end leaves it running: from the start, or once it was detached from."""
    recent: RecentOutput = attrs.Factory(RecentOutput)
    attached: Sink | None = None
    started: MessageReceived | None = None
    end: MessageReceived | None = None

    def take(self, event: SessionEvent) -> None:
        if isinstance(event, DataReceived):
            self.recent.add(event.type, event.data)
            if self.attached is None:
                self.registry.link.acknowledge(self.number, len(event.data))
        elif isinstance(event, MessageReceived):
            if event.type is FrameType.STARTED:
                self.started = event
            elif event.type in FINAL:
                self.end = event
                self.registry.ended(self)
        if self.attached is not None:
            self.attached.take(event)

    def wake(self) -> None:
        if self.attached is not None:
            self.attached.wake()

    @property
    def pid(self) -> int:
        """Of the program in the guest, 0 before it has started."""
        message = self.started.message if self.started is not None else None
        return message.pid if isinstance(message, Started) else 0

    @property
    def info(self) -> SessionInfo:
        """What `Sandbox.sessions()` tells of it."""
        return SessionInfo(self.number, self.pid, self.command, self.tty, self.attached is not None)


@attrs.define(eq=False)
class Survivors:
    """All such sessions of one sandbox. They count for nobody's budget but their own."""

    link: AgentLink
    channel: ClientChannel = attrs.field(init=False)
    _all: dict[int, Survivor] = attrs.Factory(dict)

    def __attrs_post_init__(self) -> None:
        self.channel = ClientChannel(self.link, slot=0)

    def open(self, request: Exec, make: Make) -> int:
        """Start a program that survives; what `make` returns is attached to it. Raises as `ClientChannel.open`."""
        command = " ".join(word.decode(errors="replace") for word in request.argv)
        command = command.encode()[:COMMAND_LIMIT].decode(errors="ignore")

        def sink(number: int, grant: Grant) -> Sink:
            survivor = Survivor(number, grant, command, request.tty, self, request.detached)
            survivor.attached = make(number, grant)
            self._all[number] = survivor
            return survivor

        deadline = 0 if request.detached else request.deadline_ms
        return self.channel.open(attrs.evolve(request, deadline_ms=deadline), sink)

    def attach(self, number: int, make: Make, *, replay: bool = True) -> Sink:
        """Attach what `make` returns to a session that nobody is attached to: it gets STARTED, the recent output, and
        what comes. Raises ExecFailedError (no_such_session, stayed_with_parent, session_busy), and the machine's
        failure.
        """
        self.link.raise_failure()
        survivor = self._all.get(number)
        if survivor is None and 0 < number < self.link.first_session:
            text = f"session {number} stayed with the sandbox that this one was forked from"
            raise ExecFailedError("stayed_with_parent", ENOENT, text)
        if survivor is None:
            raise ExecFailedError("no_such_session", ENOENT, f"there is no session {number} to attach to")
        if survivor.attached is not None:
            raise ExecFailedError("session_busy", EBUSY, f"somebody is attached to session {number} already")
        sink = survivor.attached = make(number, survivor.grant)
        if survivor.started is not None:
            sink.take(survivor.started)
        for event in survivor.recent.events() if replay else ():
            sink.take(event)
        if survivor.end is not None:
            sink.take(survivor.end)
        return sink

    def leave(self, number: int) -> None:
        """Whoever is attached detaches. It lets go of what it has not consumed by itself."""
        if (survivor := self._all.get(number)) is not None:
            survivor.attached = None
            survivor.survives = True
            self._make_room()

    def lose(self, number: int) -> None:
        """Whoever was attached has gone without a word: as `leave` for one that survives that, else it is killed."""
        survivor = self._all.get(number)
        if survivor is None or survivor.survives:
            self.leave(number)
            return
        self.link.redirect(number, None)
        self.link.kill(number)
        self.forget(number)

    def forget(self, number: int) -> None:
        """The session was killed, or its end was seen."""
        self._all.pop(number, None)
        self.channel.ended(number)

    def ended(self, survivor: Survivor) -> None:
        """A session is over: it costs nothing but its recent output from now on. Whoever is attached says `forget` when
        its end was seen.
        """
        self.channel.ended(survivor.number)
        self._make_room()

    def _make_room(self) -> None:
        over = [number for number, other in self._all.items() if other.end is not None and other.attached is None]
        for number in over[:-ENDED_LIMIT]:
            del self._all[number]

    @property
    def infos(self) -> tuple[SessionInfo, ...]:
        """The sessions, oldest first."""
        return tuple(survivor.info for survivor in self._all.values())
