"""The options of one exec, checked before anything is sent, and what they become on the wire. No I/O."""

from __future__ import annotations

import enum
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from trio_sandbox.config import env_problem
from trio_sandbox.errors import UnsupportedError
from trio_sandbox.relay.messages import Exec


class StdinMode(enum.StrEnum):
    NULL = "null"
    PIPE = "pipe"
    BYTES = "bytes"


@attrs.frozen
class Stdin:
    """Where a program's standard input comes from. Made by `null()`, `pipe()` and `bytes(data)`."""

    mode: StdinMode
    data: bytes = attrs.field(default=b"", repr=False)

    @staticmethod
    def null() -> Stdin:
        """/dev/null: the first read is the end. The default."""
        return Stdin(StdinMode.NULL)

    @staticmethod
    def pipe() -> Stdin:
        """A pipe that the caller writes to: see `ExecHandle.take_stdin()`."""
        return Stdin(StdinMode.PIPE)

    @staticmethod
    def bytes(data: bytes) -> Stdin:
        """These bytes, then the end; any size."""
        return Stdin(StdinMode.BYTES, bytes(data))


class RlimitResource(enum.StrEnum):
    """The resources of setrlimit(2) under Linux."""

    CPU = "cpu"
    FSIZE = "fsize"
    DATA = "data"
    STACK = "stack"
    CORE = "core"
    RSS = "rss"
    NPROC = "nproc"
    NOFILE = "nofile"
    MEMLOCK = "memlock"
    AS = "as"
    LOCKS = "locks"
    SIGPENDING = "sigpending"
    MSGQUEUE = "msgqueue"
    NICE = "nice"
    RTPRIO = "rtprio"
    RTTIME = "rttime"


_NUMBERS = {resource: number for number, resource in enumerate(RlimitResource)}  # the kernel counts in this order


@attrs.frozen
class Rlimit:
    """A resource limit for one program; -1 is infinity."""

    resource: RlimitResource
    soft: int
    hard: int

    @staticmethod
    def nofile(limit: int) -> Rlimit:
        """Open files."""
        return Rlimit(RlimitResource.NOFILE, limit, limit)

    @staticmethod
    def cpu(seconds: int) -> Rlimit:
        """CPU time in seconds."""
        return Rlimit(RlimitResource.CPU, seconds, seconds)

    @staticmethod
    def nproc(limit: int) -> Rlimit:
        """Processes of the user."""
        return Rlimit(RlimitResource.NPROC, limit, limit)

    @staticmethod
    def fsize(size: int) -> Rlimit:
        """Bytes of a file that is written."""
        return Rlimit(RlimitResource.FSIZE, size, size)

    @staticmethod
    def memlock(size: int) -> Rlimit:
        """Bytes of locked memory."""
        return Rlimit(RlimitResource.MEMLOCK, size, size)

    @staticmethod
    def stack(size: int) -> Rlimit:
        """Bytes of stack."""
        return Rlimit(RlimitResource.STACK, size, size)

    @staticmethod
    def as_(*, soft: int, hard: int) -> Rlimit:
        """Bytes of address space."""
        return Rlimit(RlimitResource.AS, soft, hard)


@attrs.frozen
class ExecOptions:
    """The checked options of one exec. timeout in seconds, None for none."""

    args: tuple[str, ...] = ()
    cwd: str | None = None
    user: str | None = None
    env: Mapping[str, str] = attrs.field(factory=dict)
    timeout: float | None = None
    stdin: Stdin = attrs.field(factory=Stdin.null)
    rlimits: tuple[Rlimit, ...] = ()

    @classmethod
    def build(cls, cmd: str, args: object, options: Mapping[str, Any]) -> ExecOptions:
        """Check everything. `args` may be the older options dict. Raises TypeError or ValueError by name,
        UnsupportedError for tty.
        """
        if isinstance(args, Mapping):
            options, args = _merge_older(args, options)
        given = {key: value for key, value in options.items() if value is not None}
        _check_text("cmd", cmd)
        if given.pop("tty", False):
            raise UnsupportedError("exec(tty=True)", "run the program on pipes")
        if (problem := env_problem(given.get("env", {}))) is not None:
            raise TypeError(f"env {problem}")
        for key in ("cwd", "user"):
            if key in given:
                _check_text(key, given[key])
        if "cwd" in given and not given["cwd"].startswith("/"):
            raise ValueError(f"cwd must be an absolute path, not {given['cwd']!r}")
        return cls(
            args=_args(args),
            cwd=given.get("cwd"),
            user=given.get("user"),
            env=dict(given.get("env", {})),
            timeout=_timeout(given.get("timeout")),
            stdin=_stdin(given.get("stdin")),
            rlimits=_rlimits(given.get("rlimits", ())),
        )


