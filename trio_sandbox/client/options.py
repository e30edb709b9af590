"""The options of one exec, checked before anything is sent, and what they become on the wire. No I/O."""

from __future__ import annotations

import enum
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from trio_sandbox.client.rlimits import NUMBERS, Rlimit
from trio_sandbox.config import env_problem
from trio_sandbox.errors import ExecFailedError
from trio_sandbox.relay.messages import (
    Exec,
)


def default_command(
    entrypoint: Sequence[str], cmd: Sequence[str], args: Sequence[str] | None
) -> tuple[str, tuple[str, ...]]:
    """What to run where no command is named: the entry point with `args`, or with `cmd` when they are None.

    Raises TypeError and ValueError for wrong arguments, ExecFailedError when there is nothing to run.
    """
    words = (*entrypoint, *(cmd if args is None else _args(args)))
    if not words or not words[0]:
        raise ExecFailedError("bad_args", 0, "the image names no command to run; name one")
    return words[0], words[1:]


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
    def bytes(data: bytes | bytearray | memoryview) -> Stdin:
        """These bytes, then the end; any size. They are copied only where the caller could still change them."""
        return Stdin(StdinMode.BYTES, bytes(data))


@attrs.frozen
class ExecOptions:
    """The checked options of one exec. timeout in seconds, None for none. tty: on a terminal of its own."""

    args: tuple[str, ...] = ()
    cwd: str | None = None
    user: str | None = None
    env: Mapping[str, str] = attrs.field(factory=dict)
    timeout: float | None = None
    stdin: Stdin = attrs.field(factory=Stdin.null)
    tty: bool = False
    rlimits: tuple[Rlimit, ...] = ()

    @classmethod
    def build(cls, cmd: str, args: object, options: Mapping[str, Any]) -> ExecOptions:
        """Check everything. `args` may be the older options dict. Raises TypeError or ValueError by name."""
        if isinstance(args, Mapping):
            options, args = _merge_older(args, options)
        given = {key: value for key, value in options.items() if value is not None}
        _check_text("cmd", cmd)
        if type(given.get("tty", False)) is not bool:
            raise TypeError(f"tty must be a bool, not {type(given['tty']).__name__}")
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
            tty=given.get("tty", False),
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
        return Stdin.bytes(value)
    raise TypeError(f"stdin must be Stdin, bytes or str, not {type(value).__name__}")


def _rlimits(value: object) -> tuple[Rlimit, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"rlimits must be a list of Rlimit, not {type(value).__name__}")
    seen = set()
    for limit in value:
        if not isinstance(limit, Rlimit):
            raise TypeError(f"rlimits must be a list of Rlimit, not of {type(limit).__name__}")
        if limit.resource in seen:
            raise ValueError(f"rlimits: {limit.resource} is given twice")
        seen.add(limit.resource)
    return tuple(value)


def check_size(name: str, value: object) -> int:
    """A terminal's rows or columns. Raises ValueError by name."""
    if type(value) is not int or not 0 < value <= SIZE_MAX:
        raise ValueError(f"{name} must be 1 to {SIZE_MAX}, not {value!r}")
    return value


def check_session_id(value: object) -> int:
    """A session's number in its sandbox. Raises ValueError."""
    if type(value) is not int or not 0 < value < 1 << 32:
        raise ValueError(f"{value!r} is not a session's number")
    return value


MAX_TIMEOUT_MS = (2**63 - 1) // 1_000_000
SIZE_MAX = 65_535
DEFAULT_SIZE = (24, 80)
"""Rows and columns of a terminal that nobody looks at."""
DEFAULT_TERM = "xterm-256color"


def exec_request(
    cmd: str,
    options: ExecOptions,
    *,
    base_env: Mapping[str, str],
    workdir: str,
    user: str,
    deadline_ms: int = 0,
    detached: bool = False,
    detachable: bool = False,
    size: tuple[int, int] = DEFAULT_SIZE,
    term: str = DEFAULT_TERM,
) -> Exec:
    """The request on the wire. The environment is the sandbox's, overridden by the call's; a program on a terminal has
    TERM.
    """
    env = {**base_env, **options.env}
    if options.tty:
        env.setdefault("TERM", term)
    # A timeout of 0 means "none" on the wire, so the shortest that can be asked for is a millisecond.
    timeout_ms = 0 if options.timeout is None else max(1, math.ceil(min(options.timeout * 1000, MAX_TIMEOUT_MS)))
    return Exec(
        argv=tuple(os.fsencode(word) for word in (cmd, *options.args)),
        env=tuple(os.fsencode(f"{name}={value}") for name, value in env.items()),
        cwd=options.cwd or workdir,
        make_cwd=options.cwd is None,
        user=options.user or user,
        stdin=options.stdin.mode is not StdinMode.NULL,
        rlimits=tuple((NUMBERS[limit.resource], limit.soft, limit.hard) for limit in options.rlimits),
        timeout_ms=timeout_ms,
        deadline_ms=deadline_ms,
        tty=options.tty,
        rows=size[0],
        cols=size[1],
        detached=detached,
        detachable=detachable,
    )
