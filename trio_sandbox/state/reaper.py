"""Putting right, now and then, what the dead have left in the store. Every sandbox process does it; there is no daemon.

Whoever looks at a row finds the truth anyway (`Store`): this is for the files, sockets and rows that nobody looks at.

Runs in: a task of the sandbox process. Owns: nothing. Ends when: cancelled.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable

import trio

from trio_sandbox.errors import StorageError

log = logging.getLogger("trio_sandbox.state")

INTERVAL = 30.0
"""Seconds between two looks, on average: many processes should not look at once."""
SPREAD = 0.5
"""By what part of it an interval is shorter or longer, at most."""


async def reap(reconcile: Callable[[], Awaitable[list[str]]], chance: random.Random | None = None) -> None:
    """Call `reconcile` at intervals. It returns the names of those that it put right."""
    chance = chance or random.Random()  # noqa: S311 - it keeps processes out of step, and no secret
    while True:
        await trio.sleep(INTERVAL * chance.uniform(1 - SPREAD, 1 + SPREAD))
        try:
            names = await reconcile()
        except StorageError as error:  # a full disk, say: the next look may be luckier
            log.warning("the state of dead sandboxes cannot be put right: %s", error)
        else:
            if names:
                log.info("put right after the death of their processes: %s", ", ".join(names))
