"""The deadline that goes with a request: the caller's, a little later, and never none where there is one."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from trio_sandbox.client.deadlines import MAX_MS, deadline_ms

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock()})


@pytest.mark.parametrize(("seconds", "seen"), [(None, 0), (10, 10_250), (0.0001, 251), (-1, 1), (1e300, MAX_MS)])
async def test_the_deadline_of_the_caller(seconds: float | None, seen: int) -> None:
    with anyio.CancelScope(deadline=float("inf") if seconds is None else anyio.current_time() + seconds) as scope:
        assert deadline_ms() == seen
        scope.deadline = float("inf")
        await anyio.lowlevel.checkpoint()


async def test_the_nearest_of_several_scopes_counts_and_a_cancelled_one_is_over() -> None:
    with anyio.move_on_after(5), anyio.move_on_after(60):
        await anyio.lowlevel.checkpoint()
        assert deadline_ms() == 5_250
    with anyio.CancelScope() as scope:
        scope.cancel()
        assert deadline_ms() == 1
        await anyio.lowlevel.checkpoint()
