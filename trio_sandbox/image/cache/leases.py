"""Saying that something in the cache is in use: a shared lock, which the kernel drops when its holder dies.

Whoever is about to rely on a blob or a root file system leases it first and looks whether it is there afterwards.
Whoever removes one (`collect.py`) must have it alone, and asks again whether it is needed once it has. A sandbox holds
the lease on its root file system for as long as it lives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import attrs
import trio

from trio_sandbox.exclusive import FIRST_PAUSE, LONGEST_PAUSE
from trio_sandbox.home import Home
from trio_sandbox.locks import lock_file, try_lock


@attrs.define(eq=False)
class Lease:
    """What one task relies on, until the end of its `leased` block."""

    _descriptor: int

    async def add(self, keys: Iterable[str]) -> None:
        """Rely on more. Waits for a removal that is under way, which takes milliseconds."""
        for key in keys:
            pause = FIRST_PAUSE
            while not try_lock(self._descriptor, key, shared=True):
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)


@contextmanager
def leased(home: Home) -> Iterator[Lease]:
    """A lease on nothing yet, for the length of the block. Raises StorageError."""
    with lock_file(home) as descriptor:
        yield Lease(descriptor)
