"""Real sandboxes under limits: what they count for, and that nothing is made of one for which there is no room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_sandbox import Home, HostLimitError, Sandbox, open_sandbox
from trio_sandbox.admission.queue import Ticket, Usage
from trio_sandbox.admission.register import Register
from trio_sandbox.process.spawn import fork_server

from .traces import leaving_nothing

pytestmark = pytest.mark.anyio
MEMORY = 128
COST = MEMORY + 32 + 64
"""MiB with QEMU and what it translates, under software emulation."""


@pytest.fixture
def limits(home: Home) -> Iterator[Path]:
    """The file of limits of the data folder, for this test."""
    path = home.root / "limits.toml"
    yield path
    path.unlink(missing_ok=True)


def tickets(home: Home) -> list[Ticket]:
    with Register.opened(home) as register:
        return register.others()


async def test_what_a_sandbox_counts_for(home: Home) -> None:
    async with open_sandbox("counted", image="local/base", memory=MEMORY):
        async with await Sandbox.create("process", image="local/base", memory=MEMORY):
            used = Usage.of(tickets(home))
            assert (used.boots, used.sandboxes) == (0, 2)
            assert used.memory in (2 * COST, 2 * (COST - 64))
        assert Usage.of(tickets(home)).sandboxes == 1
    assert tickets(home) == []


async def test_a_create_for_which_there_is_no_room_fails_by_its_deadline(home: Home, limits: Path) -> None:
    await trio.to_thread.run_sync(fork_server)
    limits.write_text("sandboxes = 1\n")
    options: dict[str, Any] = {"image": "local/base", "memory": MEMORY, "admission_timeout": 0.1}
    async with open_sandbox("first", **{**options, "admission_timeout": 0}):
        with leaving_nothing(home):
            with pytest.raises(HostLimitError, match="1 of 1 sandboxes are in use") as caught:
                async with open_sandbox("second", **options):
                    pass
            assert caught.value.waited >= 0.1
            with pytest.raises(HostLimitError) as caught:
                await Sandbox.create("third", **options)
            assert (caught.value.resource, caught.value.limit, caught.value.usage) == ("sandboxes", 1, 1)


async def test_one_that_can_never_fit_is_refused_before_anything_is_made(home: Home, limits: Path) -> None:
    limits.write_text("memory = 500\n")
    with leaving_nothing(home), pytest.raises(HostLimitError, match="ask for less"):
        async with open_sandbox("huge", image="registry.invalid/never:pulled", memory=500):
            pass


@pytest.mark.soak
async def test_100_creates_at_once_start_in_order_and_leave_nothing(home: Home) -> None:
    await trio.to_thread.run_sync(fork_server)
    started: list[int] = []

    async def one(number: int) -> None:
        options: dict[str, Any] = {"memory": MEMORY, "admission_timeout": 600}
        async with await Sandbox.create(f"soak-{number}", image="local/base", **options) as sandbox:
            started.append(number)
            assert (await sandbox.exec("true")).success

    with leaving_nothing(home):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, number)
    assert sorted(started) == list(range(100))
