"""`map_sandboxes`: a function over many items, each in a fresh sandbox, so many at once. anyio only."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import anyio.abc

from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.home import Home
from trio_sandbox.patterns.failures import raise_all
from trio_sandbox.patterns.fresh import Make, maker

T = TypeVar("T")
R = TypeVar("R")


async def map_sandboxes(
    function: Callable[[Sandbox, T], Awaitable[R]],
    items: Iterable[T],
    *,
    limit: int,
    name: str = "map",
    make: Make | None = None,
    home: Home | None = None,
    **options: Any,
) -> list[R]:
    """`[await function(sandbox, item) for item in items]`, a fresh sandbox for each item, at most `limit` at once.

    The results are in the order of the items, which are taken one by one as sandboxes become free. name: what the
    sandboxes' names begin with. options: those of `Sandbox.create`, `image` among them. make: what makes a sandbox
    instead, `make(name)` is an async context manager; home and options are refused then.

    Raises InvalidConfigError before anything is made. The first failure, of `function`, of a sandbox or of `items`,
    cancels the rest and leaves bare; failures that come of the ending leave with it, in an ExceptionGroup.
    Cancellation, as a failure: no sandbox is left.
    """
    results: dict[int, R] = {}
    async with map_sandboxes_as_completed(
        function, items, limit=limit, name=name, make=make, home=home, **options
    ) as completed:
        async for index, result in completed:
            results[index] = result
    return [results[index] for index in range(len(results))]


@asynccontextmanager
async def map_sandboxes_as_completed(
    function: Callable[[Sandbox, T], Awaitable[R]],
    items: Iterable[T],
    *,
    limit: int,
    name: str = "map",
    make: Make | None = None,
    home: Home | None = None,
    **options: Any,
) -> AsyncIterator[AsyncIterator[tuple[int, R]]]:
    """The same as a block whose value gives `(index of the item, result)` as they come, while the block lasts.

    A result that nobody takes holds up the sandbox's successor, not its end. Leaving the block early ends the rest.
    Arguments and failures as for `map_sandboxes`; a failure of the block itself is one of them.
    """
    problem = f"limit: must be a positive int, not {limit!r}" if type(limit) is not int or limit < 1 else ""
    prefix = f"{name}-{os.urandom(4).hex()}"
    making = maker(make, f"{prefix}-0", home, options, [problem] if problem else [])
    send, receive = anyio.create_memory_object_stream[tuple[int, R]](0)
    failures: list[Exception] = []
    async with anyio.create_task_group() as group:

        async def work(numbered: Iterable[tuple[int, T]], results: anyio.abc.ObjectSendStream[tuple[int, R]]) -> None:
            async with results:
                try:
                    for index, item in numbered:
                        async with making(f"{prefix}-{index}") as sandbox:
                            result = await function(sandbox, item)
                        await results.send((index, result))
                except anyio.BrokenResourceError:  # nobody takes results any more: the block has been left
                    if not group.cancel_scope.cancel_called:
                        raise
                except Exception as error:
                    failures.append(error)
                    group.cancel_scope.cancel()

        numbered = enumerate(items)
        async with send, receive:
            for _ in range(limit):
                group.start_soon(work, numbered, send.clone())
            await send.aclose()
            try:
                yield receive
            except Exception as error:
                failures.append(error)
            group.cancel_scope.cancel()
    raise_all("failures of map_sandboxes", failures)
