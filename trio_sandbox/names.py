"""A sandbox's name belongs to one sandbox at a time, across processes, without leaving a file for each.

The name is a lock (`locks.py`): the kernel drops it with its holder, so a process that is killed holds no name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trio_sandbox.errors import SandboxAlreadyExistsError
from trio_sandbox.home import Home
from trio_sandbox.locks import held_if_free


@contextmanager
def reserved_name(home: Home, name: str) -> Iterator[None]:
    """Hold `name` in `home` for the block. Raises SandboxAlreadyExistsError, StorageError."""
    with held_if_free(home, f"name {name}") as held:
        if not held:
            raise SandboxAlreadyExistsError(name)
        yield
