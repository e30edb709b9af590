"""Sandboxes by name from the command line, with real machines: their life, their programs, their files."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.cli.commands import on_terminal, run, said
from tests.client.ptys import person
from trio_sandbox import Home

from .traces import leaving_nothing

pytestmark = pytest.mark.anyio

PATIENCE = 120


@asynccontextmanager
async def created(name: str, *options: str) -> AsyncIterator[str]:
    """A sandbox of the command line, removed in any case."""
    with trio.fail_after(PATIENCE):
        assert await said("create", name, "--image", "local/base", *options) == f"{name}\n"
        try:
            yield name
        finally:
            with trio.CancelScope(shield=True):
                await run("rm", "-f", name)


async def status_of(name: str) -> str:
    """As `inspect` tells it."""
    (found,) = json.loads(await said("inspect", name))
    return str(found["status"])


async def test_a_life(home: Home) -> None:
    with leaving_nothing(home):
        async with created("cli-life", "-l", "of=cli", "-e", "PLACE=here") as name:
            assert await said("ls", "-q", "--label", "of=cli") == "cli-life\n"
            assert (await run("create", name, "--image", "local/base")).returncode == 1
            assert await said("exec", name, "sh", "-c", "echo $PLACE > /kept; cat /kept") == "here\n"
            await said("pause", name)
            assert await status_of(name) == "paused"
            done = await run("exec", name, "true")
            assert (done.returncode, b"resume it first" in done.stderr) == (125, True)
            await said("resume", name)
            assert json.loads(await said("metrics", "--json", name))["memory_limit_bytes"] == 512 << 20
            assert (await run("rm", name)).returncode == 1
            await said("stop", name)
            assert await said("ls", "-q") == "" and await said("ls", "-aq") == "cli-life\n"
            assert (await run("exec", name, "true")).returncode == 125
            await said("start", name)
            assert await said("exec", name, "cat", "/kept") == "here\n"
            await said("restart", "-t", "5", name)
            assert await said("drain", "--wait", name) == "cli-life\n"
            assert await said("wait", name) == "0\n"
            (found,) = json.loads(await said("inspect", name))
            assert [run["reason"] for run in found["runs"]] == ["requested", "requested", "drained"]
            assert await said("rm", name) == "cli-life\n"
            assert (await run("rm", name)).returncode == 1


async def test_forks(home: Home) -> None:
    with leaving_nothing(home):
        async with created("cli-parent") as name:
            await said("exec", name, "sh", "-c", "echo prepared > /dev/shm/state")
            try:
                assert await said("fork", name, "cli-one", "-l", "of=forks") == "cli-one\n"
                two = json.loads(await said("fork", name, "-n", "2", "--json", "-l", "of=forks"))
                for child in ("cli-one", *two):
                    assert await said("exec", child, "cat", "/dev/shm/state") == "prepared\n"
                assert set((await said("ls", "-q", "--label", "of=forks")).split()) == {"cli-one", *two}
                again = await run("fork", name, "cli-one")
                assert (again.returncode, b"exists already" in again.stderr) == (1, True)
                assert (await run("fork", name, "a", "b", "-n", "3")).returncode == 2
            finally:
                with trio.CancelScope(shield=True):
                    await run("rm", "-f", *(await said("ls", "-aq", "--label", "of=forks")).split())


async def test_programs(home: Home, tmp_path: Path) -> None:
    with leaving_nothing(home):
        async with created("cli-programs", "--rm") as name:
            await exit_codes(name)
            await much_through_a_pipe(name)
            await terminals(name)
            await files(name, tmp_path)
            assert (await run("logs", name)).stdout.startswith(b"out\n")


async def exit_codes(name: str) -> None:
    done = await run("exec", name, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    for words, code in (
        (("no-such-program",), 127),
        (("/etc/passwd",), 126),
        (("sh", "-c", "kill -KILL $$"), 137),
    ):
        assert (await run("exec", name, "--", *words)).returncode == code
    assert (await run("exec", "--timeout", "0.3", name, "sleep", "1000")).returncode == 124
    assert (await run("shell", name, stdin=b"exit 3\n")).returncode == 3


async def much_through_a_pipe(name: str) -> None:
    blob = os.urandom(1 << 20)
    assert (await run("exec", "-i", name, "cat", stdin=blob)).stdout == blob


async def terminals(name: str) -> None:
    with person(30, 100) as somebody:
        async with on_terminal(somebody, "exec", "-it", name, "sh"):
            somebody.type(b"stty size; x=ke''pt\r")
            await somebody.wait_to_see(b"30 100\r\n")
            somebody.type(b"\x1d")
            await somebody.wait_to_see(b"[detached from session")
        assert not somebody.is_raw()
        async with on_terminal(somebody, "attach", name, status=9):
            while not somebody.is_raw():
                await trio.sleep(0.01)
            somebody.type(b"echo $x; exit 9\r")
            await somebody.wait_to_see(b"kept\r\n")
        async with on_terminal(somebody, "shell", name, status=4):
            somebody.type(b"exit 4\r")
    assert await said("sessions", "-q", name) == ""


async def files(name: str, tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "note").write_text("text")
    await said("cp", str(tmp_path / "tree"), f"{name}:/root/")
    assert await said("exec", name, "cat", "/root/tree/sub/note") == "text"
    await said("cp", f"{name}:/root/tree", str(tmp_path / "back"))
    assert (tmp_path / "back" / "sub" / "note").read_text() == "text"


async def test_one_shot_on_a_terminal(home: Home) -> None:
    with leaving_nothing(home), trio.fail_after(PATIENCE), person(30, 100) as somebody:
        async with on_terminal(somebody, "run", "-it", "local/base", status=6):
            while not somebody.is_raw():
                await trio.sleep(0.01)
            somebody.type(b"stty size; exit 6\r")
            await somebody.wait_to_see(b"30 100\r\n")
        assert not somebody.is_raw()
