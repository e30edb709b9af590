"""Entries read from the front, from the end, while they are written, and across files that are set aside."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sandbox.errors import MissedLogsError
from trio_sandbox.logs import forward, lines
from trio_sandbox.logs.entry import MAX_LINE, LogEntry, LogSource, decode_line, encode_line
from trio_sandbox.logs.forward import LogReader
from trio_sandbox.logs.places import LogFile
from trio_sandbox.logs.query import Query
from trio_sandbox.logs.snapshot import read_logs

from .written import ManualWriter, manual_writer

ALL = Query.of(["all"])


def data_of(entries: Sequence[LogEntry]) -> list[bytes]:
    return [entry.data for entry in entries]


def rest_of(reader: LogReader) -> list[bytes]:
    return data_of(list(iter(reader.next, None)))


def write(log: ManualWriter, *texts: bytes) -> None:
    for text in texts:
        log.out(text)
    log.write_waiting()


def test_filters_and_tail(tmp_path: Path) -> None:
    with manual_writer(tmp_path) as log:
        log.out(b"a")
        log.put(LogFile.EXEC, LogSource.STDERR, 2, b"b")
        log.put(LogFile.EXEC, LogSource.OUTPUT, 3, b"c")
        log.put(LogFile.EXEC, LogSource.SYSTEM, None, b"mark")
        log.put(LogFile.RUNTIME, LogSource.SYSTEM, None, b"runtime")
        log.kernel(b"kernel")
        log.out(b"d")
    assert data_of(read_logs(tmp_path, Query.of())) == [b"a", b"b", b"c", b"d"]
    everything = read_logs(tmp_path, ALL)
    assert data_of(everything) == [b"a", b"b", b"c", b"mark", b"runtime", b"kernel", b"d"]
    assert data_of(read_logs(tmp_path, Query.of(["stderr", "output"]))) == [b"b", b"c"]
    assert data_of(read_logs(tmp_path, Query.of(["system"]), tail=2)) == [b"runtime", b"kernel"]
    assert data_of(read_logs(tmp_path, Query.of(), tail=3)) == [b"b", b"c", b"d"]
    assert read_logs(tmp_path, ALL, tail=0) == [] and read_logs(tmp_path, Query.of([])) == []
    assert read_logs(tmp_path, ALL, tail=100) == everything
    since, until = everything[1].timestamp_ms, everything[5].timestamp_ms
    between = Query.of(["all"], since, until)
    assert read_logs(tmp_path, between) == everything[1:5]
    assert read_logs(tmp_path, between, tail=2) == everything[3:5]
    assert read_logs(tmp_path, Query.of(["all"], from_cursor=everything[4].cursor)) == everything[5:]


def test_no_logs_at_all(tmp_path: Path) -> None:
    assert read_logs(tmp_path, ALL) == [] and read_logs(tmp_path / "nowhere", ALL, tail=5) == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"sources": "all"}, TypeError),
        ({"sources": ["stdin"]}, ValueError),
        ({"since_ms": "yesterday"}, TypeError),
        ({"since_ms": True}, TypeError),
        ({"until_ms": math.nan}, ValueError),
        ({"from_cursor": "x"}, ValueError),
        ({"from_cursor": ""}, ValueError),
        ({"from_cursor": "9" * 40}, ValueError),
        ({"from_cursor": 5}, TypeError),
        ({"from_cursor": "5", "since_ms": 5.0}, ValueError),
    ],
)
def test_wrong_questions(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        Query.of(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("since", [-math.inf, -5.0, math.inf, 1e300])
def test_times_without_bounds(tmp_path: Path, since: float) -> None:
    with manual_writer(tmp_path) as log:
        write(log, b"a")
    assert data_of(read_logs(tmp_path, Query.of(since_ms=since))) == ([b"a"] if since < 0 else [])
    assert data_of(read_logs(tmp_path, Query.of(since_ms=since), tail=1)) == ([b"a"] if since < 0 else [])


def test_damage_costs_the_lines_that_it_is_in(tmp_path: Path) -> None:
    with manual_writer(tmp_path) as log:
        write(log, b"a", b"b", b"c")
    path = tmp_path / "exec.log"
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"\0\n" + first + b"x" * (2 * MAX_LINE) + b"\n" + second[:20] + b"\n" + third + b'{"t":9')
    assert data_of(read_logs(tmp_path, ALL)) == [b"a", b"c"] == data_of(read_logs(tmp_path, ALL, tail=9))


PIECES = st.lists(st.tuples(st.sampled_from(LogFile), st.binary(max_size=30)), max_size=40)


@given(pieces=PIECES, limit=st.integers(60, 600), block=st.integers(1, 400), tail=st.integers(0, 50))
@settings(max_examples=60)
def test_from_the_front_and_from_the_end_it_is_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    pieces: list[tuple[LogFile, bytes]],
    limit: int,
    block: int,
    tail: int,
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    with manual_writer(folder, limit=limit, kept=60) as log:
        for file, data in pieces:
            log.put(file, LogSource.SYSTEM, None, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", block)
        forwards = read_logs(folder, ALL)
        assert data_of(forwards) == [data for _, data in pieces]
        assert read_logs(folder, ALL, tail) == (forwards[-tail:] if tail else [])
        for entry in forwards[::7]:
            assert read_logs(folder, Query.of(["all"], from_cursor=entry.cursor)) == [
                other for other in forwards if other.timestamp_ms > entry.timestamp_ms
            ]


ACTIONS = st.lists(st.sampled_from(["exec", "kernel", "write", "read"]), max_size=60)


@given(actions=ACTIONS)
@settings(max_examples=60)
def test_a_reader_that_keeps_up_sees_everything_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, actions: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    reader, seen, put = LogReader(folder, ALL), list[bytes](), list[bytes]()
    with manual_writer(folder, limit=200, kept=60) as log:
        for action in actions:
            if action == "read":
                seen += rest_of(reader)
            elif action == "write":
                log.write_waiting()
            else:
                put.append(b"%d" % len(put))
                (log.out if action == "exec" else log.kernel)(put[-1])
    seen += rest_of(reader)
    reader.close()
    assert seen == put


def test_what_a_reader_holds_open_is_not_lost_to_it(tmp_path: Path) -> None:
    with manual_writer(tmp_path, limit=100, kept=1) as log:
        write(log, b"1")
        reader = LogReader(tmp_path, Query.of())
        assert reader.next() is not None
        write(log, b"2")
        write(log, b"3")  # what "1" and "2" are in is removed by now, or set aside
        assert rest_of(reader) == [b"2", b"3"]
        reader.close()


def test_what_was_removed_before_it_was_read_is_told_once(tmp_path: Path) -> None:
    with manual_writer(tmp_path, limit=60, kept=1) as log:
        write(log, b"1")
        reader = LogReader(tmp_path, Query.of())
        first = reader.next()
        assert first is not None
        for text in (b"2", b"3", b"4", b"5"):
            write(log, text)
        with pytest.raises(MissedLogsError) as caught:
            reader.next()
        assert caught.value.cursor == first.cursor
        assert rest_of(reader) == [b"4", b"5"]
        reader.close()
        with pytest.raises(MissedLogsError):
            read_logs(tmp_path, Query.of(from_cursor=first.cursor))
        assert data_of(read_logs(tmp_path, Query.of(from_cursor=caught.value.resume_cursor))) == [b"4", b"5"]
        assert data_of(read_logs(tmp_path, Query.of())) == [b"4", b"5"]


def test_a_cursor_survives_rotation_and_restart(tmp_path: Path) -> None:
    with manual_writer(tmp_path, limit=150) as log:
        write(log, b"1", b"2")
    cursor = read_logs(tmp_path, Query.of())[-1].cursor
    with manual_writer(tmp_path, limit=150) as log:
        write(log, b"3", b"4", b"5")
    assert data_of(read_logs(tmp_path, Query.of(from_cursor=cursor))) == [b"3", b"4", b"5"]


def test_an_older_entry_that_came_into_another_file_meanwhile_is_not_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer writes kernel.log, then exec.log; the reader looked at kernel.log just before that."""
    with manual_writer(tmp_path) as log:
        log.out(b"begin")
        log.kernel(b"begin")
        log.write_waiting()
        reader = LogReader(tmp_path, ALL)
        assert rest_of(reader) == [b"begin", b"begin"]
        peek = forward.FileReader.peek
        looked: list[str] = []

        def racing(file: forward.FileReader) -> LogEntry | None:
            if file.name == LogFile.KERNEL and not looked:
                looked.append(file.name)
                found = peek(file)
                log.kernel(b"older")
                log.out(b"newer")
                log.write_waiting()
                return found
            return peek(file)

        monkeypatch.setattr(forward.FileReader, "peek", racing)
        monkeypatch.setattr(reader, "_files", list(reversed(reader._files)))
        assert rest_of(reader) == [b"older", b"newer"]
        reader.close()


def test_tail_of_a_large_log_reads_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = encode_line(5, LogSource.STDOUT, 1, b"z" * 1000)
    (tmp_path / "exec.log").write_bytes(line * 9000)
    read = 0
    pread = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        nonlocal read
        found = pread(descriptor, size, offset)
        read += len(found)
        return found

    monkeypatch.setattr(os, "pread", counted)
    assert len(read_logs(tmp_path, Query.of(), tail=10)) == 10
    assert read <= 3 * lines.BLOCK


def test_early_files_are_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with manual_writer(tmp_path, limit=200) as log:
        write(log, *(b"%d" % number for number in range(12)))
    everything = read_logs(tmp_path, Query.of())
    decoded: list[bytes] = []

    def counted(line: bytes) -> LogEntry | None:
        decoded.append(line)
        return decode_line(line)

    monkeypatch.setattr(forward, "decode_line", counted)
    assert read_logs(tmp_path, Query.of(since_ms=everything[-1].timestamp_ms)) == everything[-1:]
    assert len(decoded) < len(everything) / 2
