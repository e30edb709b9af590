"""`trio-sandbox run IMAGE -- CMD ARG…`: one command in a sandbox of its own, wired to this terminal's streams."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import click
import trio

from trio_sandbox.client.options import Stdin
from trio_sandbox.client.outcome import ExecEventType
from trio_sandbox.client.program import ExecHandle, ExecSink
from trio_sandbox.errors import ExecFailedError
from trio_sandbox.sandbox import open_sandbox

CHUNK = 65_536
EXIT_NOT_FOUND = 127
EXIT_NOT_EXECUTABLE = 126
EXIT_FAILED = 125
"""The sandbox, and not the command, failed: as docker has it."""
EXIT_INTERRUPTED = 130


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--name", default=None, help="Name of the sandbox; made up when not given.")
@click.option("--cpus", default=1, show_default=True, help="Virtual CPUs.")
@click.option("-m", "--memory", default=512, show_default=True, help="Guest memory in MiB.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Environment variable; may be repeated.")
@click.option("-w", "--workdir", default=None, help="Working directory of the command.")
@click.option("-u", "--user", default=None, help="User of the command: name, uid, user:group or uid:gid.")
@click.option("--timeout", type=float, default=None, help="Seconds after which the command is killed (exit code 124).")
@click.option("--cold", is_flag=True, help="Boot, even where a warm template could be cloned.")
@click.option("--timings", is_flag=True, help="Say on standard error how long each stage took.")
@click.argument("image")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    name: str | None,
    cpus: int,
    memory: int,
    env: Sequence[str],
    workdir: str | None,
    user: str | None,
    timeout: float | None,
    cold: bool,
    timings: bool,
    image: str,
    command: Sequence[str],
) -> int:
    """Run COMMAND in a fresh sandbox of IMAGE and return its exit code.

    Output is passed on as it comes and standard input is passed in. 127: the command was not found; 126: it cannot be
    executed; 128+n: signal n ended it; 125: the sandbox itself failed. Ctrl-C ends the sandbox and leaves nothing
    behind.
    """
    options: dict[str, Any] = {
        "image": image,
        "cpus": cpus,
        "memory": memory,
        "env": _environment(env),
        "workdir": workdir,
        "user": user,
        "warm": not cold,
    }
    if command[0] == "--":
        command = command[1:]
    if not command:
        raise click.UsageError("missing argument 'COMMAND...'")
    return trio.run(run_to_end, name or f"run-{os.getpid()}", options, command, timeout, timings)


def _environment(words: Sequence[str]) -> dict[str, str]:
    """`-e NAME=VALUE`, or `-e NAME` to pass the variable of this process on."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            found[key] = value
        elif key in os.environ:
            found[key] = os.environ[key]
    return found


async def run_to_end(
    name: str,
    options: dict[str, Any],
    command: Sequence[str],
    timeout: float | None,
    timings: bool = False,
) -> int:
    """The whole of `run`: returns the exit code. SIGINT, SIGTERM and SIGHUP cancel everything."""
    interrupted = 0
    code = EXIT_FAILED
    with trio.CancelScope() as everything:
        async with _signals(everything) as caught:
            try:
                async with open_sandbox(name, **options) as sandbox:
                    if timings:
                        click.echo(timeline(sandbox.timings), err=True)
                    handle = await sandbox.exec_stream(
                        command[0], list(command[1:]), stdin=Stdin.pipe(), timeout=timeout
                    )
                    code = await _relay_streams(handle)
            finally:
                interrupted = caught[0] if caught else 0
    return 128 + interrupted if everything.cancelled_caught and interrupted else code


def timeline(timings: Mapping[str, float]) -> str:
    """The stages of a start, each with its own milliseconds, and their sum."""
    lines, before = [], 0.0
    for stage, at in timings.items():
        lines.append(f"{stage:<10}{(at - before) * 1e3:8.1f} ms")
        before = at
    return "\n".join([*lines, f"{'together':<10}{before * 1e3:8.1f} ms"])


@asynccontextmanager
async def _signals(scope: trio.CancelScope) -> AsyncIterator[list[int]]:
    """Cancel `scope` at the first signal that asks this process to end; yields the list of those caught."""
    caught: list[int] = []

    async def watch(task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                caught.append(number)
                scope.cancel(reason=f"signal {number}")

    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        yield caught
        nursery.cancel_scope.cancel(reason="the command has ended")


async def _relay_streams(handle: ExecHandle) -> int:
    sink = handle.take_stdin()
    assert sink is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pass_stdin, sink)
        code = await _pass_output(handle)
        nursery.cancel_scope.cancel(reason="the command has ended")
    return code


async def _pass_output(handle: ExecHandle) -> int:
    async for event in handle:
        if event.event_type is ExecEventType.STDOUT:
            await _write(sys.stdout.fileno(), event.data or b"")
        elif event.event_type is ExecEventType.STDERR:
            await _write(sys.stderr.fileno(), event.data or b"")
    try:
        code, _ = await handle.wait()
    except ExecFailedError as error:
        click.echo(f"trio-sandbox: {error}", err=True)
        return {"not_found": EXIT_NOT_FOUND}.get(
            error.kind, EXIT_NOT_EXECUTABLE if error.kind in ("not_executable", "permission_denied") else EXIT_FAILED
        )
    except TimeoutError as error:
        click.echo(f"trio-sandbox: {error}", err=True)
        return 124
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
