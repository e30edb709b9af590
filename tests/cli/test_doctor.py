"""What `trio-sandbox doctor` prints, and its exit status."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from trio_sandbox.cli.doctor import as_document, as_text, doctor
from trio_sandbox.home import Home
from trio_sandbox.host.checks import Finding

GOOD = Finding("QEMU", "ok", "7.2 at /usr/bin/qemu")
BAD = Finding("kernel", "failed", "no guest kernel has been fetched", "run `trio-sandbox setup`")
NOTE = Finding("networking", "note", "not built yet")


def show(
    monkeypatch: pytest.MonkeyPatch, *findings: Finding, arguments: tuple[str, ...] = ()
) -> tuple[object, str, list[bool]]:
    asked: list[bool] = []

    async def examine(home: Home, *, reprobe: bool) -> list[Finding]:
        asked.append(reprobe)
        return list(findings)

    monkeypatch.setattr("trio_sandbox.host.checks.examine", examine)
    result = CliRunner().invoke(doctor, arguments, standalone_mode=False)
    assert result.exception is None
    return result.return_value, result.output, asked


def test_ready_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert show(monkeypatch, GOOD, NOTE)[0] == 0


def test_not_ready_is_1_with_a_remedy_below_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    status, output, asked = show(monkeypatch, GOOD, BAD)
    assert status == 1
    assert output.splitlines() == [
        "QEMU    ok      7.2 at /usr/bin/qemu",
        "kernel  FAILED  no guest kernel has been fetched",
        "                → run `trio-sandbox setup`",
    ]
    assert asked == [False]


def test_reprobe_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert show(monkeypatch, GOOD, arguments=("--reprobe",))[2] == [True]


def test_json(monkeypatch: pytest.MonkeyPatch) -> None:
    status, output, _ = show(monkeypatch, GOOD, BAD, NOTE, arguments=("--json",))
    assert status == 1
    assert json.loads(output) == {
        "ready": False,
        "findings": [
            {"component": "QEMU", "status": "ok", "detail": "7.2 at /usr/bin/qemu", "remedy": ""},
            {"component": "kernel", "status": "failed", "detail": BAD.detail, "remedy": BAD.remedy},
            {"component": "networking", "status": "note", "detail": "not built yet", "remedy": ""},
        ],
    }
    assert json.loads(as_document([GOOD], ready=True))["ready"] is True


def test_text_is_never_cut() -> None:
    long = Finding("kernel", "ok", "x" * 500)
    assert "x" * 500 in as_text([long])


def test_a_table_on_a_terminal(tmp_path: Path) -> None:
    """A real terminal, a fresh data folder: a table with marks, and exit status 1."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TRIO_SANDBOX_HOME": str(tmp_path), "TERM": "xterm", "COLUMNS": "100"}
    argv = [sys.executable, "-m", "trio_sandbox", "doctor"]
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 65_536)
        except OSError:  # Linux's way of saying that the far end of a terminal is closed
            break
    os.close(ours)
    assert process.wait() == 1
    assert b"what was found" in seen
    assert b"FAILED" in seen
    assert b"\x1b[" in seen, "colours"
