"""What waits is bounded, what was lost is told exactly, and no disk keeps anybody waiting."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sandbox.logs import rotation
from trio_sandbox.logs.entry import PROGRAMS, LogEntry, LogSource
from trio_sandbox.logs.places import LogFile, is_written
from trio_sandbox.logs.query import Query
from trio_sandbox.logs.queue import RESERVE_ENTRIES, LogQueue
from trio_sandbox.logs.snapshot import read_logs
from trio_sandbox.logs.writer import LogWriter

from .written import manual_writer

ALL = Query.of(["all"])


def read(folder: Path) -> list[LogEntry]:
    return read_logs(folder, ALL)


def losses(entries: list[LogEntry]) -> tuple[int, int]:
    """Entries and bytes that the marks tell of."""
    found = [re.fullmatch(r"(\d+) entr(?:y|ies), (\d+) bytes dropped", entry.text()) for entry in entries]
    marks = [match for match in found if match]
    return sum(int(mark[1]) for mark in marks), sum(int(mark[2]) for mark in marks)


def test_entries_are_written_with_growing_times(tmp_path: Path) -> None:
    with manual_writer(tmp_path) as log:
        for number in range(100):
            log.out(b"%d" % number)
    entries = read(tmp_path)
    assert [entry.data for entry in entries] == [b"%d" % number for number in range(100)]
    times = [entry.timestamp_ms for entry in entries]
    assert times == sorted(set(times))


def test_times_grow_over_restarts_even_when_the_clock_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with manual_writer(tmp_path) as log:
        log.out(b"one")
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    with manual_writer(tmp_path) as log:
        log.out(b"two")
        log.kernel(b"three")
    assert [entry.data for entry in read(tmp_path)] == [b"one", b"two", b"three"]


def test_a_flood_is_told_where_it_happened_and_hides_no_mark(tmp_path: Path) -> None:
    with manual_writer(tmp_path, queue_entries=3) as log:
        for number in range(8):
            log.out(b"%d" % number)
        log.put(LogFile.EXEC, LogSource.SYSTEM, None, b"the end", mark=True)
        log.write_waiting()
        log.out(b"after")
    texts = [entry.text() for entry in read(tmp_path)]
    assert texts == ["0", "1", "2", "5 entries, 5 bytes dropped", "the end", "after"]


def test_bytes_are_bounded_too_and_one_file_takes_no_room_of_another(tmp_path: Path) -> None:
    with manual_writer(tmp_path, queue_bytes=100) as log:
        log.out(bytes(60))
        log.out(bytes(60))
        log.kernel(b"still here")
    entries = read(tmp_path)
    assert losses(entries) == (1, 60)
    assert "still here" in [entry.text() for entry in entries]


def test_losses_at_the_very_end_are_told(tmp_path: Path) -> None:
    with manual_writer(tmp_path, queue_entries=1) as log:
        log.out(b"in")
        log.out(b"lost")
    assert [entry.text() for entry in read(tmp_path)] == ["in", "1 entry, 4 bytes dropped"]


def test_marks_are_bounded_as_well() -> None:
    queue = LogQueue(LogFile.EXEC, iter(range(1, 1_000_000)).__next__, limit_entries=1)
    taken = sum(queue.offer(LogSource.SYSTEM, None, b"mark", mark=True) for _ in range(RESERVE_ENTRIES + 100))
    assert taken == RESERVE_ENTRIES + 1


STEPS = st.lists(st.tuples(st.sampled_from(["put", "write", "fail"]), st.integers(0, 60), st.integers(0, 5)))


@given(steps=STEPS)
@settings(max_examples=60)
def test_every_entry_is_written_once_or_counted_once(
    tmp_path_factory: pytest.TempPathFactory, steps: Sequence[tuple[str, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    put: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch, manual_writer(folder, queue_entries=6, queue_bytes=200) as log:
        append = rotation.RotatingFile.append
        takes = 1 << 20

        def limited(file: rotation.RotatingFile, lines: Sequence[rotation.Line]) -> int:
            return append(file, lines[:takes])

        patch.setattr(rotation.RotatingFile, "append", limited)
        for action, size, room in steps:
            if action == "put":
                put.append(b"%d:" % len(put) + bytes(size))
                log.out(put[-1])
            else:
                takes = room if action == "fail" else 1 << 20
                log.write_waiting()
        takes = 1 << 20
        log.write_waiting()
    entries = read(folder)
    written = [entry.data for entry in entries if entry.source in PROGRAMS]
    assert written == [data for data in put if data in set(written)]
    assert losses(entries) == (len(put) - len(written), sum(map(len, put)) - sum(map(len, written)))
    times = [entry.timestamp_ms for entry in entries]
    assert times == sorted(set(times))


def test_a_full_disk_costs_entries_and_is_told_when_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "full")

    with manual_writer(tmp_path) as log:
        log.out(b"before")
        log.write_waiting()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            for _ in range(3):
                log.out(b"lost")
                log.write_waiting()
        log.out(b"after")
    assert [entry.text() for entry in read(tmp_path)] == ["before", "3 entries, 12 bytes dropped", "after"]


def test_a_stuck_disk_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, release = threading.Event(), threading.Event()
    append = rotation.RotatingFile.append

    def slow(file: rotation.RotatingFile, lines: Sequence[rotation.Line]) -> int:
        stuck.set()
        release.wait()
        return append(file, lines)

    monkeypatch.setattr(rotation.RotatingFile, "append", slow)
    log = LogWriter(tmp_path, queue_entries=50)
    log.start()
    log.put(LogFile.EXEC, LogSource.STDOUT, 1, b"first")
    assert stuck.wait(10)
    for _ in range(1000):  # each returns although the disk does not
        log.put(LogFile.EXEC, LogSource.STDOUT, 1, b"more")
    assert not release.is_set()
    release.set()
    log.close()
    log.join()
    entries = read(tmp_path)
    assert len([entry for entry in entries if entry.source is LogSource.STDOUT]) + losses(entries)[0] == 1001


def test_the_folder_tells_whether_somebody_writes(tmp_path: Path) -> None:
    assert not is_written(tmp_path) and not is_written(tmp_path / "nowhere")
    with manual_writer(tmp_path):
        assert is_written(tmp_path)
    assert not is_written(tmp_path)
