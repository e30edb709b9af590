"""One life of a supervised sandbox: until its work, or the sandbox, ends. anyio only.

Runs in: the caller's task; the work and a watch over the sandbox are two more. Cancellation: the sandbox drains first,
if it is to; then the work is cancelled. The sandbox is the caller's to end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import attrs

from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.errors import SandboxCrashedError, SandboxError, SandboxNotRunningError
from trio_sandbox.lifecycle import End, State

Work = Callable[[Sandbox], Awaitable[object]]

PATIENCE = 10.0
"""Seconds beyond a drain's own for the sandbox to stop."""
MOMENT = 1.0
"""Seconds in which one that knows of the sandbox's end lets the other know too."""


@attrs.define(eq=False)
class Life:
    """Of a sandbox that runs."""

    sandbox: Sandbox
    work: Work
    drain_timeout: float
    _results: list[object] = attrs.Factory(list)
    _failures: list[Exception] = attrs.Factory(list)
    _ends: list[End] = attrs.Factory(list)
    _over: anyio.Event = attrs.Factory(anyio.Event)
    _watched: anyio.Event = attrs.Factory(anyio.Event)
    _scope: anyio.CancelScope = attrs.Factory(anyio.CancelScope)

    async def live(self) -> object:
        """What the work returned; None when the sandbox was stopped, drained or killed meanwhile, whatever the work
        made of that. Raises what the work raised, SandboxCrashedError when the sandbox crashed.
        """
        self._scope.shield = self.drain_timeout > 0
        async with anyio.create_task_group() as group:
            group.start_soon(self._do_work)
            group.start_soon(self._watch)
            try:
                await self._over.wait()
                if self._failures and isinstance(self._failures[0], SandboxNotRunningError):
                    with anyio.move_on_after(MOMENT):  # why, its end tells
                        await self._watched.wait()
            except anyio.get_cancelled_exc_class():
                if self.drain_timeout:
                    await self._drain()  # noqa: ASYNC102 - shielded and timed within
                raise
            finally:
                self._scope.cancel()
            group.cancel_scope.cancel()
        return await self._outcome()

    async def _do_work(self) -> None:
        with self._scope:
            try:
                self._results.append(await self.work(self.sandbox))
            except Exception as error:
                self._failures.append(error)
        self._over.set()

    async def _watch(self) -> None:
        with suppress(SandboxError):  # nobody knows how it ended: then what the work meets tells
            self._ends.append(await self.sandbox.end())
        self._watched.set()
        with anyio.move_on_after(MOMENT):
            await self._over.wait()
        self._scope.cancel()

    async def _drain(self) -> None:
        with anyio.move_on_after(self.drain_timeout + PATIENCE, shield=True):
            with suppress(SandboxError):  # it has ended already
                await self.sandbox.drain(self.drain_timeout)
                await self.sandbox.end()
            with anyio.move_on_after(MOMENT):
                await self._over.wait()

    async def _outcome(self) -> object:
        if self._results:
            return self._results[0]
        end = self._ends[0] if self._ends else None
        if end is not None and end.state is State.STOPPED:
            return None
        if self._failures:
            raise self._failures[0]
        name = await self.sandbox.name
        raise SandboxNotRunningError(name) if end is None else SandboxCrashedError(name, end.reason, end.console_tail)
