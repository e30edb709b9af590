"""Run a system tool from Trio: no shell, output captured, dead when cancelled.

Not for the VMM, which has a supervisor of its own (`trio_sandbox.vm`).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from trio_sandbox.errors import HostNotReadyError, SandboxError

STDERR_KEPT = 4_000
"""Characters of a failed tool's own words that an error repeats."""


class ToolError(SandboxError):
    """A system tool ran and failed. `returncode` is negative for a signal; `stderr` is the end of what it said."""

    def __init__(self, argv: Sequence[str], returncode: int, stderr: str) -> None:
        self.argv = tuple(argv)
        self.returncode = returncode
        self.stderr = stderr[-STDERR_KEPT:]
        super().__init__(f"{argv[0]} failed with {returncode}: {self.stderr.strip() or 'it said nothing'}")


async def _kill(process: trio.Process) -> None:
    # Trio's own ladder warns before it kills, which under `-W error` means that it never kills. The tool leads a
    # session, and what it has started goes with it.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


async def run_tool(
    argv: Sequence[str | os.PathLike[str]],
    *,
    check: bool = True,
    stdin: bytes | int | None = None,
    stdout: int | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[bytes]:
    """Run `argv` to its end and return it with its output as bytes.

    stdin: bytes to feed, or a descriptor, or None for /dev/null. stdout: a descriptor, or None to capture.
    Raises ToolError for a non-zero exit when `check`, HostNotReadyError when the program is not installed.
    Cancellation: the tool gets SIGKILL and is reaped before the cancellation goes on.
    """
    output: dict[str, Any] = {"capture_stdout": True} if stdout is None else {"stdout": stdout}
    words = [os.fspath(word) for word in argv]
    try:
        done = await trio.run_process(
            words,
            check=False,
            stdin=b"" if stdin is None else stdin,
            capture_stderr=True,
            cwd=cwd,
            env=env,
            pass_fds=pass_fds,
            start_new_session=True,
            deliver_cancel=_kill,
            **output,
        )
    except FileNotFoundError as error:
        raise HostNotReadyError(words[0], "the program is not installed") from error
    if check and done.returncode:
        raise ToolError(words, done.returncode, (done.stderr or b"").decode(errors="replace"))
    return done
