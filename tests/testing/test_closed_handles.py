"""Handles that were closed before the guest could confirm the end: they say so, and do not wait for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from trio_sandbox import LocalProtocolError, connect
from trio_sandbox.testing import SimulatedGuest, simulated_sandbox

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("local", [True, False])
async def test_a_handle_that_was_closed_while_the_guest_was_silent_is_over(tmp_path: Path, local: bool) -> None:
    guest = SimulatedGuest()
    async with simulated_sandbox(guest=guest, listen=tmp_path / "s") as sandbox:
        client = sandbox if local else await connect(tmp_path / "s")
        handle = await client.exec_stream("sleep", ["1000"])
        await handle.wait_until_started()
        guest.stall(8)
        await handle.aclose()
        with trio.fail_after(100):
            for call in (handle.recv, handle.wait, handle.collect):
                with pytest.raises(LocalProtocolError, match="not known"):
                    await call()
            await handle.aclose()
        if not local:
            await client.detach()
        await trio.sleep(20)
        assert guest.running == []
