"""One session as its owner sees it, apart from waiting. Sans-IO; the same on Trio and behind a client's connection.

Rule: bytes count as consumed when `pop` returns them. What arrives is bounded by credit, so `take` never has to wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from trio_sandbox.errors import LocalProtocolError
from trio_sandbox.relay.client_messages import (
    Opened,
)
from trio_sandbox.relay.events import DataReceived, MessageReceived, WindowOpened, append_joined
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Deadline,
    Resize,
    Signal,
)
from trio_sandbox.relay.mux import Mux
from trio_sandbox.relay.states import FINAL

SessionEvent = MessageReceived | DataReceived | WindowOpened


class SessionBuffer:
    """What has arrived for one session and was not received yet, and what it has still to send.

    changed: called when the mux has something to write. session_id: the session's number in the sandbox.
    """

    def __init__(self, mux: Mux, number: int, changed: Callable[[], None], *, replayed: bool = False) -> None:
        self.id = number
        self.session_id = number
        self.stdin_open = True
        self.over = False
        self.abandoned = False
        self._mux = mux
        self._changed = changed
        self._inbox: deque[MessageReceived | DataReceived] = deque()
        self._unsent = memoryview(b"")
        self._end_after_unsent = False
        self._ended = False

    # -- from the stream

    def take(self, event: SessionEvent) -> None:
        """Put an event where `pop` finds it, or send what the new credit allows."""
        if isinstance(event, WindowOpened):
            self._push()
            return
        if isinstance(event, MessageReceived) and isinstance(event.message, Opened):
            self.session_id = event.message.session_id
            self._push()
            return
        if event.type is FrameType.STDIN_CLOSED or event.type in FINAL:
            self.stdin_open = False
            self._unsent = memoryview(b"")
        self._ended = self._ended or event.type in FINAL
        append_joined(self._inbox, event)

    def pop(self) -> MessageReceived | DataReceived | None:
        """The next event, None when none has arrived."""
        if not self._inbox:
            return None
        event = self._inbox.popleft()
        if isinstance(event, DataReceived):
            event = self._joined(event)
            if event.session:
                self._mux.acknowledge(self.id, len(event.data))
                self._changed()
        self.over = event.type in FINAL
        return event

    def _joined(self, event: DataReceived) -> DataReceived:
        """What a consumer that is behind finds of one stream in a row, as one event."""
        pieces = [event.data]
        while self._inbox:
            other = self._inbox[0]
            if not isinstance(other, DataReceived) or (other.type, other.session) != (event.type, event.session):
                break
            pieces.append(other.data)
            self._inbox.popleft()
        return event if len(pieces) == 1 else DataReceived(event.type, event.session, b"".join(pieces))

    # -- to the stream

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
            self._changed()
        if end:
            self.stdin_open = self._end_after_unsent = False

    def send_some(self, data: memoryview) -> memoryview:
        """Send as much standard input as there is credit for; what is left."""
        size = min(len(data), self._mux.sendable(self.id))
        if size:
            self._mux.send_data(FrameType.STDIN, self.id, data[:size])
            self._changed()
        return data[size:]

    def close_stdin(self) -> None:
        """Send the end of standard input. Harmless when it is closed already."""
        if self.stdin_open and self._mux.is_open(self.id):
            self._mux.send_data(FrameType.STDIN, self.id, b"", end=True)
            self._changed()
        self.stdin_open = False

    def signal(self, number: int) -> None:
        """Send a signal to the program's process group. Harmless when it has ended."""
        self._say(Signal(number))

    def resize(self, rows: int, cols: int) -> None:
        """Tell the program's terminal its size. Harmless when it has ended."""
        self._say(Resize(rows, cols))

    def set_deadline(self, ms: int) -> None:
        """Have the guest end the session `ms` milliseconds from now; 0 for never. Harmless when it has ended."""
        self._say(Deadline(ms))

    def _say(self, message: Signal | Resize | Deadline) -> None:
        if self._mux.is_open(self.id):
            self._mux.send_message(message, self.id)
            self._changed()

    def kill(self) -> None:
        """Kill everything that the session started. Harmless when it has ended."""
        if self._mux.is_open(self.id):
            self._mux.send_empty(FrameType.KILL, self.id)
            self._changed()

    def raise_if_abandoned(self) -> None:
        """Raises LocalProtocolError when its owner has let go of it: nothing will arrive any more."""
        if self.abandoned:
            raise LocalProtocolError(
                "this session was closed before the guest confirmed its end, so how it ended is not known"
            )

    def let_go(self) -> None:
        """Nobody will receive again: what has arrived counts as consumed."""
        for event in self._inbox:
            if isinstance(event, DataReceived) and event.session:
                self._mux.acknowledge(self.id, len(event.data), at_once=True)
        self._inbox.clear()
        self._unsent = memoryview(b"")
        self.stdin_open = False
        self._changed()
