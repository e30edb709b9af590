"""A Trio program that moves only while a synchronous test waits for one of its steps.

For state machines: rules are plain functions, and what they start must live on between them. Trio's guest mode does
it: the test is the host loop. No Hypothesis here.
"""

from __future__ import annotations

import enum
import math
import queue
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

import outcome
import trio
import trio.testing

T = TypeVar("T")
R = TypeVar("R")
PATIENCE = 30.0
"""Real seconds in which nothing at all happens before a step is given up."""


class Time(enum.Enum):
    """Whose the time of a program in steps is."""

    BY_HAND = "by hand"
    """Virtual, and moved by `pass_time` alone."""
    AUTOMATIC = "automatic"
    """Virtual, and moved by whatever a step waits for. It stands still between steps."""
    REAL = "real"


class Steps(Generic[T]):
    """Runs `make()` as a context around all steps; its value is the first argument of each.

    time: whose it is. Use it in one thread, and `close` it, whatever happened.
    """

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[T]], time: Time = Time.BY_HAND) -> None:
        self._time = time
        self._clock = None if time is Time.REAL else trio.testing.MockClock()
        self._ready: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._end: outcome.Outcome[None] | None = None
        self.has_failed = False
        self._steps, self._receive = trio.open_memory_channel[Callable[[T], Awaitable[None]]](1)
        trio.lowlevel.start_guest_run(
            self._main,
            make,
            run_sync_soon_threadsafe=self._ready.put,
            done_callback=self._done,
            clock=self._clock,
            host_uses_signal_set_wakeup_fd=True,
        )

    def _done(self, end: outcome.Outcome[None]) -> None:
        self._end = end

    def _autojump(self, on: bool) -> None:
        if self._clock is not None:
            self._clock.autojump_threshold = 0 if on else math.inf

    async def _main(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._autojump(self._time is Time.AUTOMATIC)
        try:
            async with make() as value:
                self._autojump(False)
                try:
                    async for step in self._receive:
                        await step(value)
                finally:
                    self._autojump(True)  # nobody moves it any more
        finally:
            self._receive.close()

    def __call__(self, step: Callable[[T], Awaitable[R]]) -> R:
        """Run one step and all that follows from it without time passing. Raises what it or the program raises."""
        results: list[outcome.Outcome[R]] = []

        async def run(value: T) -> None:
            self._autojump(self._time is Time.AUTOMATIC)
            results.append(await outcome.acapture(step, value))
            self._autojump(False)
            if self._time is not Time.REAL:
                await trio.testing.wait_all_tasks_blocked()
            settled.append(True)

        settled: list[bool] = []
        self._steps.send_nowait(run)
        self._pump(lambda: bool(settled))
        self.has_failed |= isinstance(results[0], outcome.Error)
        return results[0].unwrap()

    def pass_time(self, seconds: float) -> None:
        """Let virtual time pass, and all that follows from it happen."""
        assert self._clock is not None, "the time is real"
        clock = self._clock

        async def jump(_: T) -> None:
            clock.jump(seconds)
            await trio.testing.wait_all_tasks_blocked()

        self(jump)

    def close(self) -> None:
        """Leave the context. Raises what it raises, unless a step has raised it."""
        if self._end is None:
            self._steps.close()
            while self._end is None:
                self._ready.get(timeout=PATIENCE)()
        if not self.has_failed:
            self._end.unwrap()

    def _pump(self, until: Callable[[], Any]) -> None:
        while not until():
            if self._end is not None:
                self.has_failed = True
                self._end.unwrap()
                raise AssertionError("the program ended by itself")
            self._ready.get(timeout=PATIENCE)()
