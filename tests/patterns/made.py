"""Simulated sandboxes as the helpers make them, and what is known of them afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from trio_sandbox import Sandbox
from trio_sandbox.testing import SimulatedGuest, simulated_sandbox


@attrs.define
class Made:
    """A `make=`. names: of all sandboxes so far; running: of those that are there now. most: of these at once."""

    names: list[str] = attrs.Factory(list)
    running: set[str] = attrs.Factory(set)
    guests: list[SimulatedGuest] = attrs.Factory(list)
    most: int = 0
    failures: list[Exception] = attrs.Factory(list)
    """What the next ones meet instead of being made."""

    @asynccontextmanager
    async def __call__(self, name: str) -> AsyncIterator[Sandbox]:
        self.names.append(name)
        if self.failures:
            raise self.failures.pop(0)
        guest = SimulatedGuest()
        async with simulated_sandbox(name, guest) as sandbox:
            self.guests.append(guest)
            self.running.add(name)
            self.most = max(self.most, len(self.running))
            try:
                yield sandbox
            finally:
                self.running.remove(name)

    def nothing_left(self) -> None:
        """Raise AssertionError for a sandbox, or a program of one, that is there still."""
        assert not self.running
        assert not any(guest.running or guest.open_sessions for guest in self.guests)
