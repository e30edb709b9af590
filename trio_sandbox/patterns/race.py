"""`race`: several runs side by side, of which the first success wins. anyio only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from trio_sandbox.client.outcome import ExecOutput
from trio_sandbox.patterns.errors import UnsuccessfulError

T = TypeVar("T")


async def race(*runs: Callable[[], Awaitable[T]]) -> T:
    """Run all at once, and return what the first one that succeeds returns: `await race(partial(sb.exec, …), …)`.

    A run succeeds by returning, but not with an ExecOutput whose exit code is not 0. The others are cancelled then, and
    `race` returns when they have ended: the programs of a run that `exec` had started are killed, and the guest's word
    for it is awaited as `exec` does. What a loser raises is dropped, and so is what one returns that succeeds in the
    same moment: a run that makes something which must be closed closes it by itself.

    Raises ValueError without any runs; when all have failed an ExceptionGroup of what they raised, in the order
    of their ends, with an UnsuccessfulError for a program's exit code. Cancellation: all are cancelled, and have ended.
    """
    if not runs:
        raise ValueError("a race needs at least one run")
    failures: list[Exception] = []
    won: list[T] = []
    async with anyio.create_task_group() as group:

        async def take_part(run: Callable[[], Awaitable[T]]) -> None:
            try:
                result = await run()
                if isinstance(result, ExecOutput) and not result.success:
                    raise UnsuccessfulError(result)
            except Exception as error:
                failures.append(error)
            else:
                won.append(result)
                group.cancel_scope.cancel()

        for run in runs:
            group.start_soon(take_part, run)
    if won:
        return won[0]
    raise ExceptionGroup("every run of the race failed", failures)
