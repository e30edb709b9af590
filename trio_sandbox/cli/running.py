"""Async commands: run on Trio until they return, fail, or a signal asks this process to end. Imports Trio."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import click
import trio

from trio_sandbox.client.handle import SandboxHandle
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.errors import SandboxError

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_async(command: Callable[..., Awaitable[int | None]], *arguments: Any) -> int:
    """Run an async function and return its exit status, 0 for None; 128+n when signal n cancelled it."""
    return trio.run(_until_signalled, command, arguments)


async def _until_signalled(command: Callable[..., Awaitable[int | None]], arguments: Sequence[Any]) -> int:
    caught: list[int] = []
    status: int | None = None
    failure: BaseException | None = None

    async def watch(*, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(*ENDING_SIGNALS) as signals:
            task_status.started()
            async for number in signals:
                caught.append(number)
                nursery.cancel_scope.cancel(reason=f"signal {number}")

    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        try:
            status = await command(*arguments)
        except Exception as error:
            failure = error  # raised below, where it is not in a group
        nursery.cancel_scope.cancel(reason="the command has ended")
    if failure is not None:
        raise failure
    return 128 + caught[0] if status is None and caught else status or 0


async def each(names: Sequence[str], action: Callable[[SandboxHandle], Awaitable[str | None]]) -> None:
    """Do something to several sandboxes at once, and print what it returns, or the name, of each that it was done to.

    Raises, when all has been tried, the failure of the one that failed, or those of several as a group.
    """
    failures: list[Exception] = []

    async def one(name: str) -> None:
        try:
            said = await action(await Sandbox.get(name))
        except SandboxError as error:
            failures.append(error)
        else:
            click.echo(name if said is None else said)

    async with trio.open_nursery() as nursery:
        for name in dict.fromkeys(names):
            nursery.start_soon(one, name)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup("several sandboxes", failures)
