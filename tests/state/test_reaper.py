"""The reaper's rhythm, in virtual time."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_sandbox.errors import StorageError
from trio_sandbox.state.reaper import INTERVAL, SPREAD, reap

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


async def looks(minutes: float, seed: int, *, failing: bool = False) -> list[float]:
    """When the reaper looked."""
    found: list[float] = []

    async def reconcile() -> list[str]:
        await trio.lowlevel.checkpoint()
        found.append(trio.current_time())
        if failing:
            raise StorageError("/full", 28, "no space left")
        return ["dead"]

    began = trio.current_time()
    with trio.move_on_after(60 * minutes):
        await reap(reconcile, random.Random(seed))
    return [began, *found]


async def test_it_looks_again_and_again_and_not_in_step() -> None:
    times = await looks(60, seed=1)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert all(INTERVAL * (1 - SPREAD) <= pause <= INTERVAL * (1 + SPREAD) for pause in pauses)
    assert sum(pauses) / len(pauses) == pytest.approx(INTERVAL, rel=0.1)
    assert max(pauses) - min(pauses) > INTERVAL / 2


async def test_a_failure_does_not_end_it() -> None:
    assert len(await looks(10, seed=2, failing=True)) > 10
