"""A Trio program that moves only while a synchronous test waits for one of its steps, on a clock that the test moves.

For state machines: rules are plain functions, and what they start must live on between them. Trio's guest mode does
it: the test is the host loop.
"""

from __future__ import annotations

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


class Steps(Generic[T]):
    """Runs `make()` as a context around all steps; its value is the first argument of each."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self.clock = trio.testing.MockClock()
        self._ready: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._end: outcome.Outcome[None] | None = None
        self.has_failed = False
        self._steps, self._receive = trio.open_memory_channel[Callable[[T], Awaitable[None]]](1)
        trio.lowlevel.start_guest_run(
            self._main,
            make,
            run_sync_soon_threadsafe=self._ready.put,
            done_callback=self._done,
            clock=self.clock,
            host_uses_signal_set_wakeup_fd=True,
        )

    def _done(self, end: outcome.Outcome[None]) -> None:
        self._end = end

    async def _main(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        async with make() as value:
            try:
                async for step in self._receive:
                    await step(value)
            finally:
                self.clock.autojump_threshold = 0  # nobody moves it any more

    def __call__(self, step: Callable[[T], Awaitable[R]]) -> R:
        """Run one step and all that follows from it without time passing. Raises what it or the program raises."""
        results: list[outcome.Outcome[R]] = []

        async def run(value: T) -> None:
            results.append(await outcome.acapture(step, value))
            await trio.testing.wait_all_tasks_blocked()
            settled.append(True)

        settled: list[bool] = []
        self._steps.send_nowait(run)
        self._pump(lambda: bool(settled))
        self.has_failed |= isinstance(results[0], outcome.Error)
        return results[0].unwrap()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and all that follows from it happen."""

        async def jump(_: T) -> None:
            self.clock.jump(seconds)
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
