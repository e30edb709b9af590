"""Cancelling at the n-th place where a task waits, so that every one of them is tried; on Trio and on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import anyio
import sniffio


class _Stepped:
    """Awaits `awaitable`, and calls `on_wait(n)` when it waits for the n-th time."""

    def __init__(self, awaitable: Awaitable[Any], on_wait: Callable[[int], None]) -> None:
        self.awaitable, self.on_wait = awaitable, on_wait

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self.awaitable.__await__()
        waits = 0
        step: Callable[[], Any] = lambda: next(inner)  # noqa: E731 - replaced below
        while True:
            try:
                trap = step()
            except StopIteration as done:
                return done.value
            self.on_wait(waits)
            waits += 1
            try:
                value = yield trap
            except BaseException as error:  # noqa: ASYNC103 - thrown into what we await
                step = lambda error=error: inner.throw(error)  # type: ignore[misc]  # noqa: E731
            else:
                step = lambda value=value: inner.send(value)  # type: ignore[misc]  # noqa: E731


async def cancelled_at(number: int, function: Callable[[], Awaitable[Any]]) -> bool:
    """Run `function()`, cancelling its scope at its `number`-th wait; whether it was cancelled before it was done."""
    with anyio.CancelScope() as scope:

        def on_wait(waits: int) -> None:
            if waits == number:
                scope.cancel()

        await _Stepped(function(), on_wait)
    return scope.cancelled_caught


async def task_cancelled_at(number: int, function: Callable[[], Awaitable[Any]]) -> bool:
    """The same with `Task.cancel` of asyncio, which no anyio shield keeps out."""
    assert sniffio.current_async_library() == "asyncio"

    async def run() -> None:
        await _Stepped(function(), on_wait)

    def on_wait(waits: int) -> None:
        if waits == number:
            asyncio.get_running_loop().call_soon(task.cancel)

    task = asyncio.create_task(run())
    try:
        await task
    except asyncio.CancelledError:  # noqa: ASYNC103 - of the task that was cancelled here, not of ours
        return True  # noqa: ASYNC104
    return False
