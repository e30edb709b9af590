"""One session of a client behind a connection: frames of the agent stream to it, and its frames to the agent.

Runs in: whoever calls; owns no task and never waits. Credit goes end to end: what the client has not taken is not
credited to the agent, so all that can wait here for one session is its window and, after an ATTACH, the replay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from trio_sandbox.errors import RemoteProtocolError
from trio_sandbox.relay.budget import Grant
from trio_sandbox.relay.client_messages import (
    Detached,
    Opened,
)
from trio_sandbox.relay.events import DataReceived, MessageReceived, WindowOpened, append_joined
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.link import AgentLink
from trio_sandbox.relay.messages import (
    Deadline,
    Message,
    Resize,
    Signal,
)
from trio_sandbox.relay.mux import Mux
from trio_sandbox.relay.session import SessionEvent
from trio_sandbox.relay.states import FINAL

MAX_DEADLINE_MS = (2**63 - 1) // 1_000_000
"""The agent counts in nanoseconds, and refuses more."""


class Bridge:
    """The link's sink for one session of a client.

    local: the session's id on the client's connection. mux: the connection's. changed: the connection has something to
    write. ended: called once, when the session is over or let go. leave: detaches, None where that is impossible.
    """

    def __init__(
        self,
        local: int,
        mux: Mux,
        link: AgentLink,
        changed: Callable[[], None],
        ended: Callable[[], None],
        leave: Callable[[], None] | None = None,
    ) -> None:
        self.local = local
        self.number = 0
        self._mux = mux
        self._link = link
        self._changed = changed
        self._ended = ended
        self._leave = leave
        self._takes_input = False
        self._waiting: deque[MessageReceived | DataReceived] = deque()
        self._unacknowledged = 0  # bytes of the guest that the client has not consumed, sent or not
        self._replayed = 0  # bytes of a replay that were sent and not consumed: they cost the agent nothing

    def open(self, number: int, grant: Grant, *, takes_input: bool) -> None:
        """Tell the client what it was granted; what comes from the guest follows."""
        self.number = number
        window = grant.stdin_window if takes_input else 0
        self._takes_input = window > 0
        credit = self._link.mux.sendable(number) if self._takes_input else 0
        self._mux.send_message(Opened(number, grant.window, window, min(credit, window)), self.local)
        self._changed()

    # -- from the agent

    def take(self, event: SessionEvent) -> None:
        if isinstance(event, WindowOpened):
            self._mux.acknowledge(self.local, event.size, at_once=True)
        else:
            if isinstance(event, DataReceived) and event.session:
                self._unacknowledged += len(event.data)
            append_joined(self._waiting, event)
            self._pass_on()
        self._changed()

    def wake(self) -> None:
        """The machine is gone; the connection says so with ENDED."""

    def _pass_on(self) -> None:
        while self._waiting:
            event = self._waiting[0]
            if isinstance(event, DataReceived):
                size = min(len(event.data), self._mux.sendable(self.local))
                if size < len(event.data):
                    self._send_part(event, size)
                    return
                self._mux.send_data(event.type, self.local, event.data)
                self._replayed += 0 if event.session else len(event.data)
            self._waiting.popleft()
            if isinstance(event, MessageReceived) and event.message is not None:
                self._mux.send_message(event.message, self.local)
                if event.type in FINAL:
                    self._ended()

    def _send_part(self, event: DataReceived, size: int) -> None:
        """As much as the client has credit for; only a replay can come here, the guest never outruns its window."""
        if size:
            self._mux.send_data(event.type, self.local, event.data[:size])
            self._waiting[0] = DataReceived(event.type, event.session, event.data[size:])
            self._replayed += 0 if event.session else size

    # -- from the client

    def consumed(self, size: int) -> None:
        """The client took so many bytes."""
        replayed = min(size, self._replayed)
        self._replayed -= replayed
        size = min(size - replayed, self._unacknowledged)
        if size:
            self._unacknowledged -= size
            self._link.acknowledge(self.number, size, at_once=True)
        self._pass_on()
        self._changed()

    def stdin(self, event: DataReceived) -> None:
        """Bytes for the program. Those that it cannot take any more, because it or its input has ended, are dropped and
        credited, so that nobody waits for it.
        """
        mux = self._link.mux
        if self._takes_input and mux.takes_stdin(self.number) and mux.sendable(self.number) >= len(event.data):
            self._link.mux.send_data(FrameType.STDIN, self.number, event.data, end=event.end)
            self._link.wake_writer()
        else:
            self._mux.acknowledge(self.local, len(event.data), at_once=True)

    def message(self, kind: FrameType, message: Message | None) -> None:
        """A control frame for the session. Raises RemoteProtocolError for one that the agent would refuse."""
        if kind is FrameType.DETACH:
            self._detach()
            return
        _check(message)
        if not self._link.mux.is_open(self.number):
            return
        if message is None:
            self._link.mux.send_empty(kind, self.number)
        else:
            self._link.mux.send_message(message, self.number)
        self._link.wake_writer()

    def _detach(self) -> None:
        if self._leave is None:
            raise RemoteProtocolError(f"DETACH of session {self.number}, which does not survive its client")
        self._leave()
        self.let_go()
        self._mux.send_message(Detached(self.number), self.local)
        self._changed()

    def let_go(self) -> None:
        """The client has gone or left: what it has not taken counts as consumed."""
        if self._unacknowledged:
            self._link.acknowledge(self.number, self._unacknowledged, at_once=True)
        self._unacknowledged = 0
        self._waiting.clear()


def _check(message: Message | None) -> None:
    match message:
        case Signal(signal) if not 0 < signal <= 64:
            raise RemoteProtocolError(f"there is no signal {signal}")
        case Resize(rows, cols) if not (0 < rows < 1 << 16 and 0 < cols < 1 << 16):
            raise RemoteProtocolError(f"no terminal has {rows} rows and {cols} columns")
        case Deadline(milliseconds) if not 0 <= milliseconds <= MAX_DEADLINE_MS:
            raise RemoteProtocolError(f"a deadline of {milliseconds} ms")
