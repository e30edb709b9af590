"""Frames: a 16-byte header and a body, as docs/wire.md draws them. Sans-IO.

Rule 1: every constant of the framing is here, once. Rule 2: this file does not know what a frame means, except for what
the header alone can tell: which types exist, who may send them, and whether they belong to a session.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator

import attrs

from trio_sandbox.errors import LocalProtocolError, RemoteProtocolError

HEADER = struct.Struct("<IBBHII")
MAX_BODY = 65_536
"""Bytes of body in one frame: large enough that the header costs nothing, small enough that control is never far
behind.
"""
MAX_SESSION = (1 << 32) - 1
PROTOCOL_VERSION = 1


class Role(enum.Enum):
    """The ends of a stream: HOST and GUEST of the agent stream, CLIENT and RELAY of a client's connection."""

    HOST = "host"
    GUEST = "guest"
    CLIENT = "client"
    RELAY = "relay"

    @property
    def peer(self) -> Role:
        return _PEERS[self]

    @property
    def opens(self) -> bool:
        """Whether this end opens sessions; the other one ends them."""
        return self in (Role.HOST, Role.CLIENT)


_PEERS = {Role.HOST: Role.GUEST, Role.GUEST: Role.HOST, Role.CLIENT: Role.RELAY, Role.RELAY: Role.CLIENT}


class FrameType(enum.IntEnum):
    """The types of docs/wire.md."""

    HELLO = 0x01
    CONFIGURE = 0x02
    READY = 0x03
    BOOT_FAILED = 0x04
    PING = 0x05
    PONG = 0x06
    SHUTDOWN = 0x07
    GOODBYE = 0x08
    CLOCK = 0x09
    CLIENT_GONE = 0x0A
    IDENTIFY = 0x0B
    FREEZE = 0x0C
    FROZEN = 0x0D
    THAW = 0x0E
    ERROR = 0x0F
    EXEC = 0x10
    STARTED = 0x11
    FAILED = 0x12
    STDIN = 0x13
    STDOUT = 0x14
    STDERR = 0x15
    EXITED = 0x16
    SIGNAL = 0x17
    KILL = 0x18
    CREDIT = 0x19
    STDIN_CLOSED = 0x1A
    RESIZE = 0x1B
    DEADLINE = 0x1C
    FS = 0x1D
    DONE = 0x1E
    EMIT = 0x1F
    SUBSCRIBE = 0x20
    JOIN = 0x30
    WELCOME = 0x31
    BUSY = 0x32
    REQUEST = 0x33
    ANSWER = 0x34
    ENDED = 0x35
    ATTACH = 0x36
    OPENED = 0x37
    DETACH = 0x38
    DETACHED = 0x39


class Flag(enum.IntFlag):
    """Bits of the header's flags byte."""

    END = 1
    MORE = 2


class Scope(enum.Enum):
    """Whether a frame speaks of the machine (session 0), of one session, or may speak of either."""

    MACHINE = "machine"
    SESSION = "session"
    EITHER = "either"


NO_FLAGS = Flag(0)


@attrs.frozen
class FrameRule:
    """What the header of one frame type may say."""

    senders: frozenset[Role]
    scope: Scope
    flags: Flag = NO_FLAGS
    bulk: bool = False
    """Body is raw bytes of a stream, paid for with credit."""


_HOST, _GUEST = frozenset({Role.HOST}), frozenset({Role.GUEST})
_CLIENT, _RELAY = frozenset({Role.CLIENT}), frozenset({Role.RELAY})
_ASKING, _ANSWERING = _HOST | _CLIENT, _GUEST | _RELAY

