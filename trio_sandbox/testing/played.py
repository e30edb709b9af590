"""A session that is played: how it is reached, and the few things that are done to it with a patience."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from trio_sandbox.client.program import ExecHandle, ExecSink
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.errors import LocalProtocolError, SandboxError
from trio_sandbox.service import service
from trio_sandbox.testing.model import SessionModel


@attrs.define(eq=False)
class PlayedSession:
    """A session, what is known of it, and how it is reached. handle: None while nobody is attached."""

    model: SessionModel
    handle: ExecHandle | None
    client: Sandbox
    input: trio.MemorySendChannel[bytes | None] | None = None
    id: int = 0
    unsent: int = 0
    """Writes that wait for the program to read."""
    was_attached: bool = False
    """Its handle attached to it, and cannot know whether it has a terminal."""


async def resize(handle: ExecHandle, rows: int, cols: int, *, must_refuse: bool) -> None:
    """A program without a terminal has no size."""
    try:
        await handle.resize(rows, cols)
    except LocalProtocolError:
        return
    assert not must_refuse, "a program without a terminal took a size"


async def feed(sink: ExecSink, queue: trio.MemoryReceiveChannel[bytes | None], session: PlayedSession) -> None:
    """Write what comes, in order; None is the end."""
    async for data in queue:
        try:
            if data is None:
                await sink.close()
                return
            await sink.write(data)
            session.unsent -= 1
        except (BrokenPipeError, SandboxError, trio.ClosedResourceError):
            return


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """No deadline, which would travel to the guest: a cancellation when the time has come, and AssertionError."""

    async def expire(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(seconds)
        scope.cancel(reason="nothing has happened")
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        async with service(expire, name="patience"):
            yield
    assert not scope.cancelled_caught, f"nothing happened for {seconds} s"
