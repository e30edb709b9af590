"""The handle of a sandbox that lives in another process: `connect`. anyio only.

One connection carries all sessions of one handle, and takes one of the sandbox's 16 client channels. What concerns the
sandbox as a whole goes over control connections of its own, which take none, so that a full sandbox can be stopped.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs

from trio_sandbox.client.connection import Connection, RemoteSession, open_connection
from trio_sandbox.client.ownership import PROCESS_TIMEOUT, Ownership, wait_for_exit
from trio_sandbox.errors import (
    ConnectionLostError,
    NamedSandboxError,
    SandboxDrainingError,
    SandboxError,
    SandboxNotRunningError,
    SandboxPausedError,
    UnsupportedError,
)
from trio_sandbox.home import Home
from trio_sandbox.lifecycle import End, EndReason
from trio_sandbox.logs.places import found_logs
from trio_sandbox.process.order import Ready
from trio_sandbox.process.plain_errors import from_plain
from trio_sandbox.relay.client_messages import (
    Answer,
    MetricsSample,
    Request,
    SessionInfo,
    Welcome,
)
from trio_sandbox.relay.events import Opener
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.state.owner import boot_id
from trio_sandbox.state.places import forget, last_end
from trio_sandbox.state.rows import SandboxRow

CONNECT_TIMEOUT = 10.0
"""Seconds for the relay to answer, beyond the time that the client is willing to wait for a place."""
END_TIMEOUT = 15.0
"""Seconds that the process of a sandbox has to see its machine ended, beyond what the guest was granted."""
POLL = 0.05
"""Seconds between two looks at a sandbox that somebody else ends."""


@attrs.define(eq=False)
class RemoteControl:
    """`client.transport.SandboxControl` over connections."""

    connection: Connection
    welcome: Welcome
    ownership: Ownership | None = None
    home: Home | None = None
    """The data folder, where it is known: not to `connect` by an address alone."""
    ready: Ready | None = None
    """What the process that was started for this handle said of itself."""

    @property
    def owns_lifecycle(self) -> bool:
        return self.ownership is not None and self.ownership.is_held

    @property
    def must_be_ended(self) -> bool:
        return self.ownership is not None and self.ownership.leash is not None

    @property
    def name(self) -> str:
        return self.welcome.name

    @property
    def shell(self) -> str:
        return self.welcome.shell

    @property
    def addresses(self) -> tuple[str, ...]:
        return self.ready.addresses if self.ready is not None else (self.connection.address,)

    @property
    def token(self) -> str | None:
        """Known to whoever started the sandbox."""
        return self.ready.token if self.ready is not None else None

    @property
    def console(self) -> str:
        """Known once the sandbox has ended."""
        return self.connection.ended.console_tail if self.connection.ended is not None else ""

    @property
    def timings(self) -> Mapping[str, float]:
        """Known to whoever started the sandbox."""
        return dict(self.ready.timings) if self.ready is not None else {}

    @property
    def base_env(self) -> dict[str, str]:
        return dict(self.welcome.env)

    @property
    def default_workdir(self) -> str:
        return self.welcome.workdir

    @property
    def default_user(self) -> str:
        return self.welcome.user

    @property
    def default_words(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.welcome.entrypoint, self.welcome.cmd

    def find_logs(self) -> Path:
        """Where the sandbox has said that its logs are, if that is on this machine. Raises UnsupportedError."""
        if self.welcome.host != boot_id():
            raise UnsupportedError(f"reading the logs of sandbox {self.name!r}", "they are on another machine")
        if not self.welcome.logs:
            raise UnsupportedError("reading the logs of a sandbox without a data folder")
        return found_logs(Path(self.welcome.logs).parent, self.name)

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

    async def metrics(self) -> MetricsSample:
        """What the sandbox uses now. Raises why it cannot be told."""
        self.connection.raise_failure()
        sample = (await self._ask(Request("metrics"))).metrics
        assert sample is not None
        return sample

    @asynccontextmanager
    async def fork_source(self) -> AsyncIterator[dict[str, Any]]:
        """What the sandbox can be forked from, which its process holds for the length of the block."""
        if self.welcome.host != boot_id():
            raise UnsupportedError(f"forking sandbox {self.name!r}", "it is on another machine")
        async with asked(self.connection.address, self.name, Request("fork")) as answer:
            told = json.loads(answer.fork)
            if "error" in told:
                raise from_plain(told["error"])
            yield json.loads(Path(told["source"]).read_text(encoding="utf-8"))

    async def touch(self) -> None:
        """Count this moment as activity."""
        await self._ask(Request("touch"))

    async def stop(self, timeout: float) -> None:
        """Stop the sandbox and wait for its end. Harmless when it has ended."""
        await self._end(*stop_request(timeout))

    async def kill(self) -> None:
        """Kill the sandbox and wait for its end. Harmless when it has ended."""
        await self._end(*stop_request(0))

    async def _end(self, request: Request, patience: float) -> None:
        if self.connection.ended is None:
            try:
                with anyio.move_on_after(patience):  # a process that does not answer is killed below, if it is ours
                    await self._ask(request)
            except ConnectionLostError:
                if self.ownership is None:
                    raise  # else its process's end says it all
        if self.ownership is not None:
            await self.ownership.ended()
            await self._last_word()

    async def _last_word(self) -> None:
        """Read what the process said before it ended; then there is nothing to be connected to."""
        with anyio.move_on_after(CONNECT_TIMEOUT):
            try:
                await self.connection.wait_until(lambda: self.connection.ended is not None)
            except SandboxError:
                pass
        await self.connection.aclose()

    async def _ask(self, request: Request) -> Answer:
        return await request_of(self.connection.address, self.name, request)

    async def wait(self) -> End:
        """Wait for the end of the sandbox. When its process went without a word, the store tells; raises
        ConnectionLostError where that is not known either.
        """
        try:
            await self.connection.wait_until(lambda: self.connection.ended is not None)
        except SandboxError as error:
            if self.connection.ended is None:
                return await self._end_in_store(error)
        if self.ownership is not None:
            await self.ownership.ended(forced=False)
        ended = self.connection.ended
        assert ended is not None
        return End(EndReason(ended.reason), ended.exit_code, ended.console_tail)

    async def _end_in_store(self, error: SandboxError) -> End:
        if self.home is None:
            raise error
        with anyio.move_on_after(PROCESS_TIMEOUT):  # a process that was killed counts as alive for a moment more
            while True:
                end = await anyio.to_thread.run_sync(last_end, self.home, self.name)
                if end is not None:
                    if self.ownership is not None:
                        await self.ownership.ended(forced=False)
                    return end
                await anyio.sleep(POLL)
        raise error

    async def release(self) -> None:
        """Close the connection: the sandbox goes on, and so do the sessions that survive their client."""
        if self.ownership is not None:
            self.ownership.set_free()
        await self.connection.aclose()

    async def leave(self) -> None:
        """The end of the handle's block: the owner kills and removes, any other lets go. Can be begun again."""
        if not self.owns_lifecycle or self.ownership is None:
            await self.release()
            return
        self.ownership.discard()
        await self.connection.aclose()
        await self.ownership.ended()
        identity = self.ready.identity if self.ready is not None else None
        home = self.ownership.home
        await anyio.to_thread.run_sync(partial(forget, home, self.name, identity=identity, missing_ok=True))

    async def remove(self) -> None:
        """Forget the sandbox of this name and all that it kept. Raises SandboxStillRunningError."""
        home = self.home or Home.default()
        await anyio.to_thread.run_sync(partial(forget, home, self.name, missing_ok=True))


