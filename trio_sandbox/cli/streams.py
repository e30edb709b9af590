"""A program in a sandbox joined to this process's standard streams, and its end as an exit status. Imports Trio."""

from __future__ import annotations

import os
import stat
import sys

import trio

from trio_sandbox.cli.failures import sentence
from trio_sandbox.cli.output import tell
from trio_sandbox.client.outcome import ExecEventType
from trio_sandbox.client.program import ExecHandle, ExecSink
from trio_sandbox.errors import ExecFailedError, ExecTimeoutError

CHUNK = 65_536
EXIT_TIMEOUT = 124
EXIT_FAILED = 125
"""The sandbox, and not the command, failed: as docker has it."""
EXIT_BY_KIND = {"not_found": 127, "not_executable": 126, "permission_denied": 126}
"""What shells say of a command that did not start."""


def is_piped() -> bool:
    """Whether standard input is a pipe, a socket or a file: something that was put there to be read."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):  # closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)


def on_terminals() -> bool:
    """Whether somebody sits at standard input and output."""
    try:
        return os.isatty(sys.stdin.fileno()) and os.isatty(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return False


async def joined(handle: ExecHandle) -> int:
    """Pass output on as it comes, and standard input in if the program has one, until it ends; its exit status.

    Raises BrokenPipeError when nobody reads the output.
    """
    sink = handle.take_stdin()
    async with trio.open_nursery() as nursery:
        if sink is not None:
            nursery.start_soon(_pass_stdin, sink)
        failure: BrokenPipeError | None = None
        status = EXIT_FAILED
        try:
            status = await _pass_output(handle)
        except BrokenPipeError as error:
            failure = error
        nursery.cancel_scope.cancel(reason="the command has ended")
    if failure is not None:
        raise failure
    return status


def status_of(error: ExecFailedError | ExecTimeoutError) -> int:
    """Say why a command has no exit code of its own, and return what stands for it."""
    tell(sentence(error))
    if isinstance(error, ExecTimeoutError):
        return EXIT_TIMEOUT
    return EXIT_BY_KIND.get(error.kind, EXIT_FAILED)


async def _pass_output(handle: ExecHandle) -> int:
    async for event in handle:
        if event.event_type is ExecEventType.STDOUT:
            await _write(sys.stdout.fileno(), event.data or b"")
        elif event.event_type is ExecEventType.STDERR:
            await _write(sys.stderr.fileno(), event.data or b"")
    try:
        code, _ = await handle.wait()
    except (ExecFailedError, ExecTimeoutError) as error:
        return status_of(error)
    return code


async def _write(descriptor: int, data: bytes) -> None:
    """Write all, in a thread: a terminal or pipe that nobody reads must not stop the loop. A closed pipe ends the
    command.
    """
    await trio.to_thread.run_sync(_write_blocking, descriptor, data, abandon_on_cancel=True)


def _write_blocking(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


async def _pass_stdin(sink: ExecSink) -> None:
    """Pass our standard input on until it or the command ends.

    The descriptor stays in blocking mode (it may be shared with the shell that started us), so it is only read when it
    is ready.
    """
    try:
        while data := await _read_stdin():
            await sink.write(data)
        await sink.close()
    except BrokenPipeError:
        pass


async def _read_stdin() -> bytes:
    try:
        descriptor = sys.stdin.fileno()
        pollable = not stat.S_ISREG(os.fstat(descriptor).st_mode)
    except (OSError, ValueError, AttributeError):  # closed: the command gets an empty input
        return b""
    if pollable:
        try:
            await trio.lowlevel.wait_readable(descriptor)
        except OSError:  # /dev/null and other devices without polling are always ready
            await trio.lowlevel.checkpoint()
    else:
        await trio.lowlevel.checkpoint()
    try:
        return os.read(descriptor, CHUNK)
    except OSError:  # a terminal that has gone
        return b""