RULES: dict[FrameType, FrameRule] = {
    FrameType.HELLO: FrameRule(_GUEST, Scope.MACHINE),
    FrameType.CONFIGURE: FrameRule(_HOST, Scope.MACHINE),
    FrameType.READY: FrameRule(_GUEST, Scope.MACHINE),
    FrameType.BOOT_FAILED: FrameRule(_GUEST, Scope.MACHINE),
    FrameType.PING: FrameRule(_ASKING, Scope.MACHINE),
    FrameType.PONG: FrameRule(_ANSWERING, Scope.MACHINE),
    FrameType.SHUTDOWN: FrameRule(_HOST, Scope.MACHINE),
    FrameType.GOODBYE: FrameRule(_GUEST, Scope.MACHINE),
    FrameType.CLOCK: FrameRule(_HOST, Scope.MACHINE),
    FrameType.CLIENT_GONE: FrameRule(_HOST, Scope.MACHINE),
    FrameType.IDENTIFY: FrameRule(_HOST, Scope.MACHINE),
    FrameType.FREEZE: FrameRule(_HOST, Scope.MACHINE),
    FrameType.FROZEN: FrameRule(_GUEST, Scope.MACHINE),
    FrameType.THAW: FrameRule(_HOST, Scope.MACHINE),
    FrameType.ERROR: FrameRule(_ANSWERING, Scope.EITHER),
    FrameType.EXEC: FrameRule(_ASKING, Scope.SESSION, flags=Flag.MORE),
    FrameType.STARTED: FrameRule(_ANSWERING, Scope.SESSION),
    FrameType.FAILED: FrameRule(_ANSWERING, Scope.SESSION),
    FrameType.STDIN: FrameRule(_ASKING, Scope.SESSION, flags=Flag.END, bulk=True),
    FrameType.STDOUT: FrameRule(_ANSWERING, Scope.SESSION, bulk=True),
    FrameType.STDERR: FrameRule(_ANSWERING, Scope.SESSION, bulk=True),
    FrameType.EXITED: FrameRule(_ANSWERING, Scope.SESSION),
    FrameType.SIGNAL: FrameRule(_ASKING, Scope.SESSION),
    FrameType.KILL: FrameRule(_ASKING, Scope.SESSION),
    FrameType.CREDIT: FrameRule(_ASKING | _ANSWERING, Scope.SESSION),
    FrameType.STDIN_CLOSED: FrameRule(_ANSWERING, Scope.SESSION),
    FrameType.RESIZE: FrameRule(_ASKING, Scope.SESSION),
    FrameType.DEADLINE: FrameRule(_ASKING, Scope.SESSION),
    FrameType.FS: FrameRule(_ASKING, Scope.SESSION, flags=Flag.MORE),
    FrameType.DONE: FrameRule(_ANSWERING, Scope.SESSION),
    FrameType.EMIT: FrameRule(_ASKING, Scope.SESSION, flags=Flag.MORE),
    FrameType.SUBSCRIBE: FrameRule(_ASKING, Scope.SESSION),
    FrameType.JOIN: FrameRule(_CLIENT, Scope.MACHINE),
    FrameType.WELCOME: FrameRule(_RELAY, Scope.MACHINE),
    FrameType.BUSY: FrameRule(_RELAY, Scope.MACHINE),
    FrameType.REQUEST: FrameRule(_CLIENT, Scope.MACHINE),
    FrameType.ANSWER: FrameRule(_RELAY, Scope.MACHINE),
    FrameType.ENDED: FrameRule(_RELAY, Scope.MACHINE),
    FrameType.ATTACH: FrameRule(_CLIENT, Scope.SESSION),
    FrameType.OPENED: FrameRule(_RELAY, Scope.SESSION),
    FrameType.DETACH: FrameRule(_CLIENT, Scope.SESSION),
    FrameType.DETACHED: FrameRule(_RELAY, Scope.SESSION),
}


@attrs.frozen
class Frame:
    """One frame. `session` 0 is the machine itself."""

    type: FrameType
    session: int = 0
    body: bytes = b""
    flags: Flag = NO_FLAGS
    slot: int = 0


