"""A player with a fresh sandbox, for as long as a block lasts or a script takes.

Runs in: the caller's task, with the sandbox's block and the writers of standard input as services beneath it. Nothing
of it is left when the block is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.errors import SandboxCrashedError, SandboxError
from trio_sandbox.service import service
from trio_sandbox.testing import actions as do
from trio_sandbox.testing.backends import Backend
from trio_sandbox.testing.faults import Faults
from trio_sandbox.testing.model import SessionModel
from trio_sandbox.testing.player import Player


@asynccontextmanager
async def player(backend: Backend, faults: Faults) -> AsyncIterator[Player]:
    """A player with a fresh sandbox. At the end all of it is gone, whatever was played."""
    crashes: list[SandboxError] = []
    async with service(_own, backend, faults, crashes, name="sandbox of the player") as (sandbox, address):
        async with service(_writers, name="writers of the player") as nursery:
            one = Player(backend, faults, sandbox, nursery, address, [sandbox], crashes=crashes)
            try:
                yield one
            finally:
                with trio.CancelScope(shield=True):  # each has its own patience
                    for client in one.clients[1:]:
                        await client.detach()


async def _own(
    backend: Backend,
    faults: Faults,
    crashes: list[SandboxError],
    *,
    task_status: trio.TaskStatus[tuple[Sandbox, Path]],
) -> None:
    """Own the sandbox, so that its crash ends its block, and not whoever plays."""
    try:
        async with backend.open(faults) as opened:
            task_status.started(opened)
            await trio.sleep_forever()
    except* SandboxCrashedError as group:  # beside it, perhaps, the cancellation of whoever plays
        crashes.append(_leaf(group))
    if crashes and not faults.may_crash:
        raise crashes[0]
    await trio.sleep_forever()


def _leaf(group: BaseExceptionGroup[SandboxCrashedError]) -> SandboxCrashedError:
    first = group.exceptions[0]
    return _leaf(first) if isinstance(first, BaseExceptionGroup) else first


async def _writers(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()


async def play(backend: Backend, script: Iterable[do.Action], faults: Faults | None = None) -> list[SessionModel]:
    """Play a whole script in a fresh sandbox, and return what became of its sessions.

    Raises AssertionError for whatever is not as it must be. Cancellation: nothing is left.
    """
    async with player(backend, faults or Faults()) as one:
        for action in script:
            await one.perform(action)
            await one.check()
        await one.finish()
        return one.ended
