"""The handle of a running sandbox. anyio only: it works under Trio and under asyncio, and owns no task."""

from __future__ import annotations

import builtins
import math
import warnings
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, overload

import anyio
import attrs

from trio_sandbox.client.creating import Creating
from trio_sandbox.client.creation import in_thread
from trio_sandbox.client.forks import ForkRequest
from trio_sandbox.client.guest_calls import GuestCalls
from trio_sandbox.client.handle import SandboxHandle
from trio_sandbox.client.logs import LogStream, all_logs, stream_of
from trio_sandbox.client.metrics import MetricsStream, SandboxMetrics
from trio_sandbox.client.pull_session import PullSession
from trio_sandbox.client.shielded import shielded
from trio_sandbox.config import SandboxConfig
from trio_sandbox.home import Home
from trio_sandbox.lifecycle import End
from trio_sandbox.logs.entry import LogEntry
from trio_sandbox.logs.query import Query
from trio_sandbox.relay.client_messages import (
    SessionInfo,
)
from trio_sandbox.state.places import forget, store_of

STOP_TIMEOUT = 10.0
"""Seconds that `stop` gives the guest to write its data and power off."""


@attrs.frozen
class PingResult:
    """latency_ms: from the question to the answer, through the relay to the agent and back."""

    name: str
    latency_ms: float


