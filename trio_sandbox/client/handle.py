"""A sandbox by its name, running or not: what is known of it, and what can be done to it. anyio only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs

from trio_sandbox.client.creation import connect_to, in_thread, make_sandbox
from trio_sandbox.client.logs import LogStream, all_logs, stream_of
from trio_sandbox.client.metrics import SandboxMetrics
from trio_sandbox.client.ownership import PROCESS_TIMEOUT
from trio_sandbox.client.remote import request_of, stop_request, wait_until_gone
from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import (
    ConnectionLostError,
    SandboxNotFoundError,
    SandboxNotRunningError,
    SandboxStillRunningError,
    UnsupportedError,
)
from trio_sandbox.home import Home
from trio_sandbox.lifecycle import State
from trio_sandbox.logs.entry import LogEntry
from trio_sandbox.logs.places import found_logs
from trio_sandbox.logs.query import Query
from trio_sandbox.relay.client_messages import (
    Answer,
    Request,
)
from trio_sandbox.state.places import folder_of, forget, kill_process, store_of
from trio_sandbox.state.rows import RunRow, SandboxRow, Tenure

if TYPE_CHECKING:
    from trio_sandbox.client.sandbox import Sandbox

CONNECT_TIMEOUT = 10.0
STOP_TIMEOUT = 10.0
"""Seconds that the guest gets to write its data and power off."""
NS_PER_MS = 1e6


@attrs.frozen
class SandboxInfo:
    """A summary. Times in milliseconds since the epoch."""

    name: str
    status: str
    config_json: str
    created_at: float | None
    updated_at: float | None


@attrs.define(eq=False)
class SandboxHandle:
    """A sandbox as it was when the handle was got; `refresh` looks again.

    Got from `Sandbox.get` and `Sandbox.list`. It holds no connection; `connect` and `start` give a `Sandbox`.
    """

    _row: SandboxRow
    _home: Home

    # -- what is known

    @property
    def name(self) -> str:
        return self._row.name

    @property
    def status(self) -> str:
        """creating, running, paused, draining, stopped or crashed."""
        return self._row.status

    @property
    def config_json(self) -> str:
        """The configuration as JSON, for `SandboxConfig.from_json`."""
        return self._row.config

    @property
    def config(self) -> SandboxConfig:
        """The configuration."""
        return SandboxConfig.from_json(self._row.config)

    @property
    def created_at(self) -> float | None:
        """Milliseconds since the epoch."""
        return self._row.created_ns / NS_PER_MS

    @property
    def updated_at(self) -> float | None:
        """Milliseconds since the epoch."""
        return self._row.updated_ns / NS_PER_MS

    @property
    def labels(self) -> Mapping[str, str]:
        return dict(self._row.labels)

    @property
    def info(self) -> SandboxInfo:
        """The same as one value."""
        return SandboxInfo(self.name, self.status, self.config_json, self.created_at, self.updated_at)

    async def refresh(self) -> SandboxHandle:
        """Look again; returns itself. Raises SandboxNotFoundError."""
        self._row = await in_thread(store_of(self._home).get, self.name)
        return self

    async def runs(self) -> list[RunRow]:
        """How each of its runs went, oldest first: times, reason, exit code, the end of the console."""
        return list(await in_thread(store_of(self._home).runs, self.name))

    # -- what can be done

    async def connect(self, timeout: float = CONNECT_TIMEOUT) -> Sandbox:
        """A handle of the running sandbox that does not own it. Allowed while it drains or is paused.

        timeout: seconds for it to answer (10). Raises SandboxNotRunningError, ConnectionLostError, ClientLimitError.
        """
        from trio_sandbox.client.sandbox import Sandbox

        await self._require_running()
        return Sandbox(await connect_to(self._row, self._home, timeout))

    async def connect_with_timeout(self, timeout: float) -> Sandbox:
        """`connect(timeout)`."""
        return await self.connect(timeout)

    async def start(self, *, detached: bool = False) -> Sandbox:
        """Start it again: its own configuration, disk and layers. Raises SandboxStillRunningError, BootError, …"""
        from trio_sandbox.client.sandbox import Sandbox

        await self.refresh()
        if self._row.is_live:
            raise SandboxStillRunningError(self.name)
        control = await make_sandbox(self.config, self._home, Tenure.KNOWN, detached=detached)
        await self.refresh()
        return Sandbox(control)

    async def start_detached(self) -> Sandbox:
        """`start(detached=True)`."""
        return await self.start(detached=True)

    async def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Let the guest write its data and power off; force it after `timeout` seconds, at once with 0. Harmless when
        it does not run.
        """
        if timeout < 0:
            raise ValueError("timeout must be non-negative")
        await self._end(timeout)

    async def stop_with_timeout(self, timeout: float) -> None:
        """`stop(timeout)`."""
        await self.stop(timeout)

    async def kill(self) -> None:
        """End the machine at once, as a power cut would. Harmless when it does not run."""
        await self._end(0)

    async def drain(self, timeout: float | None = None) -> None:
        """Start a graceful drain: see `Sandbox.drain`."""
        await self._ask(Request("drain", 0 if timeout is None else max(1, math.ceil(timeout * 1000))))

    async def pause(self) -> None:
        """See `Sandbox.pause`."""
        await self._ask(Request("pause"))

    async def resume(self) -> None:
        """See `Sandbox.resume`."""
        await self._ask(Request("resume"))

    async def metrics(self) -> SandboxMetrics:
        """What it uses now. Raises SandboxNotRunningError."""
        sample = (await self._ask(Request("metrics"))).metrics
        assert sample is not None
        return SandboxMetrics.of(sample)

    async def logs(
        self,
        tail: int | None = None,
        since_ms: float | None = None,
        until_ms: float | None = None,
        sources: Sequence[str] | None = None,
    ) -> list[LogEntry]:
        """See `Sandbox.logs`."""
        return await all_logs(self._find_logs, Query.of(sources, since_ms, until_ms), tail)

    async def log_stream(
        self,
        sources: Sequence[str] | None = None,
        since_ms: float | None = None,
        from_cursor: str | None = None,
        until_ms: float | None = None,
        follow: bool = False,
    ) -> LogStream:
        """See `Sandbox.log_stream`."""
        return await stream_of(self._find_logs, Query.of(sources, since_ms, until_ms, from_cursor), follow=follow)

    def _find_logs(self) -> Path:
        return found_logs(folder_of(self._home, self.name), self.name)

    async def remove(self) -> None:
        """Forget it and all that it kept. Raises SandboxStillRunningError, SandboxNotFoundError."""
        await in_thread(forget, self._home, self.name)

    async def wait_until_stopped(self) -> SandboxHandle:
        """Wait until it does not run, without asking it to; returns itself, refreshed. An ephemeral one is stopped and
        forgotten then. Cancellation: no effect.
        """
        try:
            while (await self.refresh())._row.is_live:
                await wait_until_gone(self._row)
        except SandboxNotFoundError:
            self._row = attrs.evolve(self._row, state=State.STOPPED, owner=None, socket="")
        return self

    async def _end(self, timeout: float) -> None:
        request, patience = stop_request(timeout)
        try:
            with anyio.move_on_after(patience):
                await self._ask(request)
        except (SandboxNotRunningError, ConnectionLostError):
            pass  # it has ended, or is about to have
        with anyio.move_on_after(PROCESS_TIMEOUT):
            await self.wait_until_stopped()
            return
        await in_thread(kill_process, self._row, self._home)
        await self.wait_until_stopped()

    async def _ask(self, request: Request) -> Answer:
        await self._require_running()
        return await request_of(self._row.socket, self.name, request)

    async def _require_running(self) -> None:
        try:
            await self.refresh()
        except SandboxNotFoundError:
            raise SandboxNotRunningError(self.name) from None
        if not self._row.is_live:
            raise SandboxNotRunningError(self.name)
        if not self._row.socket:
            raise UnsupportedError(
                f"reaching sandbox {self.name!r}, which belongs to a block of process "
                f"{self._row.owner.pid if self._row.owner else 0}",
                "open it with listen=",
            )
