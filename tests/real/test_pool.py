"""The pool with real machines: fresh ones, with the right time, within the limits of the host; and nothing is left."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_sandbox import Home, HostLimitError, SandboxCrashedError, open_pool, open_sandbox
from trio_sandbox.pool import Pool

from .test_admission import limits
from .traces import leaving_nothing, machines

pytestmark = pytest.mark.anyio
__all__ = ["limits"]
PROMPT = 30.0
"""Seconds within which a busy machine fills a pool."""


async def filled(pool: Pool, ready: int) -> None:
    with trio.fail_after(PROMPT):
        while pool.statistics().ready < ready:
            await trio.sleep(0.01)


async def test_leases_are_fresh_and_nothing_is_left(home: Home) -> None:
    await trio.to_thread.run_sync(os.getpid)  # a worker thread's own wake-up descriptors stay, so begin with one
    with leaving_nothing(home):
        async with open_pool("real", image="local/base", warm_pool=2) as pool:
            await filled(pool, 2)
            ids = set()
            for _ in range(3):
                async with pool.lease() as sandbox:
                    script = "ls /root; touch /root/used; date +%s; cat /etc/machine-id /proc/sys/kernel/random/uuid"
                    told, *identity = (await sandbox.shell(script)).stdout_text.split()
                    assert abs(int(told) - time.time()) < 5
                    ids.update(identity)
            assert len(ids) == 6
            await pool.drain()
            assert not machines(home)


async def test_a_machine_that_is_killed_while_it_is_idle_is_replaced(home: Home) -> None:
    async with open_pool("real", image="local/base", warm_pool=1) as pool:
        await filled(pool, 1)
        (machine,) = machines(home)
        os.kill(machine, 9)
        async with pool.lease() as sandbox:
            assert (await sandbox.exec("true")).success
            assert pool.statistics().failures == 1
        with pytest.raises(SandboxCrashedError):
            async with pool.lease() as sandbox:
                await sandbox.shell("echo c > /proc/sysrq-trigger")
                await trio.sleep_forever()


async def test_a_pool_leaves_half_of_the_host_to_creations(home: Home, limits: Path) -> None:
    limits.write_text("sandboxes = 4\n")
    async with open_pool("real", image="local/base", warm_pool=4) as pool:
        await filled(pool, 2)
        options: dict[str, Any] = {"image": "local/base", "admission_timeout": 0}
        async with open_sandbox("one", **options), open_sandbox("two", **options):
            assert pool.statistics().ready == 2
            with pytest.raises(HostLimitError):
                async with open_sandbox("three", **options):
                    pass