class Sandbox(GuestCalls):
    """A sandbox that runs, from `create`, `start`, `open_sandbox` or `connect`. Operations raise SandboxNotRunningError
    once it has ended.

    As an async context manager: at the end of the block the owner of a sandbox kills and removes it; any other handle
    lets go of it.
    """

    # -- sandboxes in a process of their own

    @staticmethod
    async def create(
        name: str | SandboxConfig,
        *,
        detached: bool = False,
        replace: bool = False,
        replace_with_timeout: float | None = None,
        home: Home | None = None,
        **options: Any,
    ) -> Sandbox:
        """Create a sandbox and wait until it is ready. It has a process of its own, and works under Trio and asyncio.

        name: the sandbox's, with options as for `open_sandbox`, `image` among them; or a SandboxConfig alone.
        detached: it survives this process; else it stops when this process is gone, however it ended. replace: end and
        remove a sandbox that has the name, with 10 s to power off. replace_with_timeout: the same with so many seconds,
        0 to kill it at once. home: the data folder (`Home.default()`).

        Raises InvalidConfigError (all problems at once), UnsupportedError, SandboxAlreadyExistsError,
        HostNotReadyError, ImageError, StorageError, BootError, PatchFailedError. Cancellation: nothing is left.
        """
        creating = Creating.checked(name, options, detached, replace, replace_with_timeout, home)
        return Sandbox(await creating.run())

    @staticmethod
    def create_with_progress(
        name: str | SandboxConfig,
        *,
        detached: bool = False,
        replace: bool = False,
        replace_with_timeout: float | None = None,
        home: Home | None = None,
        **options: Any,
    ) -> PullSession:
        """`create`, told step by step: `async with` the session, iterate over `progress`, take the `result()`.

        Wrong arguments are refused here, before anything is begun: see `create`.
        """
        return PullSession(Creating.checked(name, options, detached, replace, replace_with_timeout, home).begin)

    @staticmethod
    async def create_detached(name: str | SandboxConfig, **options: Any) -> Sandbox:
        """`create(…, detached=True)`."""
        return await Sandbox.create(name, detached=True, **options)

    @staticmethod
    async def start(name: str, *, detached: bool = False, home: Home | None = None) -> Sandbox:
        """Start a sandbox that does not run: its own configuration and disk, and the layers that it was made of.

        Raises SandboxNotFoundError, SandboxStillRunningError, ImageNotFoundError when its layers are gone, BootError.
        Cancellation: it is stopped again.
        """
        handle = await Sandbox.get(name, home=home)
        return await handle.start(detached=detached)

    @staticmethod
    async def start_detached(name: str, *, home: Home | None = None) -> Sandbox:
        """`start(name, detached=True)`."""
        return await Sandbox.start(name, detached=True, home=home)

    @staticmethod
    async def get(name: str, *, home: Home | None = None) -> SandboxHandle:
        """What is known of a sandbox, running or not. Raises SandboxNotFoundError."""
        home = home or Home.default()
        return SandboxHandle(await in_thread(store_of(home).get, name), home)

    @staticmethod
    async def list(labels: Mapping[str, str] | None = None, *, home: Home | None = None) -> list[SandboxHandle]:
        """All sandboxes, oldest first. labels: only those that have all of these."""
        home = home or Home.default()
        return [SandboxHandle(row, home) for row in await in_thread(store_of(home).all, labels)]

    @staticmethod
    async def remove(name: str, *, home: Home | None = None) -> None:
        """Forget a sandbox that does not run, and all that it kept. Raises SandboxStillRunningError,
        SandboxNotFoundError.
        """
        await in_thread(forget, home or Home.default(), name)

    # -- this one

    @property
    async def name(self) -> str:
        """The sandbox's name: `await sb.name`."""
        return self._control.name

    @property
    async def owns_lifecycle(self) -> bool:
        """Whether this handle owns the sandbox: one that `create` or `start` returned, detached or not, until
        `detach()`. `await sb.owns_lifecycle`.
        """
        return self._control.owns_lifecycle

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where other clients find this sandbox: a path for `listen=`, a `ws://` address for `websocket=`."""
        return self._control.addresses

    @property
    def token(self) -> str | None:
        """The bearer token that WebSocket clients must bring; None without `websocket=`."""
        return self._control.token

    @property
    def console(self) -> str:
        """The newest 32 KiB of what the guest printed on its serial console. Evidence, not truth."""
        return self._control.console

    @property
    def timings(self) -> Mapping[str, float]:
        """When each stage of the start was reached, in seconds since it was asked for, in order.

        assets, image; template (only when one had to be made); disks; spawned (a clone) or hello (a boot); ready.
        """
        return self._control.timings

    async def ping(self) -> PingResult:
        """Ask the agent for an answer. Raises SandboxNotRunningError, SandboxCrashedError. Cancellation: no effect."""
        began = anyio.current_time()
        await self._control.ping()
        return PingResult(self._control.name, (anyio.current_time() - began) * 1000)

    async def sessions(self) -> Sequence[SessionInfo]:
        """The programs that survive their client, oldest first; `attach` and `attach_session` come back to them."""
        return await self._control.sessions()

    async def drain(self, timeout: float | None = None) -> None:
        """Start a graceful drain: open programs and file operations run to their end, new ones are refused with
        SandboxDrainingError whoever asks, and when the last has ended the sandbox stops.

        timeout: seconds for that, after which it stops anyway; None for as long as it takes. Returns at once; `wait`
        tells the end. Raises SandboxNotRunningError. Cancellation: no effect.
        """
        if timeout is not None and timeout < 0:
            raise ValueError("timeout must be non-negative")
        await self._control.drain(timeout)

    async def request_drain(self) -> None:
        """The same as `drain()`."""
        await self._control.drain(None)

    async def pause(self) -> None:
        """Stop the virtual CPUs. Programs stand still and cost no CPU time; exec and fs raise SandboxPausedError.

        Raises SandboxDrainingError, SandboxNotRunningError. Cancellation: it may pause all the same.
        """
        await self._control.pause()

    async def resume(self) -> None:
        """Let a paused sandbox go on where it was, with its clock put right. Harmless when it runs."""
        await self._control.resume()

    @overload
    async def fork(
        self, n: None = None, *, name: str | None = None, detached: bool = False, **changes: Any
    ) -> Sandbox: ...
    @overload
    async def fork(
        self, n: int, *, name: Sequence[str] | None = None, detached: bool = False, **changes: Any
    ) -> builtins.list[Sandbox]: ...
    async def fork(
        self,
        n: int | None = None,
        *,
        name: str | Sequence[str] | None = None,
        detached: bool = False,
        **changes: Any,
    ) -> Sandbox | builtins.list[Sandbox]:
        """A running copy of this sandbox, in a process of its own; with `n` a list of so many, from one moment.

        A child goes on where the parent is: memory, disk and programs are the parent's, and its own from then on. It
        has a name, a machine id, a clock that is right and a reseeded random number generator; programs keep the state
        of their own generators. The parent stands still for some 15 ms. Its sessions stay its own: in a child their
        programs run on with their input closed and their output dropped. A child that nobody detaches ends with this
        process, and with `async with child:`.

        name: of the child, or of each (the parent's with "-fork-" and something random). detached: it survives this
        process. changes: `env`, `workdir`, `user`, `shell`, `entrypoint`, `hostname`, `labels`, `ephemeral`,
        `quiet_logs`, `log_level`, `idle_timeout`, `max_duration`, `boot_timeout`; the rest is the parent's, but that a
        child listens nowhere else and counts its idle time and duration anew.

        Raises InvalidConfigError, UnsupportedError (a disk image as root), SandboxPausedError, SandboxDrainingError,
        SandboxNotRunningError, SandboxAlreadyExistsError, CheckpointError, StorageError, HostNotReadyError, BootError.
        Then, and when it is cancelled, there is no child, and the parent goes on.
        """
        request = ForkRequest.checked(self._control.name, n, name, detached, changes)
        children = [Sandbox(control) for control in await request.run(self._control)]
        return children[0] if n is None else children

    async def metrics(self) -> SandboxMetrics:
        """What the sandbox uses now; also while it is paused. Raises SandboxNotRunningError, SandboxCrashedError.

        Takes 0.1 s where there was no reading in the last 2 s. Cancellation: no effect.
        """
        return SandboxMetrics.of(await self._control.metrics())

    async def metrics_stream(self, interval: float = 1.0) -> MetricsStream:
        """The metrics at an interval in seconds: `async for` or `recv()`. It ends with the sandbox."""
        if not interval > 0 or math.isinf(interval):
            raise ValueError("interval must be positive")
        await anyio.lowlevel.checkpoint()
        return MetricsStream(self.metrics, interval)

    async def logs(
        self,
        tail: int | None = None,
        since_ms: float | None = None,
        until_ms: float | None = None,
        sources: Sequence[str] | None = None,
    ) -> builtins.list[LogEntry]:
        """What the programs have printed, and with "system" what became of the sandbox; whether it runs or not.

        tail: only the last so many, of those that the others let through. since_ms: of this time or later, until_ms:
        before that time; milliseconds since the epoch. sources: names of LogSource, or "all" (all but "system").
        Raises SandboxNotFoundError when it was removed, StorageError, and UnsupportedError where the sandbox is on
        another machine.
        """
        return await all_logs(self._control.find_logs, Query.of(sources, since_ms, until_ms), tail)

    async def log_stream(
        self,
        sources: Sequence[str] | None = None,
        since_ms: float | None = None,
        from_cursor: str | None = None,
        until_ms: float | None = None,
        follow: bool = False,
    ) -> LogStream:
        """The same entries one after the other, in constant memory: `async for` or `recv()`.

        from_cursor: only those after the entry that has this cursor, which excludes since_ms. follow: wait for more,
        until the sandbox has ended. Raises as `logs` does.
        """
        return await stream_of(
            self._control.find_logs, Query.of(sources, since_ms, until_ms, from_cursor), follow=follow
        )

    async def touch(self) -> None:
        """Count this moment as activity, for the idle timeout. `ping` does not."""
        await self._control.touch()

    async def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Let the guest write its data and power off; force it after `timeout` seconds, at once with 0. Harmless when
        it has ended.

        Cancellation: the stop goes on without us.
        """
        if timeout < 0:
            raise ValueError("timeout must be non-negative")
        await self._control.stop(timeout)

    async def stop_and_wait(self) -> tuple[int, bool]:
        """`stop`, then `wait`."""
        await self.stop()
        return await self.wait()

    async def kill(self) -> None:
        """End the machine at once, as a power cut would. Harmless when it has ended."""
        await self._control.kill()

    async def wait(self) -> tuple[int, bool]:
        """Wait for the machine's end: (exit code, success); 0 after a power-off, -9 when killed. Cancellation: no
        effect.
        """
        end = await self._control.wait()
        return end.exit_code, end.success

    async def wait_until_stopped(self) -> tuple[int, bool]:
        """The same as `wait`."""
        return await self.wait()

    async def end(self) -> End:
        """Wait for the machine's end, and tell why it came: `reason`, `exit_code` and, as evidence, `console_tail`."""
        return await self._control.wait()

    async def detach(self) -> None:
        """Let go of the sandbox, which goes on; `Sandbox.get` finds it again. This handle is of no more use.

        Raises UnsupportedError for the sandbox of a block of `open_sandbox`.
        """
        await self._control.release()

    async def remove_persisted(self) -> None:
        """Forget the sandbox, which has ended, and all that it kept. Raises SandboxStillRunningError."""
        await self._control.remove()

    async def __aenter__(self) -> Sandbox:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await shielded(self._control.leave)  # noqa: ASYNC102 - it is, and bounded by PROCESS_TIMEOUT

    def __del__(self) -> None:
        if self._control.must_be_ended:
            warnings.warn(
                f"the handle that owns sandbox {self._control.name!r} was dropped: use `async with` or detach()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
