"""The sessions of one stream: bytes in, events out; calls in, bytes out. No I/O, no clock; the same code on both sides
of the agent stream, and on both sides of a client's connection.

Rule 1: a wrong call raises LocalProtocolError and changes nothing; wrong bytes raise RemoteProtocolError and the side
is in ERROR for good. No other exception leaves this file. Rule 2: nothing here waits. `data_to_send` says what to
write; control frames go before bulk, and bulk is taken from the sessions in turn.

Invariant 1: a closed session's id is never opened again. Invariant 2: bytes buffered for a session never exceed its
window (credit.py).
"""

from __future__ import annotations

import attrs

from trio_sandbox.errors import LocalProtocolError, RemoteProtocolError
from trio_sandbox.relay.client_messages import (
    Opened,
)
from trio_sandbox.relay.credit import WINDOW, ReceiveWindow, SendWindow
from trio_sandbox.relay.events import DataReceived, Event, MessageReceived, Opener, PingReceived, WindowOpened
from trio_sandbox.relay.frames import (
    MAX_BODY,
    MAX_SESSION,
    NO_FLAGS,
    RULES,
    Flag,
    Frame,
    FrameReader,
    FrameType,
    Role,
    encode,
)
from trio_sandbox.relay.messages import (
    EMPTY,
    MAX_MESSAGE,
    MAX_PING,
    TYPES,
    Message,
    decode_body_untrusted,
    encode_body,
)
from trio_sandbox.relay.outgoing import CREDIT, Outgoing
from trio_sandbox.relay.states import (
    OPENERS,
    SESSION_TRANSITIONS,
    SIDE_TRANSITIONS,
    TALKING,
    SessionState,
    SideState,
)


@attrs.define(eq=False)
class _Session:
    slot: int
    state: SessionState = SessionState.OPENING
    sending: SendWindow = attrs.Factory(SendWindow)
    receiving: ReceiveWindow = attrs.Factory(ReceiveWindow)
    stdin_ended: bool = False
    opener: FrameType = FrameType.EXEC
    complete: bool = False  # the opener has come whole
    parts: bytearray | None = None  # an opener that continues
    stdin_closed: bool = False
    opened: bool = False