def encode(frame: Frame, role: Role) -> bytes:
    """The bytes of `frame` as sent by `role`. Raises LocalProtocolError for what the peer would refuse."""
    return encode_header(frame.type, frame.session, len(frame.body), role, frame.flags, frame.slot) + frame.body


def encode_header(
    kind: FrameType, session: int, length: int, role: Role, flags: Flag = NO_FLAGS, slot: int = 0
) -> bytes:
    """The header of a frame with `length` bytes of body. Raises LocalProtocolError for what the peer would refuse."""
    if problem := _problem(RULES[kind], role, flags, session, length):
        raise LocalProtocolError(f"{kind.name}: {problem}")
    return HEADER.pack(length, kind, flags, slot, session, 0)


def _problem(rule: FrameRule, sender: Role, flags: int, session: int, length: int) -> str | None:
    if sender not in rule.senders:
        return f"not for the {sender.value} to send"
    if flags and flags & ~int(rule.flags):  # an IntFlag's own complement knows no bits but its members'
        return f"flags {flags:#x} are not allowed"
    if rule.scope is Scope.MACHINE and session:
        return f"session {session} where none belongs"
    if rule.scope is Scope.SESSION and not session:
        return "no session"
    if length > MAX_BODY:
        return f"a body of {length} bytes is over {MAX_BODY}"
    return None


_KINDS = {int(kind): kind for kind in FrameType}


class FrameReader:
    """Cut a byte stream from `sender` into frames. Holds at most one frame's worth of bytes between calls."""

    def __init__(self, sender: Role) -> None:
        self._sender = sender
        self._begun = bytearray()  # of a frame that is not complete yet

    def feed_untrusted(self, data: bytes | bytearray | memoryview) -> Iterator[Frame]:
        """Yield each frame that `data` completes. Raises RemoteProtocolError, and nothing else, for what the wire
        forbids.

        The headers are checked before their bodies are waited for. The iterator must be exhausted before the next call.
        Bodies are copied once, out of `data`.
        """
        view = memoryview(data)
        position = self._complete(view)
        if self._begun:
            header = self._header(self._begun)
            if header is None or len(self._begun) < HEADER.size + header[0]:
                return
            body = bytes(memoryview(self._begun)[HEADER.size :])
            self._begun = bytearray()
            yield Frame(header[1], header[2], body, header[3], header[4])
        while (header := self._header(view[position:])) is not None:
            start, end = position + HEADER.size, position + HEADER.size + header[0]
            if len(view) < end:
                break
            position = end
            yield Frame(header[1], header[2], bytes(view[start:end]), header[3], header[4])
        self._begun += view[position:]

    def _complete(self, view: memoryview) -> int:
        """Move into a begun frame what it lacks; how much that was."""
        position = 0
        if self._begun and len(self._begun) < HEADER.size:
            position = min(len(view), HEADER.size - len(self._begun))
            self._begun += view[:position]
        if self._begun and (header := self._header(self._begun)) is not None:
            lacking = min(len(view) - position, HEADER.size + header[0] - len(self._begun))
            self._begun += view[position : position + lacking]
            position += lacking
        return position

    def _header(self, raw: bytearray | memoryview) -> tuple[int, FrameType, int, Flag, int] | None:
        """Length, type, session, flags and slot of the frame that `raw` begins with; None before they are there."""
        if len(raw) < HEADER.size:
            return None
        length, number, flags, slot, session, reserved = HEADER.unpack_from(raw)
        kind = _KINDS.get(number)
        if kind is None:
            raise RemoteProtocolError(f"unknown frame type {number:#x}")
        if reserved:
            raise RemoteProtocolError(f"{kind.name}: reserved field is {reserved:#x}")
        if problem := _problem(RULES[kind], self._sender, flags, session, length):
            raise RemoteProtocolError(f"{kind.name}: {problem}")
        return length, kind, session, Flag(flags) if flags else NO_FLAGS, slot

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._begun)
