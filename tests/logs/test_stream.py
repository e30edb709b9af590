"""`LogStream` and `all_logs`, under Trio and under asyncio."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import pytest
from trio.testing import MockClock

from trio_sandbox.client import logs
from trio_sandbox.client.connection import Connection
from trio_sandbox.client.logs import LogStream, all_logs, stream_of
from trio_sandbox.client.remote import RemoteControl
from trio_sandbox.errors import MissedLogsError, SandboxNotFoundError, StorageError, UnsupportedError
from trio_sandbox.logs.places import found_logs
from trio_sandbox.logs.query import Query
from trio_sandbox.relay.client_messages import (
    Welcome,
)
from trio_sandbox.state.owner import boot_id

from .test_reading import data_of, write
from .written import manual_writer

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return (request.param, {"clock": MockClock(autojump_threshold=0)} if request.param == "trio" else {})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "POLL", 0.001)
    monkeypatch.setattr(logs, "SETTLE", 0)


async def next_two(stream: LogStream) -> list[bytes]:
    entries = [await stream.recv() for _ in range(2)]
    return [entry.data for entry in entries if entry is not None]


async def test_a_stream_that_does_not_follow_ends_where_the_log_does(tmp_path: Path) -> None:
    with manual_writer(tmp_path) as log:
        write(log, *(b"%d" % number for number in range(600)))
        stream = await stream_of(lambda: tmp_path, Query.of(), follow=False)
        assert data_of([entry async for entry in stream]) == [b"%d" % number for number in range(600)]
        assert await stream.recv() is None


async def test_following_across_rotation_until_nobody_writes(tmp_path: Path) -> None:
    received: list[bytes] = []
    with manual_writer(tmp_path, limit=150, kept=2) as log:
        stream = LogStream(tmp_path, Query.of(), follow=True)
        for number in range(20):
            write(log, b"%d" % number)
            entry = await stream.recv()
            assert entry is not None
            received.append(entry.data)
        log.out(b"last words")
    assert (tmp_path / "exec.log.2").exists()
    received += data_of([entry async for entry in stream])
    assert received == [*(b"%d" % number for number in range(20)), b"last words"]


async def test_a_follower_waits_and_a_cancelled_wait_loses_nothing(tmp_path: Path) -> None:
    with manual_writer(tmp_path) as log:
        async with LogStream(tmp_path, Query.of(), follow=True) as stream:
            for number in range(10):
                with anyio.move_on_after(0.005) as scope:
                    await stream.recv()
                assert scope.cancelled_caught
                write(log, b"%d" % number, b"and")
                assert await next_two(stream) == [b"%d" % number, b"and"]


async def test_a_follower_ends_with_the_time_that_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with manual_writer(tmp_path) as log:
        write(log, b"early")
        first = (await all_logs(lambda: tmp_path, Query.of(), None))[0]
        until = Query.of(until_ms=first.timestamp_ms + 0.001)
        stream = LogStream(tmp_path, until, follow=True)
        assert await stream.recv() == first
        write(log, b"late")
        assert await stream.recv() is None  # something later is there
        idle = LogStream(tmp_path, Query.of(since_ms=1e15, until_ms=first.timestamp_ms + 5), follow=True)
        monkeypatch.setattr(time, "time", lambda: first.timestamp_ms / 1000 + 2)
        assert await idle.recv() is None  # the time has passed


async def test_missed_entries_are_told_and_the_stream_goes_on(tmp_path: Path) -> None:
    with manual_writer(tmp_path, limit=60, kept=1) as log:
        write(log, b"0")
        async with LogStream(tmp_path, Query.of(), follow=True) as stream:
            assert await stream.recv() is not None
            for text in (b"1", b"2", b"3", b"4"):
                write(log, text)
            with pytest.raises(MissedLogsError):
                await stream.recv()
            assert await next_two(stream) == [b"3", b"4"]


async def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "exec.log").mkdir()
    with pytest.raises(StorageError):
        await all_logs(lambda: tmp_path, Query.of(), None)
    with pytest.raises(StorageError):
        await LogStream(tmp_path, Query.of(), follow=True).recv()
    with pytest.raises(SandboxNotFoundError):
        await all_logs(lambda: found_logs(tmp_path / "gone", "gone"), Query.of(), None)
    assert await all_logs(lambda: found_logs(tmp_path, "new"), Query.of(), 5) == []


async def test_a_remote_handle_reads_the_files_only_where_the_sandbox_is(tmp_path: Path) -> None:
    def control(host: str, path: str) -> RemoteControl:
        return RemoteControl(
            cast(Connection, None), Welcome(1, "box", 1, 16, 1, {}, "/", "", "/bin/sh", host=host, logs=path)
        )

    folder = str(tmp_path / "logs")
    assert control(boot_id(), folder).find_logs() == tmp_path / "logs"
    with pytest.raises(UnsupportedError, match="another machine"):
        control("another boot", folder).find_logs()
    with pytest.raises(UnsupportedError, match="without a data folder"):
        control(boot_id(), "").find_logs()
    with pytest.raises(SandboxNotFoundError):
        control(boot_id(), str(tmp_path / "gone" / "logs")).find_logs()


@pytest.mark.parametrize(("tail", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError)])
async def test_wrong_tails(tmp_path: Path, tail: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        await all_logs(lambda: tmp_path, Query.of(), tail)


async def test_a_closed_stream_has_ended_and_holds_no_files(tmp_path: Path) -> None:
    with manual_writer(tmp_path) as log:
        write(log, b"1", b"2")
        before = len(list(Path("/proc/self/fd").iterdir()))
        stream = LogStream(tmp_path, Query.of(), follow=True)
        assert await stream.recv() is not None
        assert len(list(Path("/proc/self/fd").iterdir())) > before
        await stream.aclose()
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        assert await stream.recv() is None
