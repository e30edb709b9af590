"""`trio-sandbox run` as a user meets it: streams, exit codes, signals."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from trio_sandbox import Home

from ..processes import ended
from .traces import Traces, leaving_nothing, machines

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, "-m", "trio_sandbox", "run"]


def run(*words: str, stdin: bytes | int = subprocess.DEVNULL) -> subprocess.CompletedProcess[bytes]:
    """Run the program to its end."""
    if isinstance(stdin, bytes):
        return subprocess.run([*RUN, *words], capture_output=True, cwd=ROOT, input=stdin)
    return subprocess.run([*RUN, *words], capture_output=True, cwd=ROOT, stdin=stdin)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "echo out; echo err >&2; exit 7"], 7),
        (["no-such-program"], 127),
        (["/etc/passwd"], 126),
        (["sh", "-c", "kill -KILL $$"], 137),
    ],
)
def test_exit_codes_and_streams(home: Home, command: Sequence[str], code: int) -> None:
    with leaving_nothing(home):
        done = run("local/base", "--", *command)
    assert done.returncode == code, done.stderr
    if code == 7:
        assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    if code in (126, 127):
        assert done.stdout == b"" and done.stderr.startswith(b"trio-sandbox: ")


def test_stdin_is_passed_in_and_options_are_heeded() -> None:
    blob = os.urandom(700_000)
    assert run("local/base", "cat", stdin=blob).stdout == blob
    done = run("-e", "A=1", "-w", "/usr", "-u", "nobody", "local/base", "sh", "-c", "echo $A; pwd; id -un")
    assert done.stdout == b"1\n/usr\nnobody\n"


def test_the_sandboxs_own_failures_are_one_sentence_and_125() -> None:
    done = run("local/none", "true")
    assert done.returncode == 125
    assert done.stdout == b"" and done.stderr.count(b"\n") == 1 and b"local/none" in done.stderr
    assert run("--memory", "1", "local/base", "true").returncode == 125
    assert run().returncode == 2


def test_without_a_command_the_image_says_what_runs(tmp_path: Path) -> None:
    (tmp_path / "hi").write_text("echo hi $1")
    assert run("local/base", stdin=b"echo from the shell\nexit 3\n").stdout == b"from the shell\n"  # its command
    done = run("--entrypoint", "printf", "local/base", "%s,", "a", "b")
    assert (done.returncode, done.stdout) == (0, b"a,b,")
    assert run("--entrypoint", "", "local/base").stderr.endswith(b"names no command to run; name one\n")
    assert run("--script", f"hi={tmp_path / 'hi'}", "local/base", "hi", "you").stdout == b"hi you\n"
    assert run("--script", "hi", "local/base", "hi").returncode == 2
    assert run("--script", f"hi={tmp_path / 'none'}", "local/base", "hi").returncode == 2


def test_a_timeout_is_124() -> None:
    assert run("--timeout", "0.3", "local/base", "sleep", "1000").returncode == 124


def test_output_comes_as_it_is_written() -> None:
    argv = [*RUN, "local/base", "sh", "-c", "echo first; read line; echo $line"]
    with ended(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        process.stdin.write(b"second\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"second\n"
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_sandbox_and_leaves_nothing(home: Home, number: signal.Signals) -> None:
    with leaving_nothing(home):
        argv = [*RUN, "local/base", "sh", "-c", "echo up; sleep 1000"]
        with ended(subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            process.send_signal(number)
        assert process.returncode == 128 + number


def test_ctrl_c_on_a_terminal_while_booting(home: Home) -> None:
    before = Traces.take(home)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(RUN[0], [*RUN, "local/base", "true"])
    end = time.monotonic() + 60
    while machines(home) == set(before.machines):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130
    Traces.take(home).assert_equal(before)


def test_a_reader_that_goes_away_ends_the_sandbox(home: Home) -> None:
    with leaving_nothing(home):
        argv = [*RUN, "local/base", "yes"]
        with ended(subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"y\n"
            process.stdout.close()
            process.wait()
        assert process.returncode not in (0, None)
