"""Control messages: one attrs class per frame type whose body is a map. Sans-IO.

The fields are those of docs/wire.md. Sequences are tuples, so a message that was received cannot be changed behind
anyone's back.
"""

from __future__ import annotations

import attrs

from trio_sandbox.convert import pack, unpack_untrusted
from trio_sandbox.errors import RemoteProtocolError
from trio_sandbox.relay.client_messages import Answer, Attach, Busy, Detached, Ended, Join, Opened, Request, Welcome
from trio_sandbox.relay.credit import WINDOW
from trio_sandbox.relay.frames import FrameType

MAX_MESSAGE = 1 << 20
"""Bytes of a control message that goes in several frames (EXEC, FS, EMIT)."""
SIGTERM = 15


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
    base: str = ""
    upper: str = ""
    disk: str = ""
    """In the place of base and upper."""
    fstype: str = ""
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
    signal: int = SIGTERM
    """What the programs get."""


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
    deadline_ms: int = 0
    """As `timeout_ms`, but the end is not reported as a timeout: whoever set it is gone by then."""
    tty: bool = False
    rows: int = 24
    cols: int = 80
    detached: bool = False
    """For the relay: the session survives its client from the start."""
    detachable: bool = False
    """For the relay: the session survives its client once it was detached from."""
    window: int = WINDOW
    stdin_window: int = WINDOW
    make_cwd: bool = False
    """A `cwd` that is missing is made, as root's."""


@attrs.frozen
class Fs:
    """One operation on the guest's files; docs/wire.md has the table of what each takes and gives."""

    op: str
    path: bytes
    to: bytes = b""
    user: str = ""
    owner: str = ""
    mode: int = -1
    offset: int = 0
    length: int = -1
    atomic: bool = False
    fsync: bool = False
    follow: bool = True
    recursive: bool = False
    root: bytes = b""
    """A folder within which `path` stays, whatever links there are."""
    replace: bool = False
    append: bool = False
    deadline_ms: int = 0
    window: int = WINDOW
    stdin_window: int = WINDOW


@attrs.frozen
class FileStatus:
    """statx(2) of one file. `mode` with the type bits; times in nanoseconds since the epoch, `birth_ns` 0 if
    unknown.
    """

    mode: int
    size: int
    uid: int
    gid: int
    nlink: int
    ino: int
    dev: int
    rdev: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    birth_ns: int


@attrs.frozen
class Done:
    """The end of FS, EMIT and SUBSCRIBE. `errno` 0: done. `path`: the file that the error is about."""

    errno: int = 0
    message: str = ""
    path: bytes = b""
    count: int = 0
    target: bytes = b""
    status: FileStatus | None = None


@attrs.frozen
class Emit:
    """An event for the programs that listen in the guest. `payload`: JSON text without a line feed."""

    name: str
    payload: bytes


@attrs.frozen
class Subscribe:
    """Events that guest programs emit from now on, as lines on STDOUT. `name`: only this one; "" for all."""

    name: str = ""
    drop_oldest: bool = True
    window: int = WINDOW


@attrs.frozen
class Resize:
    rows: int
    cols: int


@attrs.frozen
class Deadline:
    """A new deadline for the session, in milliseconds from now; 0 for none."""

    deadline_ms: int


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
    | Resize
    | Deadline
    | Fs
    | Done
    | Emit
    | Subscribe
    | Join
    | Welcome
    | Busy
    | Request
    | Answer
    | Ended
    | Attach
    | Opened
    | Detached
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
    FrameType.RESIZE: Resize,
    FrameType.DEADLINE: Deadline,
    FrameType.FS: Fs,
    FrameType.DONE: Done,
    FrameType.EMIT: Emit,
    FrameType.SUBSCRIBE: Subscribe,
    FrameType.JOIN: Join,
    FrameType.WELCOME: Welcome,
    FrameType.BUSY: Busy,
    FrameType.REQUEST: Request,
    FrameType.ANSWER: Answer,
    FrameType.ENDED: Ended,
    FrameType.ATTACH: Attach,
    FrameType.OPENED: Opened,
    FrameType.DETACHED: Detached,
}

TYPES: dict[type[Message], FrameType] = {body: kind for kind, body in BODIES.items()}

EMPTY = frozenset(
    {
        *(FrameType.GOODBYE, FrameType.CLIENT_GONE, FrameType.KILL, FrameType.DETACH),
        *(FrameType.FREEZE, FrameType.FROZEN, FrameType.THAW),
    }
)
"""Types whose body must be empty."""

WHOLE = frozenset({FrameType.DONE})
"""Types of the guest whose keys must all be there: else it could be longer than a frame when it is passed on."""

MAX_PING = 64
"""Bytes of a PING's body."""


def encode_body(message: Message) -> bytes:
    """The map of a message."""
    return pack(message)


def decode_body_untrusted(kind: FrameType, body: bytes) -> Message:
    """The message in the body of a frame of `kind`. Raises RemoteProtocolError, and nothing else."""
    try:
        return unpack_untrusted(body, BODIES[kind], whole=kind in WHOLE)
    except ValueError as error:
        raise RemoteProtocolError(f"{kind.name}: {error}") from error
