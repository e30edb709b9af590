"""The handle of a sandbox that lives in another process: `connect`. anyio only.

One connection carries all sessions of one handle, and takes one of the sandbox's 16 client channels. What concerns the
sandbox as a whole goes over control connections of its own, which take none, so that a full sandbox can be stopped.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import anyio
import attrs

from trio_sandbox.client.connection import Connection, RemoteSession, open_connection
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.errors import (
    ConnectionLostError,
    SandboxDrainingError,
    SandboxError,
    SandboxNotRunningError,
    SandboxPausedError,
    UnsupportedError,
)
from trio_sandbox.lifecycle import End, EndReason
from trio_sandbox.relay.events import Opener
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import Answer, Request, SessionInfo, Welcome

CONNECT_TIMEOUT = 10.0
"""Seconds for the relay to answer, beyond the time that the client is willing to wait for a place."""


@attrs.define(eq=False)
class RemoteControl:
    """`client.transport.SandboxControl` over connections."""

    connection: Connection
    welcome: Welcome

    @property
    def name(self) -> str:
        return self.welcome.name

    @property
    def shell(self) -> str:
        return self.welcome.shell

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.connection.address,)

    @property
    def token(self) -> str | None:
        return None

    @property
    def console(self) -> str:
        """Known once the sandbox has ended."""
        return self.connection.ended.console_tail if self.connection.ended is not None else ""

    @property
    def timings(self) -> Mapping[str, float]:
        """Known to the process that started the sandbox."""
        return {}

    @property
    def base_env(self) -> dict[str, str]:
        return dict(self.welcome.env)

    @property
    def default_workdir(self) -> str:
        return self.welcome.workdir

    @property
    def default_user(self) -> str:
        return self.welcome.user

    def open_session(self, request: Opener) -> RemoteSession:
        """Begin a session. Raises why that cannot be; a request that the relay refuses is FAILED."""
        return self.connection.open_session(request)

    async def ping(self) -> None:
        """Return when the agent has answered."""
        await self.connection.ping()

    async def sessions(self) -> tuple[SessionInfo, ...]:
        """The sessions that survive their clients."""
        return (await self._ask(Request("sessions"))).sessions

    async def drain(self, timeout: float | None) -> None:
        """Have the sandbox drain."""
        await self._ask(Request("drain", 0 if timeout is None else max(1, math.ceil(timeout * 1000))))

    async def pause(self) -> None:
        """Return when the machine stands still."""
        await self._ask(Request("pause"))

    async def resume(self) -> None:
        """Return when the machine runs."""
        await self._ask(Request("resume"))

    async def touch(self) -> None:
        """Count this moment as activity."""
        await self._ask(Request("touch"))

    async def stop(self, timeout: float) -> None:
        """Stop the sandbox and wait for its end. Harmless when it has ended."""
        await self._end(Request("stop", max(1, math.ceil(timeout * 1000))) if timeout else Request("kill"))

    async def kill(self) -> None:
        """Kill the sandbox and wait for its end. Harmless when it has ended."""
        await self._end(Request("kill"))

    async def _end(self, request: Request) -> None:
        if self.connection.ended is None:
            await self._ask(request)

    async def _ask(self, request: Request) -> Answer:
        control = await open_connection(self.connection.address)
        try:
            with anyio.fail_after(CONNECT_TIMEOUT):
                await control.join(control=True, wait=0)
            answer = await control.request(request, FrameType.ANSWER)
        finally:
            with anyio.CancelScope(shield=True):  # closing a socket does not wait
                await control.aclose()
        assert isinstance(answer, Answer)
        if answer.error:
            raise self._error(request, answer)
        return answer

    def _error(self, request: Request, answer: Answer) -> SandboxError:
        known = {kind.__name__: kind for kind in (SandboxDrainingError, SandboxPausedError, SandboxNotRunningError)}
        if answer.error in known:
            return known[answer.error](self.name)
        return UnsupportedError(f"the request {request.op!r}", answer.message)

    async def wait(self) -> End:
        """Wait for the end of the sandbox. Raises ConnectionLostError when nobody is left to tell of it."""
        try:
            await self.connection.wait_until(lambda: self.connection.ended is not None)
        except SandboxError:
            if self.connection.ended is None:
                raise
        ended = self.connection.ended
        assert ended is not None
        return End(EndReason(ended.reason), ended.exit_code, ended.console_tail)

    async def release(self) -> None:
        """Close the connection: the sandbox goes on, and so do the sessions that survive their client."""
        await self.connection.aclose()


async def connect(address: str | os.PathLike[str], *, timeout: float = CONNECT_TIMEOUT, wait: float = 0.0) -> Sandbox:
    """A handle of a sandbox that another process of this user runs with `listen=address`.

    `async with await connect("worker.sock") as sb:` lets go of it at the end of the block: what was started there is
    killed, apart from programs that survive their client; the sandbox itself goes on.

    timeout: seconds for the relay to answer (10). wait: seconds to wait for a place when all 16 channels are taken (0:
    not at all). Raises ClientLimitError (limit and usage), ConnectionLostError when nobody listens or answers.
    Cancellation: nothing is left.
    """
    if timeout <= 0 or wait < 0:
        raise ValueError("timeout must be positive, and wait non-negative")
    connection: Connection | None = None
    try:
        with anyio.move_on_after(timeout + wait):
            connection = await open_connection(address)
            return Sandbox(RemoteControl(connection, await connection.join(control=False, wait=wait)))
    except BaseException:
        if connection is not None:
            with anyio.CancelScope(shield=True):  # closing a socket does not wait
                await connection.aclose()
        raise
    if connection is not None:
        await connection.aclose()
    raise ConnectionLostError(os.fspath(address))
