"""Named events between the host and the programs."""

from __future__ import annotations

import pytest

from tests.conformance import scripts
from trio_sandbox import Sandbox

pytestmark = pytest.mark.anyio


async def test_what_programs_emit_is_received(sandbox: Sandbox) -> None:
    async with sandbox.events() as everything, sandbox.events("count") as counts:
        assert (await sandbox.shell(scripts.EMITS)).success
        assert [(event.name, event.payload) for event in [await anext(everything) for _ in range(3)]] == [
            ("count", {"n": 1}),
            ("other", None),
            ("count", {"n": 2}),
        ]
        assert [(await anext(counts)).payload["n"] for _ in range(2)] == [1, 2]
        assert everything.dropped == counts.dropped == 0


async def test_what_the_host_emits_reaches_who_listens(sandbox: Sandbox) -> None:
    assert await sandbox.emit("order", {"tea": 2}) == 0, "nobody listens"
    async with await sandbox.shell_stream(scripts.LISTENS) as handle:
        while True:
            event = await handle.recv()
            assert event is not None
            if event.data == b"listening\n":
                break
        while not await sandbox.emit("order", 7):  # its socket may not be open yet
            await sandbox.ping()
        assert (await handle.collect()).stdout_text == "order 7\n"


async def test_an_event_that_is_none_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="no event's name"):
        await sandbox.emit("two words")
    with pytest.raises(ValueError, match="payload"):
        await sandbox.emit("large", "x" * 70_000)
