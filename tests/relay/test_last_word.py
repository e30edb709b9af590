"""The end of a sandbox reaches every client, although it is also the end of the relay."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_sandbox.relay.client_messages import (
    Ended,
)

from .crowd import settle, world

pytestmark = pytest.mark.anyio
ENDED = Ended("crashed", "kernel-panic", 1, "Kernel panic - not syncing")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


async def test_the_last_word_is_said_though_the_relay_is_cancelled_in_the_same_step() -> None:
    began = trio.current_time()
    async with world() as here:
        async with trio.open_nursery() as accepting:
            client = here.connect(accepting)
            await client.join()
            await settle()
            here.relay.end(ENDED)
            accepting.cancel_scope.cancel(reason="the sandbox has ended")
        await settle()
        assert client.ended == ENDED
    assert trio.current_time() == began  # and nobody waited for it in vain
