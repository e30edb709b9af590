"""What the agent owes a host that says these frames: docs/wire.md as a second, slower implementation.

The oracle reads the very bytes that are sent, so whatever made them need not know what they mean. What programs do is
not foreseen: a session that runs may end at any moment, so a frame for it may be answered or not. All else is exact:
every PONG, every ERROR with its code, in the order of the frames, and one last frame for each session.
"""

from __future__ import annotations

import enum
import struct
from collections import Counter

import attrs
from hypothesis import reject

from tests.guest.agent_client import BODY_MAX, HEADER, MORE, TYPES
from tests.guest.fuzz_maps import FS_OPS, is_good_body, read_map
from trio_sandbox.relay.frames import RULES, FrameType, Role, Scope

MAP_MAX = 1 << 20
OPENERS = ("EXEC", "FS", "EMIT", "SUBSCRIBE")
# Last frames of what was opened by a map that is right. An argument that the kernel finds too long is a bad one too.
LAST = {
    "EXEC": frozenset({
        "EXITED", "FAILED not_found", "FAILED permission_denied", "FAILED not_executable", "FAILED bad_cwd",
        "FAILED user_setup_failed", "FAILED resource_limit", "FAILED pty_setup_failed", "FAILED other",
    }),
    "FS": frozenset({"DONE", "FAILED user_setup_failed"}),
    "SUBSCRIBE": frozenset({"DONE", "FAILED too_many_sessions"}),
}  # fmt: skip


class Phase(enum.Enum):
    WAITING = "for CONFIGURE"
    TEMPLATE = "for IDENTIFY"
    SERVING = "sessions"
    STOPPING = "it may end at any moment"
    ENDING = "the stream is broken, or the boot has failed: it must end"


@attrs.frozen
class Sent:
    """A whole frame of the host."""

    name: str
    flags: int
    slot: int
    session: int
    body: bytes = attrs.field(repr=lambda body: repr(body[:60]))


@attrs.frozen
class Answer:
    """One that comes in the order of the frames: PONG, ERROR with one of these codes, READY or BOOT_FAILED."""

    name: str
    session: int = 0
    slot: int = 0
    one_of: frozenset[str | bytes] = frozenset()
    must: bool = True
    to: str = ""


class State(enum.Enum):
    """How much is known of a session."""

    REQUEST = "its opening message is not whole, and nothing can have ended it"
    DOUBTFUL = "its opening message was not whole when it was given a deadline"
    OPEN = "it was opened, and has nothing that could end by itself"
    RUNNING = "it was opened, and may have ended since"
    OVER = "it has ended"


@attrs.define
class Session:
    kind: str
    slot: int
    must_end: bool = True
    state: State = State.REQUEST
    parts: bytearray = attrs.field(factory=bytearray)
    last: frozenset[str] = frozenset()
    """What its last frame may be: the name of its type, and what is special about it. Empty: anything."""
    window: int = 256 * 1024
    credited: int = 0
    fed: int = 0

    @property
    def is_certain(self) -> bool:
        """Whether it is open still, beyond doubt."""
        return self.state in (State.REQUEST, State.OPEN)

    def end(self, *last: str) -> None:
        self.state, self.last = State.OVER, frozenset(last)

    def kill(self) -> None:
        if self.state is State.REQUEST:
            self.end("FAILED other")
        elif self.state is State.OPEN:
            self.end("DONE")


def header_fault(raw: bytes) -> str | None:
    """The code that answers this header; None when a host may send it."""
    length, number, flags, _slot, session, reserved = HEADER.unpack(raw)
    if length > BODY_MAX:
        return "bad_length"
    if reserved:
        return "bad_reserved"
    if number not in TYPES:
        return "bad_type"
    rule = RULES[FrameType(number)]
    if Role.HOST not in rule.senders:
        return "bad_direction"
    if flags & ~int(rule.flags):
        return "bad_flags"
    if rule.scope is not Scope.EITHER and (session != 0) != (rule.scope is Scope.SESSION):
        return "bad_session"
    return None


