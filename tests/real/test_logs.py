"""Logs of real machines: where each piece comes from, and that they outlive what they are about."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from trio_sandbox import LogEntry, LogSource, Sandbox, connect, open_sandbox
from trio_sandbox.home import Home

pytestmark = pytest.mark.anyio
BINARY = bytes(range(256))
PRINT = "echo out; echo err >&2; printf '%b' \"$0\""


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def sandbox(home: Home) -> AsyncIterator[Sandbox]:
    name = f"logs-{os.getpid()}"
    async with await Sandbox.create(name, image="local/base", home=home) as made:
        yield made


def joined(entries: list[LogEntry], source: LogSource) -> bytes:
    return b"".join(entry.data for entry in entries if entry.source is source)


async def run_programs(sandbox: Sandbox) -> None:
    escaped = "".join(f"\\0{byte:03o}" for byte in BINARY)
    await sandbox.exec("sh", ["-c", PRINT, escaped])
    await sandbox.exec("tty", tty=True)
    stream = await sandbox.log_stream(follow=True)
    async with stream:
        while (entry := await stream.recv()) is not None and not joined([entry], LogSource.OUTPUT).endswith(b"\n"):
            pass


def check_programs(entries: list[LogEntry]) -> None:
    assert joined(entries, LogSource.STDOUT) == b"out\n" + BINARY
    assert joined(entries, LogSource.STDERR) == b"err\n"
    assert joined(entries, LogSource.OUTPUT).startswith(b"/dev/pts/")
    times = [entry.timestamp_ms for entry in entries]
    assert times == sorted(set(times))


async def test_sources_and_bytes_while_it_runs_and_after_a_stop(sandbox: Sandbox, home: Home) -> None:
    await run_programs(sandbox)
    check_programs(await sandbox.logs())
    assert [entry.source for entry in await sandbox.logs(tail=1)] == [LogSource.OUTPUT]
    follower = await sandbox.log_stream(sources=["all"], follow=True)
    await sandbox.stop()
    followed = [entry async for entry in follower]
    handle = await Sandbox.get(await sandbox.name, home=home)
    entries = await handle.logs(sources=["all"])
    assert followed == entries
    check_programs(entries)
    marks = joined(entries, LogSource.SYSTEM)
    for mark in (b"sandbox created\n", b"sandbox ready\n", b"stopped: requested, exit code 0\n", b"is ready: assets"):
        assert mark in marks
    assert b"Power down" in marks  # of the guest's kernel


async def test_after_a_crash_and_from_another_process(sandbox: Sandbox, home: Home) -> None:
    await run_programs(sandbox)
    name = await sandbox.name
    vmm = vmm_of(name)
    os.kill(vmm, signal.SIGKILL)
    await sandbox.wait()
    code = f"""
import trio
from pathlib import Path
from trio_sandbox import Home, Sandbox
async def main():
    handle = await Sandbox.get({name!r}, home=Home(Path({os.fspath(home.root)!r})))
    await handle.wait_until_stopped()
    for entry in await handle.logs(sources=["all"]):
        print(entry.source, entry.data)
trio.run(main)
"""
    done = await anyio.run_process([sys.executable, "-c", code], stderr=subprocess.STDOUT)
    text = done.stdout.decode()
    assert "stderr b'err\\n'" in text and f"stdout {BINARY!r}" in text
    assert "crashed: vmm-exited" in text


def vmm_of(name: str) -> int:
    """The process of the sandbox's QEMU."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"qemu" in command.split(b"\0")[0] and name.encode() in command:
            return int(folder.name)
    raise AssertionError(f"there is no QEMU of {name}")


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_client_of_a_socket_and_a_quiet_sandbox(home: Home, tmp_path: Path) -> None:
    address = tmp_path / "quiet.sock"
    name = f"quiet-{os.getpid()}"
    async with open_sandbox(name, image="local/base", home=home, listen=address, quiet_logs=True) as sandbox:
        assert (await sandbox.shell("echo unheard")).success
        async with await connect(address) as client:
            entries = await client.logs(sources=["all"])
            assert [entry.source for entry in entries if entry.session_id is not None] == []
            assert b"sandbox ready" in joined(entries, LogSource.SYSTEM)
        assert await sandbox.logs() == []
        folder = home.root / "sandboxes" / name
        assert (folder / "logs" / "exec.log").exists()
    assert not folder.exists()
