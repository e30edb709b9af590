"""Cancel an operation at each of its checkpoints in turn."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable

import attrs
import trio

STEP_LIMIT = 5000
"""Checkpoints of one operation: more means that it never ends."""


@attrs.define(eq=False)
class _Canceller(trio.abc.Instrument):
    """Cancels `scope` when `task`, or with None all tasks together, have come to checkpoint number `step`."""

    task: trio.lowlevel.Task | None
    step: int
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    seen: int = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.task is None or task is self.task:
            self.seen += 1
            if self.seen == self.step:
                self.scope.cancel(reason=f"checkpoint {self.step}")


async def cancelled_at(step: int, operation: Callable[[], Awaitable[object]], *, of_all_tasks: bool = False) -> bool:
    """Run the operation, cancelled at its checkpoint number `step`. Whether it came that far.

    of_all_tasks: the checkpoints of all tasks of this run count, those that the operation starts among them.
    """
    canceller = _Canceller(None if of_all_tasks else trio.lowlevel.current_task(), step)
    trio.lowlevel.add_instrument(canceller)
    try:
        with canceller.scope:
            await operation()
    finally:
        trio.lowlevel.remove_instrument(canceller)
    return canceller.seen >= step


async def cancelled_everywhere(
    operation: Callable[[], Awaitable[object]], check: Callable[[], Awaitable[object]]
) -> int:
    """Run the operation again and again, cancelled at its first checkpoint, its second, …, until it ends before.

    check: what must hold after each time. Returns how many checkpoints it has.
    """
    for step in itertools.count(1):
        assert step < STEP_LIMIT, "the operation does not end"
        reached = await cancelled_at(step, operation)
        await check()
        if not reached:
            return step - 1
    raise AssertionError
