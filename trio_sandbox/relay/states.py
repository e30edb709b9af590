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
    """EXEC is under way; the program has not started."""
    RUNNING = "running"
    CLOSED = "closed"


SESSION_TRANSITIONS: dict[tuple[SessionState, FrameType], SessionState] = {
    (SessionState.OPENING, FrameType.EXEC): SessionState.OPENING,
    (SessionState.OPENING, FrameType.STDIN): SessionState.OPENING,
    (SessionState.OPENING, FrameType.SIGNAL): SessionState.OPENING,
    (SessionState.OPENING, FrameType.KILL): SessionState.OPENING,
    (SessionState.OPENING, FrameType.CREDIT): SessionState.OPENING,
    (SessionState.OPENING, FrameType.ERROR): SessionState.OPENING,
    (SessionState.OPENING, FrameType.STARTED): SessionState.RUNNING,
    (SessionState.OPENING, FrameType.FAILED): SessionState.CLOSED,
    (SessionState.RUNNING, FrameType.STDIN): SessionState.RUNNING,
    (SessionState.RUNNING, FrameType.SIGNAL): SessionState.RUNNING,
    (SessionState.RUNNING, FrameType.KILL): SessionState.RUNNING,
    (SessionState.RUNNING, FrameType.CREDIT): SessionState.RUNNING,
    (SessionState.RUNNING, FrameType.ERROR): SessionState.RUNNING,
    (SessionState.RUNNING, FrameType.STDOUT): SessionState.RUNNING,
    (SessionState.RUNNING, FrameType.STDERR): SessionState.RUNNING,
    (SessionState.RUNNING, FrameType.STDIN_CLOSED): SessionState.RUNNING,
    (SessionState.RUNNING, FrameType.EXITED): SessionState.CLOSED,
}


class SideState(enum.Enum):
    """Where the agent stream as a whole is."""

    GREETING = "greeting"
    """Nothing yet; only HELLO may come."""
    CONFIGURING = "configuring"
    OPEN = "open"
    CLOSING = "closing"
    """SHUTDOWN was sent: sessions still end, none begins."""
    CLOSED = "closed"
    ERROR = "error"


_MACHINE_CHATTER = (FrameType.PING, FrameType.PONG, FrameType.CLOCK, FrameType.CLIENT_GONE, FrameType.ERROR)

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
    **{(state, kind): state for state in (SideState.OPEN, SideState.CLOSING) for kind in _MACHINE_CHATTER},
}

TALKING = frozenset({SideState.OPEN, SideState.CLOSING})
"""States in which frames of sessions may pass."""
