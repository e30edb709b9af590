"""How a client ends a session before its time: kill, wait for the guest's word, let go. anyio only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from trio_sandbox.client.transport import ProgramSession
from trio_sandbox.errors import SandboxError

KILL_TIMEOUT = 5.0
"""Seconds that a cancelled or abandoned call waits for the guest's word that what it started is gone."""


async def end_session(session: ProgramSession, receive: Callable[[], Awaitable[object]] | None = None) -> None:
    """Kill what the session started, if it has not ended, and wait up to 5 s for the guest's word that it is gone.

    receive: takes the session's next event, for an owner that keeps what comes; the session's own otherwise. Shielded
    from cancellation. Nobody can use the session afterwards.
    """
    if session.over:
        await anyio.lowlevel.checkpoint()
        return
    session.kill()
    try:
        await wait_for_end(session, receive or session.receive)
    finally:
        session.abandon()


async def wait_for_end(session: ProgramSession, receive: Callable[[], Awaitable[object]]) -> None:
    """Wait up to 5 s for the last event of a session that was killed or detached from. Shielded from cancellation."""
    await anyio.lowlevel.cancel_shielded_checkpoint()
    try:
        with anyio.move_on_after(KILL_TIMEOUT, shield=True):
            while not session.over:
                await receive()
    except SandboxError:  # the machine has gone, or talks nonsense: there is nothing left to wait for
        pass
