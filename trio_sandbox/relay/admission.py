"""Who may have a channel: at most 16 clients at once, and 4 control connections beside them.

A client that finds no place is told so with the limit, or waits its turn if it asked to. The queue is fair: places go
in the order in which they were asked for.
"""

from __future__ import annotations

import attrs
import trio

from trio_sandbox.errors import ClientLimitError

CLIENT_LIMIT = 16
"""Client channels of one sandbox at once; the sandbox's own handle is one of them (API document, lifecycle page)."""
CONTROL_LIMIT = 4
"""Control connections at once. They take no channel, so that a full sandbox can still be stopped."""


@attrs.define(eq=False)
class Places:
    """`limit` numbered places, 1 to limit. what: for the error."""

    what: str
    limit: int
    _free: list[int] = attrs.field(init=False)
    _taken: dict[int, object] = attrs.field(init=False, factory=dict)
    _lot: trio.CapacityLimiter = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._free = list(range(self.limit, 0, -1))
        self._lot = trio.CapacityLimiter(self.limit)

    @property
    def used(self) -> int:
        """Places that are taken now."""
        return self._lot.borrowed_tokens  # also what a waiter was given and has not picked up

    async def acquire(self, patience: float = 0.0) -> int:
        """Take a place; its number, for `release`.

        patience: seconds to wait for one; 0 for not at all. Raises ClientLimitError. Cancellation: the turn is given
        up.
        """
        if patience <= 0:
            await trio.lowlevel.checkpoint()
            return self.acquire_nowait()
        token = object()
        with trio.move_on_after(patience):
            await self._lot.acquire_on_behalf_of(token)
            return self._number(token)
        raise ClientLimitError(self.what, self.limit, self.used)

    def acquire_nowait(self) -> int:
        """Take a place now. Raises ClientLimitError, also while others wait."""
        token = object()
        try:
            self._lot.acquire_on_behalf_of_nowait(token)
        except trio.WouldBlock:
            raise ClientLimitError(self.what, self.limit, self.used) from None
        return self._number(token)

    def _number(self, token: object) -> int:
        number = self._free.pop()
        self._taken[number] = token
        return number

    def release(self, number: int) -> None:
        """Free a place; the one that has waited longest gets it."""
        self._free.append(number)
        self._lot.release_on_behalf_of(self._taken.pop(number))


@attrs.define(eq=False)
class Admission:
    """The places of one sandbox."""

    clients: Places = attrs.field(factory=lambda: Places("clients", CLIENT_LIMIT))
    controls: Places = attrs.field(factory=lambda: Places("controls", CONTROL_LIMIT))
