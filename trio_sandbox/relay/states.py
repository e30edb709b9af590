"""The states of a session and of a side, as tables. Sans-IO.

Rule 1: every transition is in a table of this file. Rule 2: this file does not know which side we are. What is not in
a table is a protocol error of whoever caused it.
"""

from __future__ import annotations

import enum

from trio_sandbox.relay.frames import FrameType


class SessionState(enum.Enum):
    """Where one session is. CLOSED is final: an id is never used again."""

    OPENING = "opening"
    """EXEC (or ATTACH) is under way; the program has not started."""
    RUNNING = "running"
    """A program runs."""
    SERVING = "serving"
    """FS, EMIT or SUBSCRIBE is worked on."""
    CLOSED = "closed"


OPENERS: dict[FrameType, SessionState] = {
    FrameType.EXEC: SessionState.OPENING,
    FrameType.ATTACH: SessionState.OPENING,
    FrameType.FS: SessionState.SERVING,
    FrameType.EMIT: SessionState.SERVING,
    FrameType.SUBSCRIBE: SessionState.SERVING,
}
"""The frames that open a session, and the state it is in from then on."""

_F, _S = FrameType, SessionState


def _stay(state: SessionState, *kinds: FrameType) -> dict[tuple[SessionState, FrameType], SessionState]:
    return {(state, kind): state for kind in kinds}


_ALWAYS = (_F.STDIN, _F.KILL, _F.CREDIT, _F.DEADLINE, _F.ERROR)
_PROGRAM = (_F.SIGNAL, _F.RESIZE)
_OUTPUT = (_F.STDOUT, _F.STDERR, _F.STDIN_CLOSED)

SESSION_TRANSITIONS: dict[tuple[SessionState, FrameType], SessionState] = {
    **_stay(_S.OPENING, *_ALWAYS, *_PROGRAM, _F.EXEC, _F.ATTACH, _F.OPENED, _F.DETACH),
    (_S.OPENING, _F.STARTED): _S.RUNNING,
    (_S.OPENING, _F.FAILED): _S.CLOSED,
    (_S.OPENING, _F.DETACHED): _S.CLOSED,
    **_stay(_S.RUNNING, *_ALWAYS, *_PROGRAM, *_OUTPUT, _F.DETACH),
    (_S.RUNNING, _F.EXITED): _S.CLOSED,
    (_S.RUNNING, _F.DETACHED): _S.CLOSED,
    **_stay(_S.SERVING, *_ALWAYS, _F.FS, _F.EMIT, _F.SUBSCRIBE, _F.OPENED, _F.STDOUT, _F.STDIN_CLOSED),
    (_S.SERVING, _F.FAILED): _S.CLOSED,
    (_S.SERVING, _F.DONE): _S.CLOSED,
}

FINAL = frozenset(kind for (_, kind), state in SESSION_TRANSITIONS.items() if state is _S.CLOSED)
"""The frames that end a session."""


class SideState(enum.Enum):
    """Where a stream as a whole is."""

    GREETING = "greeting"
    """Nothing yet; only HELLO, or a client's JOIN, may come."""
    CONFIGURING = "configuring"
    OPEN = "open"
    CLOSING = "closing"
    """SHUTDOWN was sent: sessions still end, none begins."""
    CLOSED = "closed"
    ERROR = "error"


_MACHINE_CHATTER = (
    *(FrameType.PING, FrameType.PONG, FrameType.CLOCK, FrameType.CLIENT_GONE, FrameType.ERROR),
    *(FrameType.FREEZE, FrameType.FROZEN, FrameType.THAW),
)

SIDE_TRANSITIONS: dict[tuple[SideState, FrameType], SideState] = {
    (SideState.GREETING, FrameType.HELLO): SideState.CONFIGURING,
    (SideState.CONFIGURING, FrameType.CONFIGURE): SideState.CONFIGURING,
    (SideState.CONFIGURING, FrameType.IDENTIFY): SideState.CONFIGURING,  # a clone of a ready template
    (SideState.CONFIGURING, FrameType.READY): SideState.OPEN,
    (SideState.CONFIGURING, FrameType.BOOT_FAILED): SideState.CLOSED,
    (SideState.CONFIGURING, FrameType.ERROR): SideState.CONFIGURING,
    (SideState.OPEN, FrameType.SHUTDOWN): SideState.CLOSING,
    (SideState.CLOSING, FrameType.GOODBYE): SideState.CLOSED,
    (SideState.OPEN, FrameType.GOODBYE): SideState.CLOSED,  # the guest powered itself off
    # A client's connection.
    (SideState.GREETING, FrameType.JOIN): SideState.CONFIGURING,
    (SideState.CONFIGURING, FrameType.WELCOME): SideState.OPEN,
    (SideState.CONFIGURING, FrameType.BUSY): SideState.CLOSED,
    (SideState.OPEN, FrameType.REQUEST): SideState.OPEN,
    (SideState.OPEN, FrameType.ANSWER): SideState.OPEN,
    (SideState.OPEN, FrameType.ENDED): SideState.CLOSED,
    **{(state, kind): state for state in (SideState.OPEN, SideState.CLOSING) for kind in _MACHINE_CHATTER},
}

TALKING = frozenset({SideState.OPEN, SideState.CLOSING})
"""States in which frames of sessions may pass."""
