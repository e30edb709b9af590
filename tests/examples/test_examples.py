"""The examples, run as their readers run them, on real machines."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from examples import code_interpreter
from examples.code_interpreter import run_code
from tests.real.conftest import first_use, home
from tests.real.traces import machines
from trio_sandbox import Home, Sandbox, open_sandbox

__all__ = ["first_use", "home"]

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

pytestmark = pytest.mark.vm


def said(example: str) -> str:
    """What an example prints that ends well."""
    argv = [sys.executable, f"examples/{example}.py"]
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def names() -> set[str]:
    return {handle.name for handle in await Sandbox.list()}


@pytest.fixture(autouse=True)
def nothing_left(home: Home) -> Iterator[None]:
    """Every sandbox of an example goes with it."""
    before, machines_before = trio.run(names), machines(home)
    yield
    assert trio.run(names) <= before
    assert machines(home) <= machines_before


# -- the code interpreter


def test_the_interpreter_answers() -> None:
    text = said("code_interpreter")
    assert ">>> print(sum(range(101)))\n5050\n" in text
    assert "[even.txt] 0 2 4 6 8" in text and "\n48\n" in text
    assert "stopped: it did not end within 1 s" in text and "PermissionError" in text


@pytest.fixture
async def interpreter() -> AsyncIterator[Sandbox]:
    async with open_sandbox("interpreter", image="local/base") as sandbox:
        await code_interpreter.prepare(sandbox)
        yield sandbox


@pytest.mark.anyio
async def test_an_answer_is_bounded_whatever_the_program_does(interpreter: Sandbox) -> None:
    flood = await run_code(interpreter, "import sys; sys.stdout.write('x' * 1_000_000)")
    assert flood.success and len(flood.text) < 2 * code_interpreter.KEPT + 100
    many = await run_code(interpreter, "for n in range(30): open(f'f{n}', 'w').write('x')")
    assert (len(many.files), many.left_out) == (code_interpreter.MOST_FILES, 30 - code_interpreter.MOST_FILES)
    large = await run_code(interpreter, "open('large', 'wb').truncate(1 << 21)")
    assert (large.files, large.left_out) == ({}, 1)
    link = await run_code(interpreter, "import os; os.symlink('/etc/passwd', 'link')")
    assert (link.success, link.files) == (True, {})
    assert not (await run_code(interpreter, "import os\nwhile True: os.fork()", timeout=5.0)).success
    assert (await run_code(interpreter, "print('still here')")).text == "still here\n"


# -- the rotation


def test_no_job_is_lost_by_a_rotation_also_after_a_run_that_was_killed() -> None:
    argv = [sys.executable, "-u", "examples/rotation.py"]
    with subprocess.Popen(argv, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "JOB 1 from shout-1\n"
        killed.kill()
    *jobs, last = said("rotation").splitlines()
    assert last == "9 jobs done, none lost"
    by_worker = [job.partition(" from ") for job in jobs]
    assert sorted(job for job, _, _ in by_worker) == [f"JOB {number}{also}" for number in "123" for also in ("", *"AB")]
    workers = {worker for _, _, worker in by_worker}
    assert len(workers) == 3 and "shout-1" not in workers


# -- forks


def test_each_request_has_a_fork_that_has_answered_nobody() -> None:
    words = [("otter", "found"), ("sloth", "not found"), ("otter", "found")]
    answers = [f'"{word}": {found}, request 1 of this process' for word, found in words]
    assert said("fork_per_request").splitlines() == ["prepared once", *answers]


# -- the web service


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A web service that listens; Ctrl-C ends it."""
    argv = [sys.executable, "examples/web_service.py", "--port", "0", "--backend", request.param]
    with subprocess.Popen(argv, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            yield int(service.stdout.readline().rpartition(":")[2])
            service.send_signal(signal.SIGINT)
            assert service.wait(timeout=30) == 0
        finally:
            service.kill()


def ask(port: int, body: bytes, target: str = "/") -> tuple[int, dict[str, object]]:
    """Send a request as any client does."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        client.request("POST", target, body)
        response = client.getresponse()
        return response.status, json.loads(response.read())
    finally:
        client.close()


def first_line(port: int, request: bytes) -> bytes:
    """What a client is told that sends anything."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client, client.makefile("rb") as reply:
        client.sendall(request)
        return reply.readline()


def test_the_web_service_runs_programs(port: int) -> None:
    assert ask(port, b"print(6 * 7)") == (200, {"output": "42\n", "exit_code": 0})
    status, answer = ask(port, b"import os; print(os.getuid()); raise SystemExit(3)")
    assert (status, answer["exit_code"]) == (200, 3) and answer["output"] != "0\n"


def test_the_web_service_refuses(port: int) -> None:
    assert ask(port, b"", "/other")[0] == 400
    assert ask(port, b"#" * (1 << 17))[0] == 413
    assert first_line(port, b"no HTTP\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert first_line(port, b"POST / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 411 ")
    assert first_line(port, b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n").startswith(b"HTTP/1.1 411 ")
    assert first_line(port, b"x" * (1 << 15)).startswith(b"HTTP/1.1 431 ")


def test_a_client_that_goes_away_takes_its_sandbox_along(port: int) -> None:
    async def watch() -> None:
        body = b"import time; time.sleep(1000)"
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            with trio.fail_after(60):
                while not any(name.startswith("web-") for name in await names()):
                    await trio.sleep(0.02)
        with trio.fail_after(9):  # before the service itself would stop it
            while any(name.startswith("web-") for name in await names()):
                await trio.sleep(0.02)

    trio.run(watch)
