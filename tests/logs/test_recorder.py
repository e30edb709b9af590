"""What a sandbox writes while it lives."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_sandbox.config import LogLevel, SandboxConfig
from trio_sandbox.errors import StorageError
from trio_sandbox.lifecycle import End, EndReason, State
from trio_sandbox.logs import recorder as recorder_module
from trio_sandbox.logs import rotation
from trio_sandbox.logs.entry import MAX_DATA, LogSource
from trio_sandbox.logs.places import LogFile
from trio_sandbox.logs.query import Query
from trio_sandbox.logs.recorder import LONGEST_LINE, recorded_logs
from trio_sandbox.logs.runtime_log import LOGGER
from trio_sandbox.logs.snapshot import read_logs
from trio_sandbox.relay.frames import FrameType

pytestmark = pytest.mark.anyio
log = logging.getLogger("trio_sandbox.relay")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


def config(**options: object) -> SandboxConfig:
    return SandboxConfig.from_options("box", {"image": "local/base", **options})


def lines(folder: Path, file: LogFile) -> list[str]:
    found = read_logs(folder / "logs", Query.of(["all"]))
    path = folder / "logs" / file
    written = path.read_bytes() if path.exists() else b""
    return [entry.text() for entry in found if b'"t":%.3f,' % entry.timestamp_ms in written]


async def test_output_has_the_source_of_its_stream_or_terminal(tmp_path: Path) -> None:
    async with recorded_logs(tmp_path, config()) as recorder:
        recorder.output(1, FrameType.STDOUT, False, b"a")
        recorder.output(1, FrameType.STDERR, False, b"b")
        recorder.output(2, FrameType.STDOUT, True, b"c")
    entries = read_logs(tmp_path / "logs", Query.of())
    assert [(entry.source, entry.session_id) for entry in entries] == [
        (LogSource.STDOUT, 1),
        (LogSource.STDERR, 1),
        (LogSource.OUTPUT, 2),
    ]


async def test_the_lifecycle_is_marked(tmp_path: Path) -> None:
    async with recorded_logs(tmp_path, config()) as recorder:
        for state in (State.RUNNING, State.PAUSED, State.RUNNING, State.DRAINING, State.STOPPING, State.STOPPED):
            recorder.entered(state)
        recorder.ended(End(EndReason.DRAINED, 0))
        recorder.ended(End(EndReason.VMM_EXITED, -9))
    assert [text.strip().removeprefix("sandbox ") for text in lines(tmp_path, LogFile.EXEC)] == [
        *("ready", "paused", "resumed", "draining", "stopping"),
        "stopped: drained, exit code 0",
        "crashed: vmm-exited, exit code -9",
    ]


async def test_the_console_is_written_as_lines_however_it_comes(tmp_path: Path) -> None:
    async with recorded_logs(tmp_path, config()) as recorder:
        for piece in (b"[1] one", b"\r", b"\n", b"[2] two\n[3] three\n[4]", b" four"):
            recorder.console(piece)
    assert lines(tmp_path, LogFile.KERNEL) == ["[1] one\r\n", "[2] two\n[3] three\n", "[4] four"]


async def test_a_console_without_ends_of_lines_is_bounded(tmp_path: Path) -> None:
    async with recorded_logs(tmp_path, config()) as recorder:
        for _ in range(3 * LONGEST_LINE):
            recorder.console(b"x")
        recorder.console(b"y" * (MAX_DATA + 1))
        assert len(recorder._line) <= LONGEST_LINE
    text = "".join(lines(tmp_path, LogFile.KERNEL))
    assert text == "x" * 3 * LONGEST_LINE + "y" * (MAX_DATA + 1)


@pytest.fixture
def all_messages() -> Any:
    level = LOGGER.level
    LOGGER.setLevel(1)
    yield
    LOGGER.setLevel(level)


@pytest.mark.usefixtures("all_messages")
async def test_messages_go_to_the_sandbox_whose_tasks_log_them(tmp_path: Path) -> None:
    async def sandbox(name: str, level: str | None, *, task_status: trio.TaskStatus[None]) -> None:
        (tmp_path / name).mkdir()
        async with recorded_logs(tmp_path / name, config(log_level=level)), trio.open_nursery() as nursery:
            task_status.started()
            nursery.start_soon(trio.lowlevel.checkpoint)
            await trio.to_thread.run_sync(log.debug, "a thread of %s", name)
            nursery.start_soon(speak, name)

    async def speak(name: str) -> None:
        log.error("a task of %s", name)
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        await nursery.start(sandbox, "one", None)
        await nursery.start(sandbox, "two", LogLevel.WARN)
        log.error("nobody's")
    assert lines(tmp_path / "one", LogFile.RUNTIME) == [
        "DEBUG trio_sandbox.relay: a thread of one\n",
        "ERROR trio_sandbox.relay: a task of one\n",
    ]
    assert lines(tmp_path / "two", LogFile.RUNTIME) == ["ERROR trio_sandbox.relay: a task of two\n"]


async def test_warnings_still_reach_standard_error_where_nobody_set_up_logging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    last = logging.lastResort
    assert last is not None
    monkeypatch.setattr(last, "handle", lambda record: shown.append(record.getMessage()))
    async with recorded_logs(tmp_path, config()):
        log.warning("seen by pytest's handlers")
        monkeypatch.setattr(logging.getLogger(), "handlers", [])
        log.warning("seen by nobody")
        log.info("not a warning")
    assert shown == ["seen by nobody"]


async def test_a_bug_leaves_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with recorded_logs(tmp_path, config()):
            _ = 1 / 0
    assert "ZeroDivisionError" in "".join(lines(tmp_path, LogFile.RUNTIME))
    with pytest.raises(StorageError):
        async with recorded_logs(tmp_path, config()):
            raise StorageError("x", 0, "told elsewhere")
    assert "StorageError" not in "".join(lines(tmp_path, LogFile.RUNTIME))


async def test_a_stuck_disk_does_not_keep_a_sandbox_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def stuck(file: rotation.RotatingFile, batch: Sequence[rotation.Line]) -> int:
        release.wait()
        return len(batch)

    monkeypatch.setattr(rotation.RotatingFile, "append", stuck)
    monkeypatch.setattr(recorder_module, "CLOSE_TIMEOUT", 0.01)
    async with recorded_logs(tmp_path, config()) as recorder:
        recorder.mark("created")
    assert not release.is_set()
    release.set()
    recorder.writer.join()


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    with pytest.raises(StorageError):
        async with recorded_logs(tmp_path, config()):
            pass