@attrs.define
class Oracle:
    """Told what is sent; `answers` and `sessions` say what must come back for it."""

    phase: Phase = Phase.WAITING
    newest: int = 0
    sessions: dict[int, Session] = attrs.field(factory=dict)
    answers: list[Answer] = attrs.field(factory=list)
    opened: Counter[int] = attrs.field(factory=Counter)
    frames: int = 0
    pending: bytearray = attrs.field(factory=bytearray)
    boots_badly: bool = False
    """It said BOOT_FAILED, or may have."""

    def forget(self) -> None:
        """What was said until now is settled: every session has ended."""
        self.sessions.clear()
        self.answers.clear()
        self.opened.clear()

    @property
    def lacking(self) -> int:
        """Bytes until the frame that was begun is whole; 0 when none was."""
        if not self.pending or self.phase is Phase.ENDING:
            return 0
        if len(self.pending) < HEADER.size:
            return HEADER.size - len(self.pending)
        return HEADER.size + int(HEADER.unpack_from(self.pending)[0]) - len(self.pending)

    def feed(self, raw: bytes) -> None:
        """Bytes that the host sends next."""
        self.pending += raw
        at, end = 0, len(self.pending)
        while self.phase is not Phase.ENDING and end - at >= HEADER.size:
            header = bytes(self.pending[at : at + HEADER.size])
            if fault := header_fault(header):
                self.frames += 1
                self._answer("ERROR", 0, 0, {fault}, to="a bad header")
                self.phase = Phase.ENDING
                break
            length, number, flags, slot, session, _ = HEADER.unpack(header)
            if end - at < HEADER.size + length:
                break
            start = at + HEADER.size
            at = start + length
            self.frames += 1
            self._take(Sent(TYPES[number], flags, slot, session, bytes(self.pending[start:at])), more=at < end)
        del self.pending[:at]

    def _answer(
        self, name: str, session: int, slot: int, one_of: set[str] | set[bytes], must: bool = True, to: str = ""
    ) -> None:
        must = must and self.phase is not Phase.STOPPING
        self.answers.append(Answer(name, session, slot, frozenset(one_of), must, to))

    def _refuse(self, frame: Sent, *codes: str, must: bool = True) -> None:
        self._answer("ERROR", frame.session, frame.slot, set(codes), must, to=frame.name)

    def _take(self, frame: Sent, more: bool) -> None:
        if self.phase is Phase.WAITING and frame.name not in ("CONFIGURE", "PING", "SHUTDOWN"):
            self._refuse(frame, "not_ready")
        elif frame.name in OPENERS:
            self._open(frame)
        elif frame.session:
            self._session_frame(frame)
        else:
            self._machine_frame(frame, more)

    def _machine_frame(self, frame: Sent, more: bool) -> None:
        good = is_good_body(frame.name, frame.body)
        if frame.name == "CONFIGURE" and self.phase is not Phase.WAITING:
            self._refuse(frame, "already_configured")
        elif frame.name == "CONFIGURE":
            self._configure(frame, good, more)
        elif not good:
            self._refuse(frame, "bad_body")
        elif frame.name == "PING":
            self._answer("PONG", 0, frame.slot, {frame.body}, to="PING")
        elif frame.name == "SHUTDOWN":
            self.phase = Phase.STOPPING
        elif frame.name == "CLIENT_GONE":
            for session in self.sessions.values():
                if session.slot == frame.slot:
                    session.kill()
        elif frame.name == "FREEZE" and self.phase is Phase.SERVING:
            reject()  # of a flipped bit: from then on it says nothing, so there is nothing to judge (test_freeze.py)
        elif frame.name in ("FREEZE", "THAW"):
            self._refuse(frame, "wrong_phase")
        elif frame.name == "IDENTIFY" and self.phase is Phase.TEMPLATE:
            self._answer("READY", 0, 0, set(), to="IDENTIFY")
            self.phase, self.newest = Phase.SERVING, 0
        elif frame.name == "IDENTIFY":
            self._refuse(frame, "already_configured")

    def _configure(self, frame: Sent, good: bool, more: bool) -> None:
        found = read_map(frame.body, ()) if good else {}
        if not good or found[b"version"] != 1:
            self._answer("BOOT_FAILED", 0, 0, {"configure"}, to="CONFIGURE")
            self.phase, self.boots_badly = Phase.ENDING, True
        elif found.get(b"template") is True and more:  # whether the rest is there already is a matter of luck
            self._answer("BOOT_FAILED", 0, 0, {"template"}, must=False, to="CONFIGURE")
            self._answer("READY", 0, 0, set(), must=False, to="CONFIGURE")
            self.phase, self.boots_badly = Phase.STOPPING, True
        else:
            self._answer("READY", 0, 0, set(), to="CONFIGURE")
            self.phase = Phase.TEMPLATE if found.get(b"template") is True else Phase.SERVING

    def _open(self, frame: Sent) -> None:
        session = self.sessions.get(frame.session)
        if session and session.state is State.REQUEST:
            if session.slot != frame.slot or session.kind != frame.name:
                self._refuse(frame, "session_reused")
                return
        elif frame.session <= self.newest:
            self._refuse(frame, "session_reused", must=not (session and session.state is State.DOUBTFUL))
            return
        else:
            self.newest = frame.session
            self.opened[frame.session] += 1
            session = Session(frame.name, frame.slot, must_end=self.phase is not Phase.STOPPING)
            self.sessions[frame.session] = session
        if self.phase is not Phase.SERVING:
            session.end("FAILED other")
        elif len(session.parts) + len(frame.body) > MAP_MAX:
            session.end("FAILED bad_args")
        else:
            session.parts += frame.body
            if not frame.flags & MORE:
                self._begin(session)

    @staticmethod
    def _begin(session: Session) -> None:
        raw = bytes(session.parts)
        session.parts.clear()
        session.state = State.RUNNING
        if not is_good_body(session.kind, raw):
            session.end("FAILED bad_args")
            return
        found = read_map(raw, ())
        window = found.get(b"window")
        if isinstance(window, int):
            session.window = window
        if session.kind == "FS" and found[b"op"] not in FS_OPS:
            session.end("DONE 38")
        elif session.kind == "EMIT":  # whether its payload is JSON is for others to test
            session.end("DONE", "FAILED bad_args")
        else:
            session.last = LAST[session.kind]
            # There may be so many subscriptions, and these scripts have not half of them.
            session.state = State.OPEN if session.kind == "SUBSCRIBE" else State.RUNNING

    def _session_frame(self, frame: Sent) -> None:
        session = self.sessions.get(frame.session)
        if frame.session > self.newest:
            self._refuse(frame, "unknown_session")
            return
        if session is None or session.state is State.OVER:
            return
        if session.slot != frame.slot:
            self._refuse(frame, "wrong_slot", must=session.is_certain)
        elif not is_good_body(frame.name, frame.body):
            self._refuse(frame, "bad_body", must=session.is_certain)
        elif session.is_certain:
            self._certain_frame(frame, session)
        elif frame.name == "STDIN":
            session.fed += len(frame.body)
            self._refuse(frame, "no_stdin", "stdin_ended", "overdraw", must=False)
        elif frame.name == "CREDIT":
            session.credited += credit_of(frame)
            self._refuse(frame, "overdraw", must=False)

    def _certain_frame(self, frame: Sent, session: Session) -> None:
        """A right frame for a session without a process."""
        if frame.name == "STDIN":
            self._refuse(frame, "no_stdin")
        elif frame.name == "CREDIT":
            self._credit_without_process(frame, session)
        elif frame.name == "KILL" or (frame.name == "SIGNAL" and session.state is State.REQUEST):
            session.kill()
        elif frame.name == "DEADLINE" and read_map(frame.body, ())[b"deadline_ms"] != 0:
            session.state = State.DOUBTFUL if session.state is State.REQUEST else State.RUNNING

    def _credit_without_process(self, frame: Sent, session: Session) -> None:
        credit = credit_of(frame)
        if credit > session.window or (credit and session.state is State.REQUEST):
            self._refuse(frame, "overdraw")
            session.kill()
        elif credit:  # events may have come, and used some
            session.credited += credit
            session.state = State.RUNNING
            self._refuse(frame, "overdraw", must=False)


def credit_of(frame: Sent) -> int:
    """The bytes that a CREDIT speaks of."""
    return int(struct.unpack("<I", frame.body)[0])
