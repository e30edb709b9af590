"""The verbs that move sandboxes from state to state: start, stop, kill, drain, pause, resume, restart, wait, rm.

Each takes several names, does all of them at once, and prints the name of each that it was done to.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import click

from trio_sandbox.cli.options import json_option, names_argument

if TYPE_CHECKING:
    from trio_sandbox.client.handle import SandboxHandle

    Action = Callable[[SandboxHandle], Awaitable[str | None]]

STOP_TIMEOUT = 10.0
stop_timeout = click.option(
    "-t",
    "--time",
    "--timeout",
    "timeout",
    type=click.FloatRange(min=0),
    default=STOP_TIMEOUT,
    show_default=True,
    help="Seconds to power off by itself; 0 ends it at once.",
)


def _each(names: Sequence[str], action: Action) -> int:
    from trio_sandbox.cli.running import each, run_async

    return run_async(each, names, action)


async def _started(handle: SandboxHandle) -> None:
    sandbox = await handle.start(detached=True)
    await sandbox.detach()


@click.command()
@names_argument
def start(names: Sequence[str]) -> int:
    """Start sandboxes that do not run, each with its own configuration and disk. They outlive this command."""
    return _each(names, _started)


@click.command()
@stop_timeout
@names_argument
def stop(timeout: float, names: Sequence[str]) -> int:
    """Let sandboxes write their data and power off; what does not in time is ended. Harmless when it does not run."""
    return _each(names, lambda handle: handle.stop(timeout))


@click.command()
@names_argument
def kill(names: Sequence[str]) -> int:
    """End sandboxes at once, as a power cut would. Harmless when they do not run."""
    return _each(names, lambda handle: handle.kill())


@click.command()
@click.option(
    "-t", "--timeout", type=click.FloatRange(min=0), default=None, help="Seconds after which they stop anyway."
)
@click.option("--wait", is_flag=True, help="Return when they have stopped.")
@names_argument
def drain(timeout: float | None, wait: bool, names: Sequence[str]) -> int:
    """Let the programs of sandboxes run to their end and take no new ones; when the last has ended, they stop.

    Returns at once unless told to --wait.
    """

    async def drain_one(handle: SandboxHandle) -> None:
        await handle.drain(timeout)
        if wait:
            await handle.wait_until_stopped()

    return _each(names, drain_one)


@click.command()
@names_argument
def pause(names: Sequence[str]) -> int:
    """Make sandboxes stand still: their programs cost no processor time and go on at `resume`."""
    return _each(names, lambda handle: handle.pause())


@click.command()
@names_argument
def resume(names: Sequence[str]) -> int:
    """Let paused sandboxes go on where they were. Harmless when they run."""
    return _each(names, lambda handle: handle.resume())


@click.command()
@stop_timeout
@names_argument
def restart(timeout: float, names: Sequence[str]) -> int:
    """Stop sandboxes as `stop` does and start them again."""

    async def restart_one(handle: SandboxHandle) -> None:
        await handle.stop(timeout)
        await _started(handle)

    return _each(names, restart_one)


@click.command()
@json_option
@names_argument
def wait(as_json: bool, names: Sequence[str]) -> int:
    """Wait until sandboxes have ended, and print the exit code of each as it ends: 0 after a power-off, -9 when it was
    killed, 1 after a crash. One that does not run has ended already.

    --json has a document with name and exit code a line.
    """

    async def wait_for_one(handle: SandboxHandle) -> str:
        code = await _exit_code(handle)
        return json.dumps({"name": handle.name, "exit_code": code}) if as_json else str(code)

    return _each(names, wait_for_one)


async def _exit_code(handle: SandboxHandle) -> int:
    if handle.config.ephemeral:  # what the store knew of it goes with it
        async with await handle.connect() as sandbox:
            return (await sandbox.end()).exit_code
    await handle.wait_until_stopped()
    return (await handle.runs())[-1].exit_code


@click.command()
@click.option("-f", "--force", is_flag=True, help="Kill those that run.")
@names_argument
def rm(force: bool, names: Sequence[str]) -> int:
    """Remove sandboxes that do not run, and all that they kept."""

    async def remove_one(handle: SandboxHandle) -> None:
        if force:
            await handle.kill()
        if not (force and handle.config.ephemeral):  # it went when it was killed
            await handle.remove()

    return _each(names, remove_one)