def stop_request(timeout: float) -> tuple[Request, float]:
    """What asks for a stop with so many seconds to power off, and how long its answer can take."""
    if timeout == 0:
        return Request("kill"), END_TIMEOUT
    return Request("stop", max(1, math.ceil(timeout * 1000))), timeout + END_TIMEOUT


async def request_of(address: str, name: str, request: Request) -> Answer:
    """Ask the sandbox behind `address` something as a whole, on a connection that takes no channel.

    Raises ConnectionLostError, ClientLimitError (four others ask at this moment), SandboxDrainingError,
    SandboxPausedError, SandboxNotRunningError, UnsupportedError.
    """
    async with asked(address, name, request) as answer:
        return answer


@asynccontextmanager
async def asked(address: str, name: str, request: Request) -> AsyncIterator[Answer]:
    """The same, with the connection open for the length of the block."""
    control = await open_connection(address)
    try:
        with anyio.move_on_after(CONNECT_TIMEOUT) as patience:
            await control.join(control=True, wait=0)
        if patience.cancelled_caught:
            raise ConnectionLostError(address)
        answer = await control.request(request, FrameType.ANSWER)
        assert isinstance(answer, Answer)
        if answer.error in REFUSALS:
            raise REFUSALS[answer.error](name)
        if answer.error:
            raise UnsupportedError(f"the request {request.op!r}", answer.message)
        yield answer
    finally:
        with anyio.CancelScope(shield=True):  # closing a socket does not wait
            await control.aclose()


REFUSALS: dict[str, type[NamedSandboxError]] = {
    kind.__name__: kind for kind in (SandboxDrainingError, SandboxPausedError, SandboxNotRunningError)
}


async def wait_until_gone(row: SandboxRow) -> None:
    """Wait until the process that owns a sandbox is gone, or a moment has passed."""
    with anyio.move_on_after(POLL):  # a process may own more than this sandbox
        await (anyio.sleep(POLL) if row.owner is None else wait_for_exit(row.owner.pid))
