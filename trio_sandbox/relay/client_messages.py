"""Control messages of a client's connection: one attrs class per frame type. Sans-IO.

The fields are those of docs/wire.md, section *Clients*.
"""

from __future__ import annotations

import attrs

from trio_sandbox.relay.credit import WINDOW


@attrs.frozen
class Join:
    """A client asks for a channel, or for a control connection, and waits for one at most so long."""

    versions: tuple[int, ...]
    control: bool = False
    wait_ms: int = 0


@attrs.frozen
class Welcome:
    """What a handle must know of the sandbox."""

    version: int
    name: str
    slot: int
    limit: int
    used: int
    env: dict[str, str]
    workdir: str
    user: str
    shell: str
    host: str = ""
    """The boot id of the sandbox's host: a client that has the same one is on the same machine."""
    logs: str = ""
    """Where the sandbox's logs are on that machine; "" for clients from elsewhere."""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    """What runs where no command is named: the entry point with these words, or with others."""


@attrs.frozen
class Busy:
    """No channel is free. `what` says of which kind: "clients" or "controls"."""

    what: str
    limit: int
    used: int


@attrs.frozen
class Request:
    """Something about the sandbox as a whole: "stop", "kill", "drain", "pause", "resume", "touch", "status",
    "sessions", "metrics", "fork".
    """

    op: str
    timeout_ms: int = 0


@attrs.frozen
class SessionInfo:
    """A session that survives its client. `attached`: somebody is attached to it now."""

    id: int
    pid: int
    command: str
    tty: bool
    attached: bool


@attrs.frozen
class MetricsSample:
    """What the sandbox uses at one moment: see `client.metrics.SandboxMetrics`."""

    cpu_percent: float
    memory_bytes: int
    memory_limit_bytes: int
    disk_read_bytes: int
    disk_write_bytes: int
    net_rx_bytes: int
    net_tx_bytes: int
    timestamp_ms: float
    uptime_ms: int


@attrs.frozen
class Answer:
    """`error` is "" when the request was done, else what kind of error it met."""

    error: str = ""
    message: str = ""
    state: str = ""
    reason: str = ""
    exit_code: int = 0
    console_tail: str = ""
    clients: int = 0
    sessions: tuple[SessionInfo, ...] = ()
    metrics: MetricsSample | None = None
    fork: str = ""
    """JSON: `source`, a path of what the sandbox can be forked from, which is there for as long as the connection stays
    open; or `error`, why it cannot.
    """


@attrs.frozen
class Ended:
    """The sandbox has ended; all sessions with it."""

    state: str
    reason: str
    exit_code: int
    console_tail: str


@attrs.frozen
class Attach:
    """Take over a session that nobody is attached to. `replay`: begin with the recent output."""

    session_id: int
    replay: bool = True
    rows: int = 0
    cols: int = 0
    window: int = WINDOW
    stdin_window: int = WINDOW


@attrs.frozen
class Opened:
    """The session's number in the sandbox, and the windows that the relay grants."""

    session_id: int
    window: int
    stdin_window: int
    stdin_credit: int
    """What of the input's window is free: all of it, but for a session that had another client before."""


@attrs.frozen
class Detached:
    session_id: int
