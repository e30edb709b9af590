"""A sandbox that is paused costs nothing, and goes on where it was."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from tests.real.traces import users
from trio_sandbox import EndReason, Home, Sandbox, Stdin

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]
SPAN = 0.5
"""Seconds over which processor use is measured."""


def processor_ns(pid: int) -> int:
    """What all threads of a process have used."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


async def share_of_a_processor(pid: int) -> float:
    before, began = processor_ns(pid), time.monotonic()
    await anyio.sleep(SPAN)
    return (processor_ns(pid) - before) / 1e9 / (time.monotonic() - began)


async def test_a_paused_sandbox_stands_still_and_goes_on(home: Home) -> None:
    async with await Sandbox.create("paused", image="local/base") as sb:
        handle = await Sandbox.get("paused")
        owner = handle._row.owner
        assert owner is not None
        (vmm,) = users(home) - {owner.pid}
        async with (
            await sb.shell_stream("while :; do :; done") as busy,
            await sb.exec_stream("cat", stdin=Stdin.pipe()) as cat,
        ):
            sink = cat.take_stdin()
            assert sink is not None
            await busy.recv()
            await cat.recv()
            assert await share_of_a_processor(vmm) > 0.1
            await sb.pause()
            await sb.pause()  # harmless
            assert await share_of_a_processor(vmm) < 0.01
            assert (await sb.metrics()).memory_limit_bytes == 512 << 20
            await sink.write(b"typed while it stood still\n")
            await sb.resume()
            await sb.resume()
            event = await cat.recv()
            assert event is not None
            assert event.data == b"typed while it stood still\n"
            await busy.kill()
        before = time.time_ns()
        told = int((await sb.exec("date", ["+%s%N"])).stdout_text)
        after = time.time_ns()
        assert before - 50_000_000 < told < after + 50_000_000


async def test_a_stop_of_a_paused_one_still_writes_its_data() -> None:
    sb = await Sandbox.create("paused", image="local/base")
    await sb.shell("echo kept > /root/note")
    await sb.pause()
    await sb.stop()
    assert (await sb.end()).reason is EndReason.REQUESTED
    again = await Sandbox.start("paused")
    assert (await again.exec("cat", ["/root/note"])).stdout_text == "kept\n"
    await again.pause()
    async with again, sb:  # leaving kills it as it is
        pass


async def test_time_that_it_stood_still_is_not_idle_time() -> None:
    async with await Sandbox.create("patient", image="local/base", idle_timeout=1.0) as sb:
        await sb.pause()
        await anyio.sleep(1.5)
        assert (await Sandbox.get("patient")).status == "paused"
        await sb.resume()
        assert (await sb.exec("true")).success
        with anyio.fail_after(10):
            assert (await sb.end()).reason is EndReason.IDLE
