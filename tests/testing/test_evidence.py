"""What a failed test shows of a sandbox, from log files as they can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_sandbox.logs.entry import LogSource, encode_line
from trio_sandbox.testing.evidence import MAX_ENTRIES, MAX_TEXT, Evidence


def write(path: Path, *pieces: bytes, source: LogSource = LogSource.STDOUT) -> None:
    path.write_bytes(b"".join(encode_line(1000 + number, source, 1, piece) for number, piece in enumerate(pieces)))


def evidence(logs: Path | None, console: str = "") -> Evidence:
    return Evidence.of("box", logs, lambda: console)


def shown(logs: Path) -> tuple[tuple[str, str], ...]:
    seen = evidence(logs)
    seen.keep()
    return seen.sections()


def test_sections_have_the_lines_with_their_sources_and_nothing_that_steers_a_terminal(tmp_path: Path) -> None:
    write(tmp_path / "exec.log", b"one\ntwo\r\n", b"\x1b[2J\ttab\n")
    write(tmp_path / "kernel.log", b"murmur\n", source=LogSource.SYSTEM)
    assert shown(tmp_path) == (
        ("sandbox box: log", "stdout | one\nstdout | two\nstdout | \\x1b[2J\ttab\n"),
        ("sandbox box: console", "system | murmur\n"),
    )


def test_the_newest_is_shown_and_no_more_than_there_is_room_for(tmp_path: Path) -> None:
    write(tmp_path / "exec.log", *(b"%d\n" % number for number in range(1000)))
    ((_, text),) = shown(tmp_path)
    assert text.splitlines() == [f"stdout | {number}" for number in range(1000 - MAX_ENTRIES, 1000)]
    write(tmp_path / "exec.log", b"first\n", b"x" * 60_000 + b"END\n")
    ((_, text),) = shown(tmp_path)
    assert len(text) == MAX_TEXT and text.endswith("END\n")


def test_what_was_removed_meanwhile_is_shown_and_what_was_set_aside_too(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    write(logs / "exec.log", b"early\n")
    seen = evidence(logs, "the end")
    (logs / "exec.log").rename(logs / "exec.log.1")
    write(logs / "exec.log", b"late\n")
    assert seen.sections() == (
        ("sandbox box: log", "stdout | early\nstdout | late\n"),
        ("sandbox box: console", "the end"),
    )
    for path in logs.iterdir():
        path.unlink()
    logs.rmdir()
    expected = (("sandbox box: log", "stdout | early\n"), ("sandbox box: console", "the end"))
    assert seen.sections() == expected
    seen.keep()
    seen.keep()
    assert seen.sections() == expected


@pytest.mark.parametrize("logs", [None, Path("/nowhere")])
def test_a_sandbox_without_logs_has_nothing_to_show(logs: Path | None) -> None:
    seen = evidence(logs)
    seen.keep()
    assert seen.sections() == ()
