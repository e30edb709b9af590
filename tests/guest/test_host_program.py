"""The host helper: a launcher for programs that must not outlive their parent, and the rate of the TSC."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def host(programs: Path) -> str:
    return str(programs / "host")


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=30)


def launched(host: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return run(host, "launch", str(os.getpid()), "--", *argv)


def test_launch_runs_the_program(host: str) -> None:
    done = launched(host, "sh", "-c", "echo out; exit 5")
    assert (done.stdout, done.returncode) == ("out\n", 5)


def test_launch_prepares_the_process(host: str) -> None:
    status = dict(line.split(":\t", 1) for line in launched(host, "cat", "/proc/self/status").stdout.splitlines())
    assert status["NoNewPrivs"].strip() == "1"
    assert int(status["SigIgn"], 16) == int(status["SigBlk"], 16) == 0
    assert launched(host, "sh", "-c", "ulimit -c; ulimit -Hc").stdout == "0\n0\n"
    stat = launched(host, "cat", "/proc/self/stat").stdout.split()
    assert stat[0] == stat[4]  # its own process group


def test_launch_refuses_another_parent(host: str) -> None:
    done = run(host, "launch", "1" if os.getpid() != 1 else "2", "--", "echo", "started")
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize("arguments", [[], ["launch"], ["launch", "1"], ["launch", "1", "true"], ["other"]])
def test_usage(host: str, arguments: list[str]) -> None:
    done = run(host, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_launch_says_what_it_cannot_execute(host: str, tmp_path: Path) -> None:
    assert launched(host, "/no/such/program").returncode == 127
    done = launched(host, str(tmp_path))
    assert done.returncode == 126
    assert str(tmp_path) in done.stderr


def test_program_dies_with_its_parent(host: str) -> None:
    reader, writer = os.pipe()
    program = f"""
import os, subprocess, sys
subprocess.Popen([{host!r}, "launch", str(os.getpid()), "--", "sh", "-c", "echo started; exec sleep 1000"],
                 stdout={writer}, pass_fds=[{writer}])
sys.stdin.read()
"""
    parent = subprocess.Popen([sys.executable, "-S", "-c", program], stdin=subprocess.PIPE, pass_fds=[writer])
    os.close(writer)
    try:
        with open(reader) as output:
            assert output.readline() == "started\n"
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            assert output.read() == ""  # the end of file comes when nobody holds the pipe any more
    finally:
        parent.kill()
        parent.communicate()


def test_tsc_rate(host: str) -> None:
    rates = [int(run(host, "tsc-khz").stdout) for _ in range(2)]
    if platform.machine() not in ("x86_64", "i686"):
        assert rates == [0, 0]
    else:
        assert 100_000 < rates[0] < 20_000_000
        assert abs(rates[0] - rates[1]) / rates[0] < 0.01
