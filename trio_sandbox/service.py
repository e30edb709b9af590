"""`service()`: a task that runs beneath a block, outlives the block's own clean-up, and ends with it.

Plain nesting of nurseries does not order a shutdown: a cancel from outside reaches every depth in the same tick, so
the VMM would be killed while the relay above it still says goodbye. A service is shielded from the moment it reports
`started()`, and only the end of its block cancels it. So the order of death is the order of indentation, whatever
began it.

What leaves the block: the body's exception bare, or the service's bare, or both in one group. Never a group of one.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from trio_sandbox.errors import SandboxError

GROUP_MESSAGE = "the block and what it stands on failed together"


class ServiceEnded(SandboxError):
    """A service returned while its block still needed it: a bug in it, or a peer that closed without a reason."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"{name} ended although its block had not")


@attrs.define(eq=False)
class _Run:
    """One service task: its scope, what it failed with, and when it ended."""

    name: str
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    body: trio.CancelScope = attrs.Factory(trio.CancelScope)
    ended: trio.Event = attrs.Factory(trio.Event)
    has_started: bool = False
    block_ended: bool = False
    error: BaseException | None = None

    async def run(
        self, function: Callable[..., Awaitable[object]], args: tuple[Any, ...], *, task_status: trio.TaskStatus[Any]
    ) -> None:
        try:
            with self.scope:
                await function(*args, task_status=_Starting(self, task_status))
                if not self.block_ended:
                    self.error = ServiceEnded(self.name)
        except trio.Cancelled:
            raise
        except BaseException as error:
            if not self.has_started:
                raise
            self.error = error
        finally:
            self.body.cancel(reason=f"{self.name} ended")
            self.ended.set()


@attrs.define(eq=False)
class _Starting:
    """Turns the shield on in the same step that reports the start, so that no cancel fits between.

    A start that was cancelled already is none: Trio ignores such a report and waits for the task to end, which a shield
    would prevent.
    """

    run: _Run
    task_status: trio.TaskStatus[Any]

    def started(self, value: Any = None) -> None:
        self.task_status.started(value)
        if trio.current_effective_deadline() > -math.inf:
            self.run.has_started = True
            self.run.scope.shield = True


@asynccontextmanager
async def service(
    function: Callable[..., Awaitable[object]], *args: Any, name: str | None = None
) -> AsyncIterator[Any]:
    """Run `function(*args, task_status=…)` beneath the block; the value is what it passed to `started()`.

    An error before `started()` is raised bare on entering. Afterwards: a service that fails or returns cancels the
    body, and its error (or ServiceEnded) is raised when the body has left. Cancellation: while starting, the service
    is cancelled too; later, the body is, and the service only when the body has left. The service must bound its own
    clean-up (`move_on_after(…, shield=True)`).
    """
    run = _Run(name or str(getattr(function, "__name__", "service")))
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            value = await nursery.start(run.run, function, args, name=run.name)
        except BaseException as error:  # noqa: ASYNC103 - raised below, outside the nursery, so that it stays bare
            failure = error
        else:
            try:
                with run.body:
                    yield value
            except BaseException as error:  # noqa: ASYNC103 - raised below, outside the nursery
                failure = error
            run.block_ended = True
            run.scope.cancel(reason="the block that it serves has ended")
            with trio.CancelScope(shield=True):  # bounded by the service's own clean-up
                await run.ended.wait()
    raise_together(failure, run.error)


def raise_together(body: BaseException | None, background: BaseException | None) -> None:
    """Raise what there is: nothing, the only one bare, or both in one flat group.

    A body error that was raised *from* the background's (its `__cause__`), or a group of nothing but such, is the same
    news twice:
    only the background's is raised.
    """
    if background is None:
        if body is not None:
            raise body
        return
    if body is None or _is_consequence(body, background):
        raise background
    raise BaseExceptionGroup(GROUP_MESSAGE, [*_leaves(body), *_leaves(background)])


def is_cancellation(error: BaseException | None) -> bool:
    """Whether an exception is nothing but a cancellation, of one task or of several."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def _is_consequence(error: BaseException, cause: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_consequence(member, cause) for member in error.exceptions)
    return error is cause or error.__cause__ is cause


def _leaves(error: BaseException) -> tuple[BaseException, ...]:
    """The members of a group that an inner service made; any other exception is one leaf."""
    if isinstance(error, BaseExceptionGroup) and error.message == GROUP_MESSAGE:
        return error.exceptions
    return (error,)


async def wait_any(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when the first of `waits` returns; the others are cancelled. They must not raise."""
    async with trio.open_nursery() as nursery:

        async def wait_one(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            nursery.cancel_scope.cancel(reason="another one came first")

        for wait in waits:
            nursery.start_soon(wait_one, wait)
