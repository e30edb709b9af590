"""Commands that reach into a sandbox, in front of a simulated guest: streams, exit codes, terminals, files, events."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.cli.commands import PROGRAM, environment, on_terminal, run, said
from tests.client.ptys import person
from trio_sandbox import Sandbox
from trio_sandbox.home import Home
from trio_sandbox.testing import Program, SimulatedGuest, simulated_sandbox

pytestmark = pytest.mark.anyio

PATIENCE = 60


async def both(program: Program) -> int:
    """Something to each stream, and an exit code."""
    await program.stdout.send("out\n")
    await program.stderr.send("err\n")
    return 7


async def ask(program: Program) -> int:
    """Answers each line that is typed with its own, until it is told to end."""
    await program.stdout.send("asking\n")
    async for piece in program.stdin:
        if b"end" in piece:
            return 4
        await program.stdout.send(b"heard " + piece.strip() + b"\n")
    return 5


async def emit(program: Program) -> int:
    """An event."""
    await program.emit("step", [1])
    return 0


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Sandbox]:
    guest = SimulatedGuest()
    guest.program("both")(both)
    guest.program("ask")(ask)
    guest.program("emit")(emit)
    listen = str(tmp_path / "box.sock")
    with trio.fail_after(PATIENCE):
        async with simulated_sandbox("box", guest, home=Home(tmp_path), listen=listen) as sandbox:
            yield sandbox


@pytest.mark.parametrize(
    ("words", "status", "stdout", "stderr"),
    [
        (("exec", "box", "both"), 7, b"out\n", b"err\n"),
        (("exec", "box", "no-such-program"), 127, b"", None),
        (("exec", "--timeout", "0.05", "box", "--", "sleep", "1000"), 124, b"", None),
        (("exec", "bix", "true"), 125, b"", b"trio-sandbox: there is no sandbox named 'bix'; did you mean 'box'?\n"),
        (("exec", "box"), 2, b"", None),
        (("exec", "-w", "/", "box", "-e", "A=1", "--", "echo", "-n", "--"), 0, b"-n --\n", b""),
        (("exec", "-t", "box", "echo", "x"), 0, b"x\r\n", b""),
        (("exec", "-w", "here", "box", "true"), 125, b"", b"trio-sandbox: cwd must be an absolute path, not 'here'\n"),
        (("attach", "box"), 125, b"", None),
        (("attach", "box", "99"), 125, b"", None),
        (("ls", "-q"), 0, b"box\n", b""),
        (("sessions", "-q", "box"), 0, b"", b""),
        (("emit", "box", "hello", '{"a": 1}'), 0, b"0\n", b""),
        (("emit", "box", "hello", "{"), 2, b"", None),
        (("emit", "box", "not a name"), 1, b"", None),
    ],
)
async def test_exit_codes_and_streams(
    box: Sandbox, tmp_path: Path, words: tuple[str, ...], status: int, stdout: bytes, stderr: bytes | None
) -> None:
    done = await run(*words, home=tmp_path)
    assert (done.returncode, done.stdout) == (status, stdout), done.stderr
    if stderr is not None:
        assert done.stderr == stderr
    else:
        assert done.stderr and b"Traceback" not in done.stderr


async def test_what_is_piped_in_comes_out(box: Sandbox, tmp_path: Path) -> None:
    blob = os.urandom(1 << 20)
    done = await run("exec", "-i", "box", "cat", home=tmp_path, stdin=blob)
    assert (done.returncode, done.stdout == blob, done.stderr) == (0, True, b"")


async def test_a_reader_that_goes_away_is_141(box: Sandbox, tmp_path: Path) -> None:
    argv = [*PROGRAM, "exec", "box", "yes"]
    reading, writing = os.pipe()
    process = await trio.lowlevel.open_process(
        argv, env=environment(tmp_path), stdin=subprocess.DEVNULL, stdout=writing
    )
    os.close(writing)
    await trio.lowlevel.wait_readable(reading)
    os.close(reading)
    assert await process.wait() == 141


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_the_program_too(box: Sandbox, tmp_path: Path, number: signal.Signals) -> None:
    reading, writing = os.pipe()
    argv = [*PROGRAM, "exec", "box", "ask"]
    process = await trio.lowlevel.open_process(argv, env=environment(tmp_path), stdin=subprocess.PIPE, stdout=writing)
    os.close(writing)
    await trio.lowlevel.wait_readable(reading)
    process.send_signal(number)
    assert await process.wait() == 128 + number
    assert process.stdin is not None
    await process.stdin.aclose()
    os.close(reading)


async def test_left_alone_and_come_back_to(box: Sandbox, tmp_path: Path) -> None:
    number = (await said("exec", "-di", "box", "ask", home=tmp_path)).strip()
    (session,) = json.loads(await said("sessions", "--json", "box", home=tmp_path))
    assert (str(session["id"]), session["tty"], session["attached"]) == (number, False, False)
    done = await run("attach", "-i", "box", number, home=tmp_path, stdin=b"end\n")
    assert (done.returncode, done.stdout) == (4, b"asking\n")
    assert (await run("exec", "-d", "box", "no-such-program", home=tmp_path)).returncode == 127


async def test_a_terminal_is_left_and_come_back_to(box: Sandbox, tmp_path: Path) -> None:
    with person() as somebody:
        async with on_terminal(somebody, "exec", "-it", "box", "ask", home=tmp_path):
            await somebody.wait_to_see(b"asking\r\n")
            somebody.type(b"one\r")
            await somebody.wait_to_see(b"heard one\r\n")
            assert somebody.is_raw()
            somebody.type(b"\x1d")
            await somebody.wait_to_see(b"[detached from session")
        assert not somebody.is_raw()
        async with on_terminal(somebody, "attach", "box", home=tmp_path, status=4):
            await somebody.wait_to_see(b"heard one\r\n")
            somebody.type(b"end\r")
        assert not somebody.is_raw()


async def test_a_terminal_is_itself_again_after_a_signal(box: Sandbox, tmp_path: Path) -> None:
    with person() as somebody:
        async with on_terminal(somebody, "exec", "-t", "box", "ask", home=tmp_path, status=143) as process:
            await somebody.wait_to_see(b"asking\r\n")
            process.terminate()
        assert not somebody.is_raw()


async def test_top_on_a_terminal(box: Sandbox, tmp_path: Path) -> None:
    with person(30, 120) as somebody:
        async with on_terminal(somebody, "top", home=tmp_path):
            await somebody.wait_to_see(b"box")
            await somebody.wait_to_see(b"q ends")
            somebody.type(b"q")
        assert somebody.look().endswith(b"\x1b[?25h") or b"\x1b[?1049l" in somebody.look()
        async with on_terminal(somebody, "top", home=tmp_path, status=130) as process:
            await somebody.wait_to_see(b"box")
            process.send_signal(signal.SIGINT)


async def test_events_are_lines_of_json(box: Sandbox, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    process = await trio.lowlevel.open_process(
        [*PROGRAM, "events", "box", "step"], env=environment(tmp_path), stdout=writing
    )
    os.close(writing)
    async with trio.open_nursery() as nursery:

        async def emit_until_heard() -> None:
            while True:
                await said("exec", "box", "emit", home=tmp_path)

        nursery.start_soon(emit_until_heard)
        await trio.lowlevel.wait_readable(reading)
        assert json.loads(os.read(reading, 4096).splitlines()[0]) == {"name": "step", "payload": [1], "dropped": 0}
        nursery.cancel_scope.cancel()
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130
    os.close(reading)


async def test_copies(box: Sandbox, tmp_path: Path) -> None:
    here = tmp_path / "tree"
    (here / "sub").mkdir(parents=True)
    (here / "sub" / "note").write_text("text")
    (here / "link").symlink_to("sub")
    await said("cp", "-r", str(here), "box:/copied", home=tmp_path)
    assert await box.fs.read_text("/copied/sub/note") == "text"
    back = tmp_path / "back"
    done = await run("cp", "box:/copied", str(back), home=tmp_path)
    assert (back / "sub" / "note").read_text() == "text" and not (back / "link").is_symlink()
    assert done.stderr == b"trio-sandbox: left out 1 symbolic link; --links brings them\n"
    await said("cp", "--links", "box:/copied/.", str(tmp_path / "again"), home=tmp_path)
    assert os.readlink(tmp_path / "again" / "link") == "sub"
    done = await run("cp", "box:/nothing", str(tmp_path), home=tmp_path)
    assert (done.returncode, done.stderr) == (1, b"trio-sandbox: '/nothing': No such file or directory\n")
