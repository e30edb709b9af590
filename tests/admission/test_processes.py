"""Room across real processes: their order, and that whoever is killed gives back what it had, and its place in line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from tests.processes import ended
from trio_sandbox.admission.admitted import admitted
from trio_sandbox.admission.queue import Usage
from trio_sandbox.admission.register import Register
from trio_sandbox.home import Home

pytestmark = pytest.mark.anyio
HOLDER = """
import sys, trio
from pathlib import Path
from trio_sandbox.admission.admitted import admitted
from trio_sandbox.home import Home

async def main():
    print("asks", flush=True)
    async with admitted(Home(Path(sys.argv[1])), int(sys.argv[2]), timeout=60) as share:
        share.booted()
        print("has", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)

trio.run(main)
"""
PROMPT = 10.0
"""Seconds within which a busy machine gets round to something."""


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


@contextmanager
def holder(home: Home, memory: int) -> Iterator[subprocess.Popen[str]]:
    """A process that asks for room, and has it until its stdin ends."""
    command = [sys.executable, "-c", HOLDER, str(home.root), str(memory)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with ended(
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    ) as process:
        assert said(process) == "asks"
        yield process


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def used(home: Home) -> Usage:
    with Register.opened(home) as register:
        return Usage.of(register.others())


async def in_line(home: Home, count: int) -> None:
    """Wait until so many wait."""
    with trio.fail_after(PROMPT), Register.opened(home) as register:
        while len(register.others()) - used(home).sandboxes < count:
            await trio.sleep(0.01)


async def test_processes_are_served_in_their_order(home: Home) -> None:
    with ExitStack() as stack:
        processes = []
        for number in range(4):
            processes.append(stack.enter_context(holder(home, 1000)))
            if number == 0:
                assert said(processes[0]) == "has"
            else:
                await in_line(home, number)
        for process, following in pairwise(processes):
            assert used(home) == Usage(1000, 0, 1)
            assert process.stdin is not None
            process.stdin.close()
            assert said(following) == "has"
        processes[-1].kill()


async def test_whoever_is_killed_gives_back_what_it_had(home: Home) -> None:
    with holder(home, 1000) as process:
        assert said(process) == "has"
        process.kill()
        with trio.fail_after(PROMPT):
            async with admitted(home, 1000, timeout=PROMPT):
                assert used(home) == Usage(1000, 1, 1)


async def test_whoever_is_killed_in_line_gives_up_its_place(home: Home) -> None:
    with holder(home, 500) as first:
        assert said(first) == "has"
        with holder(home, 1000) as large:
            await in_line(home, 1)
            with holder(home, 100) as small:
                await in_line(home, 2)
                large.kill()
                assert said(small) == "has"
                assert used(home) == Usage(600, 0, 2)
                small.kill()
            first.kill()
    assert used(home) == Usage()


async def test_a_child_does_not_inherit_the_room(home: Home) -> None:
    """A machine whose sandbox's process was killed may live for a moment longer; it does not keep the room."""
    async with admitted(home, 1000, timeout=0):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)  # noqa: ASYNC220 - it returns at once
    with ended(child):
        assert used(home) == Usage()
        child.kill()
