"""Creating a sandbox while telling how far its image is. anyio only; owns no task: it goes on while somebody awaits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING

from trio_sandbox.client.creation import Creation
from trio_sandbox.client.shielded import shielded
from trio_sandbox.pull_event import PullEvent

if TYPE_CHECKING:
    from trio_sandbox.client.sandbox import Sandbox


class PullSession:
    """From `Sandbox.create_with_progress`: an async context manager, with `progress` and, once, `result()`.

    Entering it begins the creation; leaving it without having taken the result undoes it, and waits until it has, for
    at most 15 s.
    """

    def __init__(self, begin: Callable[[], Awaitable[Creation]]) -> None:
        self._begin = begin
        self._creation: Creation | None = None
        self._is_taken = self._is_over = False
        self.progress = PullProgress(self)

    async def result(self) -> Sandbox:
        """Wait until the sandbox is ready, and own it. The second call raises RuntimeError.

        Raises what `Sandbox.create` raises. Cancellation: nothing is left when the session's block has been left.
        """
        from trio_sandbox.client.sandbox import Sandbox

        creation = self.running()
        if self._is_taken:
            raise RuntimeError("the result of this session was taken already")
        self._is_taken = True
        return Sandbox(await creation.taken_over())

    def running(self) -> Creation:
        """What goes on within the block. Raises RuntimeError outside it."""
        if self._creation is None or self._is_over:
            raise RuntimeError("a PullSession works within its `async with` block")
        return self._creation

    async def __aenter__(self) -> PullSession:
        if self._creation is not None:
            raise RuntimeError("a PullSession is used once")
        self._creation = await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        creation, self._is_over = self.running(), True
        await shielded(creation.abort)  # noqa: ASYNC102 - it is


class PullProgress:
    """What happens to the image, as it happens: an async iterator that ends when the sandbox is ready.

    Of events that nobody reads, progress within a layer is dropped when 512 KiB of them wait, and the others have room.
    Raises what `Sandbox.create` raises.
    """

    def __init__(self, session: PullSession) -> None:
        self._session = session

    def __aiter__(self) -> PullProgress:
        return self

    async def __anext__(self) -> PullEvent:
        event = await self._session.running().next_event()
        if event is None:
            raise StopAsyncIteration
        return event
