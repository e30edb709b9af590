"""Control messages: one attrs class per frame type whose body is a map. Sans-IO.

The fields are those of docs/wire.md. Sequences are tuples, so a message that was received cannot be changed behind
anyone's back.
"""

from __future__ import annotations

import attrs

from trio_sandbox.convert import pack, unpack_untrusted
from trio_sandbox.errors import RemoteProtocolError
from trio_sandbox.relay.frames import FrameType

MAX_MESSAGE = 1 << 20
"""Bytes of a control message that goes in several frames (EXEC alone)."""


@attrs.frozen
class Hello:
    versions: tuple[int, ...]
    agent: str
    kernel: str


@attrs.frozen
class Configure:
    version: int
    time_ns: int
    entropy: bytes = attrs.field(repr=False)
    hostname: str
    machine_id: str
    base: str
    upper: str
    template: bool = False
    warm: tuple[str, ...] = ()


@attrs.frozen
class Identify:
    time_ns: int
    entropy: bytes = attrs.field(repr=False)
    hostname: str
    machine_id: str


@attrs.frozen
class Ready:
    timings: dict[str, int]


@attrs.frozen
class BootFailed:
    stage: str
    errno: int
    message: str


@attrs.frozen
class Shutdown:
    grace_ms: int


@attrs.frozen
class Clock:
    time_ns: int


@attrs.frozen
class ErrorReport:
    code: str
    message: str


@attrs.frozen
class Exec:
    """`argv`, `env` and `user` travel as bytes: a Linux argument is any bytes but NUL."""

    argv: tuple[bytes, ...]
    env: tuple[bytes, ...] = attrs.field(repr=False)
    cwd: str = "/"
    user: str = ""
    stdin: bool = False
    rlimits: tuple[tuple[int, int, int], ...] = ()
    timeout_ms: int = 0


@attrs.frozen
class Started:
    pid: int


@attrs.frozen
class Failed:
    kind: str
    errno: int
    message: str


@attrs.frozen
class Exited:
    """`code` is -1 when a signal ended the process, `signal` 0 when none did."""

    code: int
    signal: int
    core: bool
    timed_out: bool
    held_open: bool
    utime_us: int
    stime_us: int
    maxrss_kib: int


@attrs.frozen
class Signal:
    signal: int


@attrs.frozen
class StdinClosed:
    errno: int


Message = (
    Hello
    | Configure
    | Identify
    | Ready
    | BootFailed
    | Shutdown
    | Clock
    | ErrorReport
    | Exec
    | Started
    | Failed
    | Exited
    | Signal
    | StdinClosed
)

BODIES: dict[FrameType, type[Message]] = {
    FrameType.HELLO: Hello,
    FrameType.CONFIGURE: Configure,
    FrameType.IDENTIFY: Identify,
    FrameType.READY: Ready,
    FrameType.BOOT_FAILED: BootFailed,
    FrameType.SHUTDOWN: Shutdown,
    FrameType.CLOCK: Clock,
    FrameType.ERROR: ErrorReport,
    FrameType.EXEC: Exec,
    FrameType.STARTED: Started,
    FrameType.FAILED: Failed,
    FrameType.EXITED: Exited,
    FrameType.SIGNAL: Signal,
    FrameType.STDIN_CLOSED: StdinClosed,
}

TYPES: dict[type[Message], FrameType] = {body: kind for kind, body in BODIES.items()}

EMPTY = frozenset({FrameType.GOODBYE, FrameType.CLIENT_GONE, FrameType.KILL})
"""Types whose body must be empty."""

MAX_PING = 64
"""Bytes of a PING's body."""


def encode_body(message: Message) -> bytes:
    """The map of a message."""
    return pack(message)


def decode_body_untrusted(kind: FrameType, body: bytes) -> Message:
    """The message in the body of a frame of `kind`. Raises RemoteProtocolError, and nothing else."""
    try:
        return unpack_untrusted(body, BODIES[kind])
    except ValueError as error:
        raise RemoteProtocolError(f"{kind.name}: {error}") from error
