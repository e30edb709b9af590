"""msb-event: the program for those who speak no sockets."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.guest.agent_client import DEADLINE
from tests.guest.event_programs import PAYLOAD_MAX, Events, numbered


def test_the_command_emits(events: Events) -> None:
    session = events.subscribe()
    done = events.run("emit", "a", '{"b": 1}')
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    pretty = json.dumps({"c": [1, 2]}, indent=2).encode() + b"\n"
    assert events.run("emit", "d", "-", given=pretty).returncode == 0
    events.agent.barrier()
    first, second = events.output(session).splitlines()
    assert first == b'a {"b": 1}'
    assert json.loads(second.removeprefix(b"d ")) == {"c": [1, 2]}


@pytest.mark.parametrize(
    ("arguments", "given", "problem"),
    [
        (["emit", "a", "b"], b"", b"this is not JSON"),
        (["emit", "a", ""], b"", b"there is no value"),
        (["emit", "a b", "1"], b"", b"a name is"),
        (["emit", "a\nemit b", "1"], b"", b"a name is"),
        (["emit", "", "1"], b"", b"a name is"),
        (["emit", "a", "-"], b'"a\nb"', b"control character"),
        (["emit", "a", "-"], b"", b"there is no value"),
        (["emit", "a", "-"], b'"' + b"x" * PAYLOAD_MAX, b"longer than 64 KiB"),
        (["emit", "a", "-"], b"1" + b" " * 80_000, b"longer than 64 KiB"),
        (["listen", "a b"], b"", b"a name is"),
    ],
    ids=ascii,
)
def test_the_command_says_what_is_wrong(events: Events, arguments: list[str], given: bytes, problem: bytes) -> None:
    session = events.subscribe()
    done = events.run(*arguments, given=given)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"msb-event: ")
    assert problem in done.stderr
    events.agent.barrier()
    assert events.output(session) == b""


@pytest.mark.parametrize(
    "arguments",
    [[], ["emit"], ["emit", "a"], ["emit", "a", "1", "2"], ["listen", "a", "b"], ["listen", "--oldest"], ["hear"]],
)
def test_the_command_explains_itself(events: Events, arguments: list[str]) -> None:
    done = events.run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"usage: msb-event emit NAME JSON")
    asked = events.run("--help")
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, done.stderr, b"")


def test_the_command_needs_an_agent(events: Events, tmp_path: Path) -> None:
    for arguments in (["emit", "a", "1"], ["listen"]):
        done = events.run(*arguments, socket_path=tmp_path / "nothing")
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"No such file" in done.stderr
    done = events.run("listen", socket_path=tmp_path / ("x" * 200))
    assert b"too long" in done.stderr


def wait_for_listeners(events: Events, name: str, count: int) -> None:
    until = time.monotonic() + DEADLINE
    while events.reached(name) != count:
        assert time.monotonic() < until


@pytest.mark.parametrize("policy", [[], ["--newest"]])
def test_the_command_listens(events: Events, policy: list[str]) -> None:
    with events.running("listen", "newest", *policy) as process:
        assert process.stdout and process.stderr
        wait_for_listeners(events, "newest", 1)
        assert process.stdout.readline() == b"newest 1\n"
        assert events.reached("else") == 0
        large = b'"' + b"x" * (PAYLOAD_MAX - 2) + b'"'
        assert events.reached("newest", large) == 1
        assert process.stdout.readline() == b"newest " + large + b"\n"
        events.agent.end()
        assert process.stdout.read() == b""
        assert (process.wait(DEADLINE), process.stderr.read()) == (0, b"")


def test_the_command_ends_with_whoever_reads_it(events: Events) -> None:
    with events.running("listen") as process:
        assert process.stdout and process.stderr
        wait_for_listeners(events, "a", 1)
        assert process.stdout.readline() == b"a 1\n"
        process.stdout.close()
        assert (process.wait(DEADLINE), process.stderr.read()) == (0, b"")  # without an event that it could not write
    wait_for_listeners(events, "a", 0)


def test_the_command_tells_what_was_lost(events: Events) -> None:
    with events.running("listen") as process:
        assert process.stdout
        wait_for_listeners(events, "n", 1)
        process.send_signal(signal.SIGSTOP)
        total = 2_000
        for number in range(total):
            assert events.reached("n", numbered(number)[2:]) == 1
        process.send_signal(signal.SIGCONT)
        received, dropped = 0, 0
        assert process.stdout.readline() == b"n 1\n"
        while received + dropped < total:
            line = process.stdout.readline()
            dropped += int(line[2:]) if line.startswith(b"! ") else 0
            received += line.startswith(b"n ")
        assert line == numbered(total - 1) + b"\n"
        assert dropped > 0
