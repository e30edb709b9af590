"""Waiting for a lock on Trio: where several tasks or processes want to make the same thing, one does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from trio_sandbox.home import Home
from trio_sandbox.locks import lock_file, try_lock

FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.1
"""Seconds between two tries. The kernel can wake a waiter, but then the waiter cannot be cancelled."""


@asynccontextmanager
async def exclusively(home: Home, key: str) -> AsyncIterator[None]:
    """Run the block while nobody else runs one of the same key. Cancellation while waiting leaves nothing held.

    Raises StorageError.
    """
    with lock_file(home) as descriptor:
        pause = FIRST_PAUSE
        while not try_lock(descriptor, key):
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        yield
