"""What a sandbox uses, as its handle tells it. anyio only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import attrs

from trio_sandbox.errors import SandboxCrashedError, SandboxNotRunningError
from trio_sandbox.relay.client_messages import (
    MetricsSample,
)


@attrs.frozen
class SandboxMetrics:
    """Usage at one moment.

    cpu_percent: processor use, 100 for one busy vCPU. memory_bytes: in use in the guest, out of memory_limit_bytes.
    disk_read_bytes, disk_write_bytes, net_rx_bytes, net_tx_bytes: since the boot (no network yet: 0). timestamp_ms:
    when, since the epoch. uptime_ms: since the sandbox was started.
    """

    cpu_percent: float
    memory_bytes: int
    memory_limit_bytes: int
    disk_read_bytes: int
    disk_write_bytes: int
    net_rx_bytes: int
    net_tx_bytes: int
    timestamp_ms: float
    uptime_ms: int

    @classmethod
    def of(cls, sample: MetricsSample) -> SandboxMetrics:
        """The same as the public type."""
        return cls(**attrs.asdict(sample))


class MetricsStream:
    """Metrics at an interval: an async iterator, and `recv()`. It owns no task: time passes while nobody asks, and what
    nobody asked for is not measured.
    """

    def __init__(self, measure: Callable[[], Awaitable[SandboxMetrics]], interval: float) -> None:
        self._measure = measure
        self._interval = interval
        self._next = anyio.current_time()

    async def recv(self) -> SandboxMetrics | None:
        """The next metrics, at most one each interval; None when the sandbox has ended. Cancellation: no effect.

        Raises SandboxCrashedError when it crashed.
        """
        await anyio.sleep_until(self._next)
        try:
            found = await self._measure()
        except SandboxCrashedError:
            raise
        except SandboxNotRunningError:
            return None
        self._next = max(self._next + self._interval, anyio.current_time())
        return found

    def __aiter__(self) -> MetricsStream:
        return self

    async def __anext__(self) -> SandboxMetrics:
        found = await self.recv()
        if found is None:
            raise StopAsyncIteration
        return found
