"""The QMP client against a scripted monitor, in virtual time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_sandbox.service import service
from trio_sandbox.vm.qmp import MAX_LINE, QmpClient, QmpClosed, QmpError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


class Monitor:
    """QEMU's end: answers what the test says."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = b""

    async def say(self, **message: object) -> None:
        await self.stream.send_all(json.dumps(message).encode() + b"\r\n")

    async def hear(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            self._buffer += await self.stream.receive_some(4096)
        line, self._buffer = self._buffer.split(b"\n", 1)
        heard: dict[str, Any] = json.loads(line)
        return heard


@asynccontextmanager
async def monitored() -> AsyncIterator[tuple[QmpClient, Monitor]]:
    near, far = memory_stream_pair()
    client, monitor = QmpClient(near), Monitor(far)
    async with service(client.serve, name="qmp"):
        assert (await monitor.hear())["execute"] == "qmp_capabilities"
        yield client, monitor


async def test_answers_find_their_requests_in_any_order() -> None:
    async with monitored() as (client, monitor):
        answers: dict[str, Any] = {}

        async def ask(command: str) -> None:
            answers[command] = await client.execute(command, depth=1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "query-status")
            nursery.start_soon(ask, "query-version")
            requests = [await monitor.hear(), await monitor.hear()]
            for request in reversed(requests):
                assert request["arguments"] == {"depth": 1}
                await monitor.say(id=request["id"], **{"return": request["execute"]})
        assert answers == {"query-status": "query-status", "query-version": "query-version"}


async def test_events_tell_why_qemu_ends() -> None:
    async with monitored() as (client, monitor):
        assert client.shutdown_reason is None
        await monitor.say(event="SHUTDOWN", data={"guest": True, "reason": "guest-reset"})
        await wait_all_tasks_blocked()
        assert client.shutdown_reason == "guest-reset"


async def test_a_refusal_is_an_error_with_qemus_words() -> None:
    async with monitored() as (client, monitor), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def refuse() -> None:
            request = await monitor.hear()
            await monitor.say(id=request["id"], error={"class": "GenericError", "desc": "no such thing"})

        with pytest.raises(QmpError, match="cont: no such thing"):
            await client.execute("cont")


@pytest.mark.parametrize("last_words", [b"", b"not json\n", b"[]\n", b"x" * (MAX_LINE + 2)])
async def test_a_monitor_that_closes_or_babbles_releases_all_who_wait(last_words: bytes) -> None:
    async with monitored() as (client, monitor), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def leave() -> None:
            await monitor.hear()
            await monitor.stream.send_all(last_words)
            if not last_words:
                await monitor.stream.aclose()

        with pytest.raises(QmpClosed):
            await client.execute("query-status")
        with pytest.raises(QmpClosed):
            await client.execute("query-status")
        assert client.ended.is_set()
        nursery.cancel_scope.cancel()


async def test_a_cancelled_request_leaves_no_entry_behind() -> None:
    async with monitored() as (client, monitor):
        with trio.move_on_after(1) as scope:
            await client.execute("query-status")
        assert scope.cancelled_caught
        late = await monitor.hear()
        await monitor.say(id=late["id"], **{"return": {}})
        await wait_all_tasks_blocked()
        assert client._pending == {}
