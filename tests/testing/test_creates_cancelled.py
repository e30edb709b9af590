"""Creating a sandbox, cancelled anywhere: no task, descriptor, row, folder or name is left."""

from __future__ import annotations

import os
import random
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.cancelling import cancelled_at
from trio_sandbox import Home, Sandbox
from trio_sandbox.testing import SimulatedGuest, simulated_sandbox

pytestmark = pytest.mark.anyio
STEPS = 90
"""Checkpoints of all tasks in one life of a sandbox, about."""


async def live(guest: SimulatedGuest, home: Home | None = None) -> None:
    """A short life."""
    async with simulated_sandbox("one", guest, home=home) as sandbox:
        assert (await sandbox.exec("cat", stdin=b"word")).stdout_bytes == b"word"


def living() -> int:
    """Tasks of this run."""
    return trio.lowlevel.current_statistics().tasks_living


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_1000_creates_cancelled_anywhere_leave_no_task_and_no_guest() -> None:
    chances, reached = random.Random(5), 0
    before = living(), descriptors()
    for _ in range(1000):
        guest = SimulatedGuest()
        reached += await cancelled_at(chances.randint(1, STEPS), partial(live, guest), of_all_tasks=True)
        await wait_all_tasks_blocked()
        assert (living(), descriptors()) == before
        assert not guest.running
        assert not guest.is_on
    assert reached > 800, "most were cancelled before their end"


async def test_100_creates_cancelled_anywhere_leave_no_row_no_folder_and_no_name(tmp_path: Path) -> None:
    home, chances, reached = Home(tmp_path / "home"), random.Random(6), 0
    await live(SimulatedGuest(), home)  # the database, and a worker thread, stay
    before = living(), descriptors()
    for _ in range(100):
        guest = SimulatedGuest()
        step = chances.randint(1, STEPS)
        reached += await cancelled_at(step, partial(live, guest, home), of_all_tasks=True)
        await wait_all_tasks_blocked()
        assert (living(), descriptors()) == before
        assert await Sandbox.list(home=home) == []
        assert not list((home.root / "sandboxes").iterdir())
        assert not guest.is_on
    assert reached > 70
    await live(SimulatedGuest(), home)


async def test_the_check_can_fail() -> None:
    before = living()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        assert living() == before + 1
        nursery.cancel_scope.cancel()
