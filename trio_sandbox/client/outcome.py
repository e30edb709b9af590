"""What a program says and how it ends: events, exit status, collected output. Values; no I/O."""

from __future__ import annotations

import enum

import attrs

from trio_sandbox.relay.messages import (
    Exited,
)


@attrs.frozen
class ResourceUsage:
    """What a program used, with those of its children that it waited for (rusage of wait4(2))."""

    user_time_s: float = 0.0
    system_time_s: float = 0.0
    max_rss_bytes: int = 0
    """The largest of their resident sets."""


@attrs.frozen
class ExitStatus:
    """How a program ended.

    code: its own, or 128 + n when signal n ended it, as shells have it. success: the code is 0. signal: n, None when no
    signal ended it. core_dumped: the kernel wrote its memory down. timed_out: it was killed at its `timeout=`.
    held_open: a background process of it still held its output open; what that writes is dropped.
    """

    code: int
    success: bool
    signal: int | None = None
    core_dumped: bool = False
    timed_out: bool = False
    held_open: bool = False
    usage: ResourceUsage = ResourceUsage()

    @classmethod
    def of(cls, end: Exited) -> ExitStatus:
        """What the guest's EXITED means."""
        code = 128 + end.signal if end.signal else end.code
        usage = ResourceUsage(end.utime_us / 1e6, end.stime_us / 1e6, end.maxrss_kib * 1024)
        return cls(code, code == 0, end.signal or None, end.core, end.timed_out, end.held_open, usage)


@attrs.frozen
class ExecOutput:
    """What a program wrote, and how it ended.

    exit_code: its own, or 128 + n when signal n ended it; `signal` is then n, else None. The output of a terminal is
    all in `stdout_bytes`, with the line ends of terminals. pid: in the guest. core_dumped, held_open, usage: as in
    ExitStatus.
    """

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes
    signal: int | None = None
    pid: int | None = None
    core_dumped: bool = False
    held_open: bool = False
    usage: ResourceUsage = ResourceUsage()

    @property
    def success(self) -> bool:
        return self.exit_code == 0

    @property
    def stdout_text(self) -> str:
        """Strict UTF-8: raises UnicodeDecodeError for bytes that are not."""
        return self.stdout_bytes.decode()

    @property
    def stderr_text(self) -> str:
        """Strict UTF-8: raises UnicodeDecodeError for bytes that are not."""
        return self.stderr_bytes.decode()


class ExecEventType(enum.StrEnum):
    STARTED = "started"
    STDOUT = "stdout"
    STDERR = "stderr"
    EXITED = "exited"
    FAILED = "failed"
    STDIN_ERROR = "stdin_error"


@attrs.frozen
class ExecEvent:
    """STARTED has `pid`; STDOUT and STDERR `data` (a terminal's output is STDOUT); EXITED `code`, `signal` when one
    ended it, and all of it as `exit`; FAILED and STDIN_ERROR a message in `data` and the guest's errno in `code`."""

    event_type: ExecEventType
    pid: int | None = None
    data: bytes | None = None
    code: int | None = None
    signal: int | None = None
    exit: ExitStatus | None = None
