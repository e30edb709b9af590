"""The API as its document has it, on both backends and with real machines. Every test leaves nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from tests.real.conftest import first_use, home, own_temporary_folder
from tests.real.traces import Traces
from trio_sandbox import Home, Sandbox
from trio_sandbox.process.spawn import fork_server

__all__ = ["first_use", "home", "own_temporary_folder"]

END_TIMEOUT = 10.0
"""Seconds for other processes to be gone."""


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def nothing_left(anyio_backend: Any, home: Home) -> AsyncIterator[None]:
    """The data folder, the machine and this process are as before: no process, socket, file or descriptor more."""
    await anyio.to_thread.run_sync(fork_server)  # it stays, and so does a worker thread
    before = Traces.take(home)
    known = {handle.name for handle in await Sandbox.list()}
    yield
    left = [handle for handle in await Sandbox.list() if handle.name not in known]
    for handle in left:  # so that the tests that follow do not fail for it too
        await handle.kill()
        await Sandbox.remove(handle.name)
    assert not left
    with anyio.move_on_after(END_TIMEOUT):
        while Traces.take(home) != before:
            await anyio.sleep(0.02)
    Traces.take(home).assert_equal(before)
