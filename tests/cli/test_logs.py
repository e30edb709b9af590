"""`logs`: which lines, with which times, on which stream."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import pytest

from trio_sandbox.cli.logs import Printer, as_line, last_lines, moment, when
from trio_sandbox.cli.program import run
from trio_sandbox.home import Home
from trio_sandbox.lifecycle import End, EndReason, State
from trio_sandbox.logs.entry import LogEntry, LogSource
from trio_sandbox.state.owner import Owner
from trio_sandbox.state.places import folder_of, store_of
from trio_sandbox.state.rows import SandboxRow


def entry(data: bytes, source: LogSource = LogSource.STDOUT, session: int = 1) -> LogEntry:
    return LogEntry(1_700_000_000_123.456, source, session, data, "cursor")


@pytest.mark.parametrize("pieces", [[b"a\nb\nc\n"], [b"a", b"\n", b"b\nc", b"\n"], [b"a\nb", b"\nc\n"]])
@pytest.mark.parametrize(
    ("count", "text"), [(0, b""), (1, b"c\n"), (2, b"b\nc\n"), (3, b"a\nb\nc\n"), (9, b"a\nb\nc\n")]
)
def test_the_last_lines(pieces: list[bytes], count: int, text: bytes) -> None:
    assert b"".join(found.data for found in last_lines([entry(piece) for piece in pieces], count)) == text


@pytest.mark.parametrize(("count", "text"), [(0, b""), (1, b"c"), (2, b"b\nc"), (4, b"a\nb\nc")])
def test_a_last_line_without_end_is_one(count: int, text: bytes) -> None:
    found = last_lines([entry(b"a\nb"), entry(b"\nc")], count)
    assert b"".join(piece.data for piece in found) == text


@pytest.mark.parametrize(("text", "ago"), [("10s", 10), ("1h30m", 5400), ("1.5d", 129_600)])
def test_lengths_of_time(text: str, ago: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    assert moment(text) == (1_000_000 - ago) * 1000


def test_moments() -> None:
    assert moment("1700000000.5") == 1_700_000_000_500
    assert moment("2023-11-14T22:13:20Z") == 1_700_000_000_000
    assert when("--since", None) is None
    with pytest.raises(click.UsageError, match="--since"):
        when("--since", "yesterday")


def test_the_time_stands_before_each_line_once(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    printer = Printer(timestamps=True)
    for piece in (entry(b"a\nb"), entry(b"e\n", LogSource.STDERR), entry(b"c\nd\n")):
        printer.show(piece)
    out, err = capfdbinary.readouterr()
    stamp = b"2023-11-14T22:13:20.123456Z "
    assert out == stamp + b"a\n" + stamp + b"bc\n" + stamp + b"d\n"
    assert err == stamp + b"e\n"


@pytest.mark.parametrize(("data", "key", "value"), [(b"\xc3\xa9\n", "text", "é\n"), (b"\xff", "base64", "/w==")])
def test_a_piece_as_json(data: bytes, key: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    as_line(entry(data))
    found = json.loads(capsys.readouterr().out)
    assert found == {"timestamp_ms": 1_700_000_000_123.456, "source": "stdout", "session_id": 1, key: value}


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox `box` that has stopped, and nothing in its logs."""
    monkeypatch.setenv("TRIO_SANDBOX_HOME", str(tmp_path))
    home = Home(tmp_path)
    store_of(home).add(SandboxRow("box", '{"name": "box", "image": "i"}', State.CREATING, 1, 1, owner=Owner.current()))
    store_of(home).begin_run("box")
    store_of(home).end_run("box", End(EndReason.REQUESTED, 0))
    folder_of(home, "box").mkdir(parents=True)


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["box"], 0),
        (["--tail", "3", "box"], 0),
        (["-f", "--tail", "3", "--source", "all", "box"], 0),
        (["--tail", "x", "box"], 2),
        (["--source", "x", "box"], 2),
        (["bax"], 1),
    ],
)
def test_of_a_sandbox_that_has_ended(words: list[str], status: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["logs", *words]) == status
    assert capfd.readouterr().out == ""
