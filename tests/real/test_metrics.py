"""What a real machine uses, under loads that are known."""

from __future__ import annotations

import anyio
import pytest

from trio_sandbox import SandboxNotRunningError, open_sandbox

pytestmark = pytest.mark.anyio

MIB = 1 << 20


async def test_metrics_follow_what_the_guest_does() -> None:
    async with open_sandbox("metered", image="local/base") as sandbox:
        idle = await sandbox.metrics()
        assert idle.memory_limit_bytes == 512 * MIB
        assert 8 * MIB < idle.memory_bytes < 400 * MIB
        assert (await sandbox.shell(f"head -c {64 * MIB} /dev/urandom > /root/file && sync")).success
        written = await sandbox.metrics()
        assert 64 * MIB <= written.disk_write_bytes - idle.disk_write_bytes < 96 * MIB
        assert written.uptime_ms > idle.uptime_ms
        async with await sandbox.exec_stream("sh", ["-c", "while :; do :; done"]):
            stream = await sandbox.metrics_stream(0.2)
            busy = [await stream.recv() for _ in range(5)]
            # A busy vCPU is 100 %; a host that is busy elsewhere gives it less.
            assert max(found.cpu_percent for found in busy if found is not None) > 20
            await sandbox.pause()
            await sandbox.metrics()
            await anyio.sleep(0.3)
            still = await sandbox.metrics()
            assert still.cpu_percent < 1
            assert still.memory_bytes > 0
            await sandbox.resume()
            assert (await sandbox.metrics()).timestamp_ms > still.timestamp_ms
        await sandbox.stop()
        with pytest.raises(SandboxNotRunningError):
            await sandbox.metrics()
        assert await stream.recv() is None
