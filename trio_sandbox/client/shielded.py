"""Finishing what must be finished although one was cancelled, on Trio and on asyncio. anyio only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

TRIES = 10
"""How often asyncio may cancel the task before it has its way. Each try has a bound of its own."""


async def shielded(function: Callable[[], Awaitable[None]]) -> None:
    """Await `function()` to its end, whatever is cancelled meanwhile, and let the cancellation go on then.

    An anyio shield keeps out cancel scopes, and not `Task.cancel` of asyncio, which `asyncio.timeout` and `wait_for`
    use too: that interrupts `function`, which is then begun again and must go on where it was.
    """
    interruption: BaseException | None = None
    with anyio.CancelScope(shield=True):
        for _ in range(TRIES):
            try:
                await function()
            except anyio.get_cancelled_exc_class() as error:  # noqa: ASYNC103 - raised below
                interruption = error
            else:
                break
    if interruption is not None:
        raise interruption
