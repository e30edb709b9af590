"""What a sandbox writes into its logs while it lives: programs' output, its lifecycle, its runtime's messages, and the
guest's console.

Runs in: the task of `serve_sandbox`; everything here returns at once. Owns: the writer. Cancellation: what was put
before is written, for at most CLOSE_TIMEOUT.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import SandboxError, StorageError
from trio_sandbox.lifecycle import TERMINAL, End, State
from trio_sandbox.logs.entry import MAX_DATA, LogSource
from trio_sandbox.logs.places import LogFile, logs_of
from trio_sandbox.logs.runtime_log import recorded_messages
from trio_sandbox.logs.writer import LogWriter
from trio_sandbox.relay.frames import FrameType

CLOSE_TIMEOUT = 2.0
"""Seconds that a disk may take for the last entries. A stuck one must not keep a sandbox from its end."""
LONGEST_LINE = 4096
"""Bytes of the console that are kept for the end of their line."""

SOURCES = {FrameType.STDOUT: LogSource.STDOUT, FrameType.STDERR: LogSource.STDERR}


@attrs.define(eq=False)
class Recorder:
    """The logs of one sandbox, as what lives in it sees them."""

    writer: LogWriter
    quiet: bool = False
    _state: State = State.CREATING
    _line: bytes = b""

    def output(self, session: int, kind: FrameType, tty: bool, data: bytes) -> None:
        """A piece of a program's output: `relay.link.Tap`."""
        self.writer.put(LogFile.EXEC, LogSource.OUTPUT if tty else SOURCES[kind], session, data)

    def console(self, data: bytes) -> None:
        """Bytes that the guest printed on its console; b"" after the last. Written as whole lines."""
        lines, end, rest = (self._line + data).rpartition(b"\n")
        if not data or len(rest) > LONGEST_LINE:
            lines, end, rest = lines + end + rest, b"", b""
        self._line = rest
        for start in range(0, len(lines + end), MAX_DATA):
            self.writer.put(LogFile.KERNEL, LogSource.SYSTEM, None, (lines + end)[start : start + MAX_DATA])

    def mark(self, text: str) -> None:
        """Something about the sandbox."""
        self.writer.put(LogFile.EXEC, LogSource.SYSTEM, None, f"sandbox {text}\n".encode()[:MAX_DATA], mark=True)

    def message(self, text: str) -> None:
        """A message of the runtime. May come from any thread."""
        self.writer.put(LogFile.RUNTIME, LogSource.SYSTEM, None, text.encode(errors="replace")[: MAX_DATA - 1] + b"\n")

    def entered(self, state: State) -> None:
        """The lifecycle entered a state; `ended` tells of the terminal ones, which have a reason."""
        was, self._state = self._state, state
        if state is State.RUNNING:
            self.mark("resumed" if was is State.PAUSED else "ready")
        elif state not in TERMINAL:
            self.mark(state)

    def ended(self, end: End) -> None:
        """The machine is gone."""
        self.mark(f"{end.state}: {end.reason}, exit code {end.exit_code}")


@asynccontextmanager
async def recorded_logs(folder: Path, config: SandboxConfig) -> AsyncIterator[Recorder]:
    """The logs in the sandbox's own `folder`, written for the length of the block. Raises StorageError."""
    path = logs_of(folder)
    with trio.CancelScope(shield=True):  # a mkdir, and the end of the last run's files
        writer = await trio.to_thread.run_sync(partial(_opened, path))
    writer.start()
    recorder = Recorder(writer, config.quiet_logs)
    try:
        with recorded_messages(recorder.message, config.log_level):
            try:
                yield recorder
            except Exception as error:
                if not isinstance(error, SandboxError):  # a bug, whose traceback nobody may ever see otherwise
                    recorder.message("".join(traceback.format_exception(error)))
                raise
    finally:
        recorder.console(b"")
        writer.close()
        with trio.CancelScope(shield=True):  # bounded by CLOSE_TIMEOUT, in real time: it is a disk that we wait for
            await trio.to_thread.run_sync(writer.join, CLOSE_TIMEOUT)


def _opened(path: Path) -> LogWriter:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        return LogWriter(path)
    except OSError as error:
        raise StorageError(str(path), error.errno or 0, error.strerror or str(error)) from error
