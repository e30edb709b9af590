"""The process that works on images for a program: pull, load or save, and it ends. Trio only.

It exists because a program may run on asyncio, and because a process can be ended: the work is undone when the leash is
closed, or when whoever asked for it is gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from trio_sandbox.image.cache.work import load, pull, save
from trio_sandbox.process.creator import wait_until_gone
from trio_sandbox.process.image_order import ImageOrder, ImageWork
from trio_sandbox.process.plain_errors import to_plain
from trio_sandbox.process.reporting import say, say_event
from trio_sandbox.pull_event import PullEvent


def work_on_images(order: ImageOrder, creator: int, report: int, leash: int) -> int:
    """Do what is asked; the exit status. The descriptors are ours."""
    try:
        references = trio.run(_main, order, creator, report, leash)
    except BaseException as error:  # noqa: ASYNC103 - not in Trio any more: the process ends next
        say(report, {"error": to_plain(error)})
        return 1  # noqa: ASYNC104 - the same
    say(report, {"result": references})
    return 0


async def _main(order: ImageOrder, creator: int, report: int, leash: int) -> list[str]:
    references: list[str] = []
    failures: list[Exception] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, creator, leash, nursery.cancel_scope)
        try:
            references = await _work(order, report)
        except Exception as error:
            failures.append(error)  # raised below, where it is not in a group
        nursery.cancel_scope.cancel(reason="the work is done")
    if failures:
        raise failures[0]
    return references


async def _work(order: ImageOrder, report: int) -> list[str]:
    def on_pull(event: PullEvent) -> None:
        say_event(report, event)

    path = Path(order.path)
    match order.work:
        case ImageWork.PULL:
            return await pull(order.references[0], order.home, policy=order.policy, auth=order.auth, on_pull=on_pull)
        case ImageWork.LOAD:
            return await load(path, order.home, name=next(iter(order.references), None), on_pull=on_pull)
        case ImageWork.SAVE:
            return await save(order.references, order.home, path)


async def _watch(creator: int, leash: int, scope: trio.CancelScope) -> None:
    """Cancel the work when whoever asked for it has closed the leash, or is gone."""
    async with trio.open_nursery() as nursery:

        async def either(wait: Callable[[int], Awaitable[None]], number: int) -> None:
            await wait(number)
            nursery.cancel_scope.cancel(reason="nobody wants it any more")

        nursery.start_soon(either, trio.lowlevel.wait_readable, leash)
        nursery.start_soon(either, wait_until_gone, creator)
    scope.cancel(reason="nobody wants it any more")
