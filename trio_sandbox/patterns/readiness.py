"""Waiting until something in a guest is ready: probes, and `wait_until_ready`. anyio only."""

from __future__ import annotations

import errno
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio

from trio_sandbox.client.fs_types import GuestPath
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.errors import ExecFailedError, ExecTimeoutError, FilesystemError
from trio_sandbox.patterns.errors import NotReadyError
from trio_sandbox.patterns.listening import has_path_untrusted, has_port_untrusted

Probe = Callable[[Sandbox], Awaitable[bool]]
"""Whether it is ready. FilesystemError, ExecFailedError and ExecTimeoutError mean: not yet."""

MAX_TABLE = 4 << 20
"""Bytes of a table of sockets that are looked at."""


async def wait_until_ready(sandbox: Sandbox, probe: Probe, *, interval: float = 0.2, timeout: float = 30.0) -> None:
    """Return when `probe(sandbox)` is true, asking at once and then `interval` seconds after each answer.

    timeout: seconds for all of it, the last probe included. Raises ValueError, NotReadyError when they are over, and at
    once what says that it will never be: SandboxCrashedError, SandboxNotRunningError (a pause too), and any other error
    of a probe. Cancellation: the probe that runs is cancelled; a program that it had started is killed.
    """
    if not (interval >= 0 and timeout >= 0) or math.isinf(interval):
        raise ValueError("interval and timeout must not be negative, and interval must be finite")
    problem = "it did not answer"
    with anyio.move_on_after(timeout):
        while True:
            try:
                if await probe(sandbox):
                    return
                problem = "it is not ready"
            except (FilesystemError, ExecFailedError, ExecTimeoutError) as error:
                problem = str(error)
            await anyio.sleep(interval)
    raise NotReadyError(await sandbox.name, timeout, problem)


def exec_probe(cmd: str, args: Sequence[str] | Mapping[str, Any] | None = None, **options: Any) -> Probe:
    """Ready when this program ends with exit code 0. Arguments as for `Sandbox.exec`; its output is dropped."""

    async def probe(sandbox: Sandbox) -> bool:
        async with await sandbox.exec_stream(cmd, args, **options) as program:
            _, success = await program.wait()
        return success

    return probe


def file_probe(path: GuestPath) -> Probe:
    """Ready when there is such a file, of whatever kind. It needs no program in the guest."""

    async def probe(sandbox: Sandbox) -> bool:
        return await sandbox.fs.exists(path)

    return probe


def port_probe(port: int) -> Probe:
    """Ready when a TCP socket listens on this port in the guest. Asks its kernel: no program, and no connection."""
    if type(port) is not int or not 0 < port < 65_536:
        raise ValueError(f"{port!r} is not a port: 1 to 65535")

    async def probe(sandbox: Sandbox) -> bool:
        return has_port_untrusted(
            await _table(sandbox, "/proc/net/tcp") + await _table(sandbox, "/proc/net/tcp6"), port
        )

    return probe


def unix_socket_probe(path: str) -> Probe:
    """Ready when a Unix socket listens at this path, as whoever bound it named it; "@name" is one without a file."""

    async def probe(sandbox: Sandbox) -> bool:
        return has_path_untrusted(await _table(sandbox, "/proc/net/unix"), path)

    return probe


async def _table(sandbox: Sandbox, path: str) -> str:
    """A table of the guest's kernel; empty where that was built without it."""
    try:
        return (await sandbox.fs.read(path, length=MAX_TABLE)).decode("utf-8", "surrogateescape")
    except FilesystemError as error:
        if error.errno == errno.ENOENT:
            return ""
        raise
