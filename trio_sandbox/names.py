"""A sandbox's name belongs to one sandbox at a time, across processes, without leaving a file for each.

The name is a lock (`locks.py`): the kernel drops it with its holder, so a process that is killed holds no name. A
process that has ended its sandbox holds the name for a moment longer; whoever knows that it has ended may wait for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from trio_sandbox.errors import SandboxAlreadyExistsError
from trio_sandbox.home import Home
from trio_sandbox.locks import NAME_PAUSE, held_if_free, name_key


@asynccontextmanager
async def reserved_name(
    home: Home, name: str, is_live: Callable[[], bool] = lambda: True, patience: float = 5.0
) -> AsyncIterator[None]:
    """Hold `name` in `home` for the block. is_live: whether whoever holds it now has a sandbox that lives; if not, it
    is waited for, for at most `patience` seconds. Raises SandboxAlreadyExistsError, StorageError.
    """
    until = trio.current_time() + patience
    while True:
        with held_if_free(home, name_key(name)) as held:
            if held:
                yield
                return
        if await trio.to_thread.run_sync(is_live) or trio.current_time() > until:
            raise SandboxAlreadyExistsError(name)
        await trio.sleep(NAME_PAUSE)