class Mux:
    """One end of a stream. Not for two threads at once.

    state: CONFIGURING for the stream of a clone, whose agent has said HELLO to another host.
    """

    def __init__(self, role: Role, state: SideState = SideState.GREETING) -> None:
        self.role = role
        self.state = state
        self._reader = FrameReader(role.peer)
        self._sessions: dict[int, _Session] = {}
        self._highest = 0
        self._assembling: int | None = None  # the session whose opener continues
        self._outgoing = Outgoing(role)

    # -- what comes in

    def receive_data_untrusted(self, data: bytes | bytearray) -> list[Event]:
        """Take bytes of the peer and return what they mean. Raises RemoteProtocolError."""
        if self.state is SideState.ERROR:
            raise RemoteProtocolError("the stream is broken already")
        events: list[Event] = []
        try:
            for frame in self._reader.feed_untrusted(data):
                event = self._receive(frame)
                if event is not None:
                    events.append(event)
        except RemoteProtocolError:
            self.state = SideState.ERROR
            raise
        return events

    def _receive(self, frame: Frame) -> Event | None:
        if not frame.session:
            return self._receive_machine(frame)
        if self.state not in TALKING:
            raise RemoteProtocolError(f"{frame.type.name} in state {self.state.value}")
        session = self._sessions.get(frame.session)
        if session is None:
            session = self._unknown_session(frame)
            if session is None:
                return None
        step = SESSION_TRANSITIONS.get((session.state, frame.type))
        if step is None:
            raise RemoteProtocolError(f"{frame.type.name} for session {frame.session}, which is {session.state.value}")
        event = self._receive_session(frame, session)
        session.state = step
        if step is SessionState.CLOSED:
            self._forget(frame.session)
        return event

    def _receive_machine(self, frame: Frame) -> Event:
        step = SIDE_TRANSITIONS.get((self.state, frame.type))
        if step is None:
            raise RemoteProtocolError(f"{frame.type.name} in state {self.state.value}")
        if frame.type in (FrameType.PING, FrameType.PONG):
            if len(frame.body) > MAX_PING:
                raise RemoteProtocolError(f"{frame.type.name} of {len(frame.body)} bytes")
            self.state = step
            return PingReceived(frame.type, frame.body)
        event = MessageReceived(frame.type, 0, frame.slot, self._decode(frame))
        self.state = step
        return event

    def _unknown_session(self, frame: Frame) -> _Session | None:
        """A session that ended (its late frames mean nothing), or on the answering side one that begins."""
        if frame.type in OPENERS and frame.session > self._highest:
            self._highest = frame.session
            session = _Session(frame.slot, OPENERS[frame.type], opener=frame.type)
            self._sessions[frame.session] = session
            return session
        # Only one side opens and only the other closes, so only the opener's frames can come late.
        if not self.role.opens and frame.session <= self._highest:
            return None
        raise RemoteProtocolError(f"{frame.type.name} for session {frame.session}, which is not open")

    def _receive_session(self, frame: Frame, session: _Session) -> Event | None:
        if RULES[frame.type].bulk:
            if frame.type is FrameType.STDIN and session.stdin_ended:
                raise RemoteProtocolError(f"STDIN after its end in session {frame.session}")
            session.receiving.arrive_untrusted(len(frame.body))
            end = frame.flags is not NO_FLAGS and Flag.END in frame.flags
            session.stdin_ended = session.stdin_ended or end
            if not frame.body and not end:
                return None  # it costs no credit, so whoever is slow could be made to hold any number of them
            return DataReceived(frame.type, frame.session, frame.body, end)
        if frame.type is FrameType.CREDIT:
            if len(frame.body) != CREDIT.size:
                raise RemoteProtocolError(f"CREDIT of {len(frame.body)} bytes")
            size = CREDIT.unpack(frame.body)[0]
            session.sending.refill_untrusted(size)
            return WindowOpened(frame.session, size)
        if frame.type in OPENERS:
            return self._receive_opener(frame, session)
        message = self._decode(frame)
        if problem := _repeated(frame.type, session):
            raise RemoteProtocolError(f"{problem} for session {frame.session}")
        session.stdin_closed = session.stdin_closed or frame.type is FrameType.STDIN_CLOSED
        if isinstance(message, Opened):
            if not (0 <= message.window <= WINDOW and 0 <= message.stdin_credit <= message.stdin_window <= WINDOW):
                raise RemoteProtocolError(f"OPENED with windows of {message.window} and {message.stdin_window} bytes")
            session.opened = True
            session.sending = SendWindow.of(message.stdin_window, message.stdin_credit)
            session.receiving = ReceiveWindow.of(message.window)
        return MessageReceived(frame.type, frame.session, frame.slot, message)

    def _receive_opener(self, frame: Frame, session: _Session) -> Event | None:
        begins = session.parts is None
        if frame.type is not session.opener or (begins and session.complete):
            raise RemoteProtocolError(f"{frame.type.name} for session {frame.session}, which is {session.state.value}")
        if self._assembling not in (None, frame.session):  # so that what is kept of them is bounded
            raise RemoteProtocolError(f"{frame.type.name} before that of session {self._assembling} was whole")
        parts = session.parts = bytearray() if session.parts is None else session.parts
        parts += frame.body
        if len(parts) > MAX_MESSAGE:
            raise RemoteProtocolError(f"{frame.type.name} of more than {MAX_MESSAGE} bytes")
        if Flag.MORE in frame.flags:
            self._assembling = frame.session
            return None
        session.parts = self._assembling = None
        session.complete = True
        message = decode_body_untrusted(frame.type, bytes(parts))
        window, stdin_window = _windows(message)
        if not (0 <= window <= WINDOW and 0 <= stdin_window <= WINDOW):
            raise RemoteProtocolError(f"{frame.type.name} with windows of {window} and {stdin_window} bytes")
        if self.role is Role.GUEST:  # a relay grants the windows itself, with OPENED
            session.sending, session.receiving = SendWindow.of(window), ReceiveWindow.of(stdin_window)
        return MessageReceived(frame.type, frame.session, frame.slot, message)

    def _decode(self, frame: Frame) -> Message | None:
        if frame.type in EMPTY:
            if frame.body:
                raise RemoteProtocolError(f"{frame.type.name} with a body")
            return None
        return decode_body_untrusted(frame.type, frame.body)

    def _forget(self, session: int) -> None:
        del self._sessions[session]
        self._outgoing.forget(session)

    # -- what goes out

    def open_session(self, session: int, request: Opener, slot: int = 0) -> None:
        """Begin a session under a new id (host and client only). Raises LocalProtocolError for an id that is not new or
        a request over 1 MiB.
        """
        kind = TYPES[type(request)]
        if self.role not in RULES[kind].senders:
            raise LocalProtocolError(f"{kind.name}: not for the {self.role.value} to send")
        if self.state is not SideState.OPEN:
            raise LocalProtocolError(f"opening a session in state {self.state.value}")
        if not self._highest < session <= MAX_SESSION:
            raise LocalProtocolError(f"session {session} is not above {self._highest}")
        body = encode_body(request)
        if len(body) > MAX_MESSAGE:
            raise LocalProtocolError(f"a request of {len(body)} bytes is over {MAX_MESSAGE}")
        if len(body) > MAX_BODY and Flag.MORE not in RULES[kind].flags:
            raise LocalProtocolError(f"a {kind.name} of {len(body)} bytes is over {MAX_BODY}")
        self._highest = session
        entry = self._sessions[session] = _Session(slot, OPENERS[kind], opener=kind, complete=True)
        if self.role is Role.HOST:  # a client waits for OPENED
            window, stdin_window = _windows(request)
            entry.sending, entry.receiving = SendWindow.of(stdin_window), ReceiveWindow.of(window)
        for start in range(0, len(body), MAX_BODY):
            more = Flag.MORE if start + MAX_BODY < len(body) else Flag(0)
            self._outgoing.add_control(
                encode(Frame(kind, session, body[start : start + MAX_BODY], more, slot), self.role)
            )

    def send_message(self, message: Message, session: int = 0) -> None:
        """Queue a control message of the machine (session 0) or of an open session. Raises LocalProtocolError."""
        kind = TYPES[type(message)]
        if kind in OPENERS:
            raise LocalProtocolError(f"{kind.name} opens a session: see open_session")
        self._send(kind, encode_body(message), session)
        if isinstance(message, Opened):
            entry = self._sessions[session]
            entry.opened = True
            entry.sending = SendWindow.of(message.window)
            entry.receiving = ReceiveWindow.of(message.stdin_window, message.stdin_credit)

    def send_empty(self, kind: FrameType, session: int = 0, slot: int = 0) -> None:
        """Queue a control frame without a body. Raises LocalProtocolError."""
        if kind not in EMPTY:
            raise LocalProtocolError(f"{kind.name} has a body")
        self._send(kind, b"", session, slot)

    def send_ping(self, kind: FrameType, body: bytes) -> None:
        """Queue a PING, or the PONG that answers one."""
        if len(body) > MAX_PING:
            raise LocalProtocolError(f"a ping of {len(body)} bytes")
        self._send(kind, body, 0)

    def _send(self, kind: FrameType, body: bytes, session: int, slot: int = 0) -> None:
        if session:
            self._send_session(kind, body, session)
            return
        side_step = SIDE_TRANSITIONS.get((self.state, kind))
        if side_step is None:
            raise LocalProtocolError(f"{kind.name} in state {self.state.value}")
        self._outgoing.add_control(encode(Frame(kind, 0, body, slot=slot), self.role))
        self.state = side_step

    def _send_session(self, kind: FrameType, body: bytes, session: int) -> None:
        entry = self._session(session)
        step = SESSION_TRANSITIONS.get((entry.state, kind))
        if step is None:
            raise LocalProtocolError(f"{kind.name} for session {session}, which is {entry.state.value}")
        if problem := _repeated(kind, entry):
            raise LocalProtocolError(f"{problem} for session {session}")
        raw = encode(Frame(kind, session, body, slot=entry.slot), self.role)
        entry.state = step
        entry.stdin_closed = entry.stdin_closed or kind is FrameType.STDIN_CLOSED
        if step is SessionState.CLOSED:
            self._outgoing.add_after_bulk(session, raw)
            self._forget(session)
        elif kind is FrameType.DETACH:  # what was written before is for the program
            self._outgoing.add_after_bulk(session, raw)
        else:
            self._outgoing.add_control(raw)

    def send_data(self, kind: FrameType, session: int, data: bytes | memoryview, *, end: bool = False) -> None:
        """Queue bulk bytes, paid for with credit (see `sendable`); `bytes` are not copied. Raises LocalProtocolError
        without it.
        """
        entry = self._session(session)
        if not RULES[kind].bulk or self.role not in RULES[kind].senders:
            raise LocalProtocolError(f"{kind.name}: not for the {self.role.value} to send as data")
        if (entry.state, kind) not in SESSION_TRANSITIONS:
            raise LocalProtocolError(f"{kind.name} for session {session}, which is {entry.state.value}")
        if end and kind is not FrameType.STDIN:
            raise LocalProtocolError(f"{kind.name} ends with its session")
        if kind is FrameType.STDIN and entry.stdin_ended:
            raise LocalProtocolError(f"STDIN after its end in session {session}")
        entry.sending.spend(len(data))
        entry.stdin_ended = entry.stdin_ended or end
        if data or end:
            self._outgoing.add_bulk(kind, session, entry.slot, data, end)

    def acknowledge(self, session: int, size: int, *, at_once: bool = False) -> None:
        """The consumer took `size` bytes of DataReceived events; the peer is told in lots, or `at_once`. Fine after the
        session's end, when nobody needs to know.
        """
        entry = self._sessions.get(session)
        if entry is not None and (granted := entry.receiving.consume(size, at_once=at_once)):
            self._outgoing.add_credit(session, entry.slot, granted)

    def _session(self, session: int) -> _Session:
        entry = self._sessions.get(session)
        if entry is None or not entry.complete:
            raise LocalProtocolError(f"session {session} is not open")
        return entry

    def frames_to_send(self, limit: int = 2 * MAX_BODY) -> list[bytes]:
        """Take about `limit` bytes off the queues, a frame an item, control first; empty when there is nothing to
        write.

        What is returned counts as sent: if it cannot be written whole, the stream is lost.
        """
        return self._outgoing.take(limit)

    def data_to_send(self, limit: int = 2 * MAX_BODY) -> bytes:
        """The same as one piece; b"" when there is nothing to write."""
        return b"".join(self.frames_to_send(limit))

    # -- what can be asked

    def sendable(self, session: int) -> int:
        """Bytes that `send_data` takes for this session now; 0 when it is not open."""
        entry = self._sessions.get(session)
        return entry.sending.credit if entry else 0

    @property
    def control_size(self) -> int:
        """Bytes of control frames that wait to be written: for whoever must stop causing more of them."""
        return self._outgoing.control_size

    def takes_stdin(self, session: int) -> bool:
        """Whether standard input may still be sent, its end at least."""
        entry = self._sessions.get(session)
        return entry is not None and not entry.stdin_ended

    def is_open(self, session: int) -> bool:
        """Whether the session may still carry anything."""
        entry = self._sessions.get(session)
        return entry is not None and entry.complete

    @property
    def has_to_send(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._outgoing)

    @property
    def open_sessions(self) -> frozenset[int]:
        """The ids of the sessions that have not ended."""
        return frozenset(self._sessions)


def _repeated(kind: FrameType, session: _Session) -> str | None:
    """What comes once, so that nobody can be made to hold any number of it."""
    if kind is FrameType.OPENED and session.opened:
        return "OPENED twice"
    if kind is FrameType.STDIN_CLOSED and session.stdin_closed:
        return "STDIN_CLOSED twice"
    return None


def _windows(request: object) -> tuple[int, int]:
    """What the message that opens a session grants: bytes of output, bytes of standard input."""
    return getattr(request, "window", 0), getattr(request, "stdin_window", 0)