OLDER_KEYS = frozenset({"args", "cwd", "user", "env", "timeout", "stdin", "stdin_data", "tty", "rlimits"})


def _merge_older(older: Mapping[Any, Any], options: Mapping[str, Any]) -> tuple[dict[str, Any], object]:
    for key in older:
        if key not in OLDER_KEYS:
            raise TypeError(f"unknown exec option: {key}")
    merged = {key: value for key, value in options.items() if value is not None}
    for key, value in older.items():
        if key in merged:
            raise TypeError(f"{key} is given twice, in the options dict and as a keyword")
        merged[key] = value
    if merged.pop("stdin_data", None) is not None:
        merged["stdin"] = older["stdin_data"]
    return merged, merged.pop("args", None)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, not {type(value).__name__}")
    if not value or "\0" in value:
        raise ValueError(f"{name} must not be empty or hold NUL")


def _args(args: object) -> tuple[str, ...]:
    if args is None:
        return ()
    if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
        raise TypeError(f"args must be a list of strings, not {type(args).__name__}")
    for word in args:
        if not isinstance(word, str):
            raise TypeError(f"args must be a list of strings, not of {type(word).__name__}")
        if "\0" in word:
            raise ValueError("args must not hold NUL")
    return tuple(args)


def _timeout(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {type(value).__name__}")
    if math.isnan(value) or value < 0:
        raise ValueError("timeout must be non-negative")
    return None if math.isinf(value) else float(value)


def _stdin(value: object) -> Stdin:
    if value is None:
        return Stdin.null()
    if isinstance(value, Stdin):
        return value
    if isinstance(value, str):
        return Stdin.bytes(value.encode())
    if isinstance(value, (bytes, bytearray, memoryview)):
        return Stdin.bytes(bytes(value))
    raise TypeError(f"stdin must be Stdin, bytes or str, not {type(value).__name__}")


def _rlimits(value: object) -> tuple[Rlimit, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"rlimits must be a list of Rlimit, not {type(value).__name__}")
    for limit in value:
        if not isinstance(limit, Rlimit):
            raise TypeError(f"rlimits must be a list of Rlimit, not of {type(limit).__name__}")
        for bound in (limit.soft, limit.hard):
            if type(bound) is not int or not -1 <= bound < 1 << 63:
                raise ValueError(f"rlimits: {bound!r} is not a limit")
    return tuple(value)


MAX_TIMEOUT_MS = (1 << 53) - 1


def exec_request(cmd: str, options: ExecOptions, *, base_env: Mapping[str, str], workdir: str, user: str) -> Exec:
    """The request on the wire. The environment is the sandbox's, overridden by the call's."""
    env = {**base_env, **options.env}
    # A timeout of 0 means "none" on the wire, so the shortest that can be asked for is a millisecond.
    timeout_ms = 0 if options.timeout is None else max(1, math.ceil(min(options.timeout * 1000, MAX_TIMEOUT_MS)))
    return Exec(
        argv=tuple(os.fsencode(word) for word in (cmd, *options.args)),
        env=tuple(os.fsencode(f"{name}={value}") for name, value in env.items()),
        cwd=options.cwd or workdir,
        user=options.user or user,
        stdin=options.stdin.mode is not StdinMode.NULL,
        rlimits=tuple((_NUMBERS[limit.resource], limit.soft, limit.hard) for limit in options.rlimits),
        timeout_ms=timeout_ms,
    )
