"""`admitted()`: the wait for room on this host, and the room for as long as it is needed. On Trio."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from trio_sandbox.admission.limits import Limits
from trio_sandbox.admission.queue import Shortage, Standing, Ticket, standing
from trio_sandbox.admission.register import RECORDS, Register
from trio_sandbox.errors import HostLimitError
from trio_sandbox.home import Home

PAUSE = 0.01
"""Seconds between two looks of the first in line; whoever is further back looks that much less often. The kernel can
wake a waiter, but then the waiter cannot be cancelled.
"""
LONGEST_PAUSE = 0.5
BACKGROUND_PAUSE = 0.05
"""Seconds at least, in the background: nobody waits, and it may be for hours."""
TURN_PAUSE = 0.001
"""Seconds to wait while somebody else has its turn."""
TURN_PATIENCE = 1.0
"""Seconds that a first look may take, however soon the deadline is."""
NEVER = 1 << 62
"""The number of a request that did not get in line."""


@attrs.define(eq=False)
class Share:
    """The room that one sandbox has on its host."""

    _register: Register

    def booted(self) -> None:
        """The sandbox is ready: somebody else may boot. Raises StorageError."""
        self._register.booted()


@attrs.define(eq=False)
class Urgency:
    """How much somebody waits for a sandbox. In the background: it is made ahead of time, and nobody does yet; then it
    gives way to all others for as long as it takes.
    """

    background: bool = False
    _hurried: trio.Event = attrs.Factory(trio.Event)
    _register: Register | None = None

    def hurry(self) -> None:
        """Somebody waits for it, or uses it, from now on: it is a request like all others, and the last of them.

        Raises StorageError.
        """
        if self.background:
            self.background = False
            self._hurried.set()
            if self._register is not None:
                self._register.take()

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            if self.background:
                await self._hurried.wait()
            else:
                await trio.sleep_forever()


def require_possible(home: Home, memory: int) -> Limits:
    """The limits, under which a sandbox that takes `memory` MiB fits if it is the only one. Raises HostLimitError,
    InvalidConfigError.
    """
    limits = Limits.load(home)
    if memory > limits.memory:
        raise HostLimitError("memory", limits.memory, 0, memory)
    return limits


@asynccontextmanager
async def admitted(home: Home, memory: int, *, timeout: float, urgency: Urgency | None = None) -> AsyncIterator[Share]:
    """Wait until there is room for one more sandbox, and have it for the length of the block.

    memory: MiB. timeout: seconds; it does not count in the background. What is had: `memory`, one of the sandboxes, and
    until `Share.booted` one of the boots. All of it is given back when the block ends or the process does, however.

    Raises HostLimitError: at once for what can never fit, else after `timeout`; InvalidConfigError for a faulty file of
    limits, StorageError. Cancellation: nothing is had.
    """
    urgency = urgency or Urgency()
    limits = require_possible(home, memory)
    await trio.lowlevel.checkpoint()
    with Register.opened(home) as register:
        await _wait(_Request(register, limits, memory, timeout, urgency))
        urgency._register = register
        try:
            yield Share(register)
        finally:
            urgency._register = None


@attrs.define(eq=False)
class _Request:
    """What is known of a request that waits."""

    register: Register
    limits: Limits
    memory: int
    timeout: float
    urgency: Urgency
    began: float = attrs.Factory(trio.current_time)
    ticket: Ticket | None = None
    ahead: int | None = None
    """How many were before it at the last look."""

    @property
    def waited(self) -> float:
        return trio.current_time() - self.began

    @property
    def time_left(self) -> float:
        if self.urgency.background:
            return math.inf
        patience = self.timeout if self.ahead is not None else max(self.timeout, TURN_PATIENCE)
        return patience - self.waited

    def look(self) -> bool:
        """Get in line, or see how far it got; whether it is admitted now. In its turn."""
        background = self.urgency.background
        if self.ticket is None or self.ticket.background != background:
            self.ticket = self.register.enter(self.memory, background=background)
        self.ahead = RECORDS if self.ticket is None else self.register.crowd_ahead()
        if self.ahead:
            return False
        stands = self._standing()
        self.ahead = stands.ahead
        if stands.may_go:
            self.register.admit()
        return stands.may_go

    def _standing(self) -> Standing:
        return standing(self.ticket or Ticket(NEVER, self.memory), self.register.others(), self.limits)

    def error(self) -> HostLimitError:
        """What is raised at the deadline."""
        stands = self._standing()
        short = stands.shortage or Shortage("boots", self.limits.boots, self.limits.boots)  # it came free just now
        needed = self.memory if short.resource == "memory" else 1
        return HostLimitError(short.resource, short.limit, short.usage, needed, self.waited, stands.ahead)


async def _wait(request: _Request) -> None:
    """Return when it is admitted, in the very step. Raises HostLimitError at the deadline."""
    was_background = request.urgency.background
    while True:
        if was_background and not request.urgency.background:
            was_background, request.began = False, trio.current_time()
        with request.register.turn() as held:
            if held and request.look():
                return
        if request.time_left <= 0:
            raise request.error()
        pause = TURN_PAUSE
        if held and request.ahead is not None:
            pause = min(PAUSE * (request.ahead + 1), LONGEST_PAUSE)
            if request.urgency.background:
                pause = max(pause, BACKGROUND_PAUSE)
        await request.urgency._pause(min(pause, request.time_left))
