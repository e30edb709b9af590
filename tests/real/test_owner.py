"""The machine and the process that owns it: it dies with it, and it does not die with an idle thread of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
import trio

from trio_sandbox import Home, open_sandbox
from trio_sandbox.binaries import host_program_path
from trio_sandbox.state.places import store_of

from ..processes import ended
from .traces import Traces, machines

pytestmark = pytest.mark.anyio

OWNER = """
import trio
from trio_sandbox import open_sandbox

async def main():
    async with open_sandbox("owned", image="local/base") as sandbox:
        handle = await sandbox.exec_stream("sleep", ["1000"])
        await handle.recv()
        print("ready", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def start_owner(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


async def assert_nothing_left(before: Traces, home: Home) -> None:
    """The row of a sandbox whose owner was killed, and its logs, go when anybody looks; all else by itself."""
    with trio.move_on_after(10):
        while Traces.take(home) != before:
            store_of(home).reconcile()
            await trio.sleep(0.05)
    Traces.take(home).assert_equal(before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_the_end_of_the_application_leaves_nothing(home: Home, number: signal.Signals) -> None:
    before = Traces.take(home)
    owner = start_owner(OWNER)
    with ended(owner):
        assert owner.stdout is not None
        assert await trio.to_thread.run_sync(owner.stdout.readline) == b"ready\n"
        assert len(machines(home) - before.machines) == 1
        owner.send_signal(number)
        await trio.to_thread.run_sync(owner.wait)
    await assert_nothing_left(before, home)


async def test_kill_9_while_booting_leaves_nothing(home: Home) -> None:
    before = Traces.take(home)
    owner = start_owner(OWNER)
    with ended(owner):
        with trio.fail_after(60):
            while machines(home) == set(before.machines):
                await trio.sleep(0.02)
        owner.kill()
        await trio.to_thread.run_sync(owner.wait)
    await assert_nothing_left(before, home)


async def test_an_idle_machine_outlives_the_idle_threads_of_its_owner() -> None:
    """Trio's worker threads exit after ten idle seconds, and a parent-death signal fires when the thread that forked
    exits.
    """
    async with open_sandbox("idle", image="local/base") as sandbox:
        await trio.to_thread.run_sync(os.getpid)
        await trio.sleep(15)
        assert (await sandbox.exec("true")).success


def test_a_process_that_a_worker_thread_starts_would_not_outlive_it() -> None:
    """The trap itself, so that the test above is known to be able to fail.

    In a Trio run of its own: the test runner's keeps its worker threads busy, so that they never exit.
    """

    async def fall_into_it() -> int:
        argv = [host_program_path(), "launch", str(os.getpid()), "--", "sleep", "1000"]
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(partial(trio.run_process, argv, check=False))
            with trio.fail_after(60):
                ended = await process.wait()
        return ended

    assert trio.run(fall_into_it) == -signal.SIGKILL
