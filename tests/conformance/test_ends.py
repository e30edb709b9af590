"""How a sandbox ends, and what it is no longer good for on the way. Each test has its own."""

from __future__ import annotations

import signal

import pytest
import trio

from tests.conformance import scripts
from tests.conformance.conftest import Open
from trio_sandbox import (
    ExecEventType,
    ExecHandle,
    Sandbox,
    SandboxDrainingError,
    SandboxNotRunningError,
    SandboxPausedError,
)

pytestmark = pytest.mark.anyio


async def _ready(handle: ExecHandle) -> None:
    async for event in handle:
        if event.event_type is ExecEventType.STDOUT:
            assert event.data == b"ready\n"
            return


async def test_stop_ends_programs_in_order(opened: Open) -> None:
    async with opened() as sandbox, await sandbox.shell_stream(scripts.TRAPS_TERM) as handle:
        await _ready(handle)
        await sandbox.stop()
        output = await handle.collect()
        assert (output.exit_code, output.stdout_text) == (3, "caught\n")
        assert await sandbox.wait() == (0, True)
        assert (await sandbox.end()).reason == "requested"
        await _is_over(sandbox)


async def test_stop_kills_what_does_not_end(opened: Open) -> None:
    async with opened() as sandbox, await sandbox.shell_stream(scripts.IGNORES_TERM) as handle:
        await _ready(handle)
        assert await sandbox.stop_and_wait() == (0, True)
        assert (await handle.collect()).signal == signal.SIGKILL


async def test_kill(opened: Open) -> None:
    async with opened() as sandbox, await sandbox.shell_stream(scripts.IGNORES_TERM) as handle:
        await _ready(handle)
        await sandbox.kill()
        assert await sandbox.wait() == (-9, False)
        assert (await sandbox.end()).reason == "killed"
        with pytest.raises(SandboxNotRunningError):
            await handle.collect()
        await _is_over(sandbox)


async def _is_over(sandbox: Sandbox) -> None:
    for call in (sandbox.exec("true"), sandbox.fs.read("/etc/hostname"), sandbox.ping(), sandbox.drain()):
        with pytest.raises(SandboxNotRunningError):
            await call
    await sandbox.stop()  # harmless
    await sandbox.kill()


async def test_drain_lets_the_open_finish_and_begins_nothing(opened: Open) -> None:
    async with opened() as sandbox, await sandbox.shell_stream(scripts.TRAPS_TERM) as handle:
        await _ready(handle)
        await sandbox.drain()
        for call in (sandbox.exec("true"), sandbox.fs.read("/etc/hostname"), sandbox.pause()):
            with pytest.raises(SandboxDrainingError):
                await call
        await handle.signal(signal.SIGTERM)
        assert (await handle.collect()).exit_code == 3
        assert await sandbox.wait() == (0, True)
        assert (await sandbox.end()).reason == "drained"


async def test_drain_with_a_deadline(opened: Open) -> None:
    async with opened() as sandbox, await sandbox.shell_stream(scripts.IGNORES_TERM) as handle:
        await _ready(handle)
        await sandbox.drain(0.5)
        assert await sandbox.wait() == (0, True)


async def test_pause_and_resume(opened: Open) -> None:
    async with opened() as sandbox, await sandbox.shell_stream(scripts.TRAPS_TERM) as handle:
        await _ready(handle)
        await sandbox.pause()
        for call in (sandbox.exec("true"), sandbox.fs.read("/etc/hostname")):
            with pytest.raises(SandboxPausedError):
                await call
        with trio.move_on_after(1) as nothing:
            await handle.recv()
        assert nothing.cancelled_caught
        await sandbox.pause()  # harmless
        await sandbox.resume()
        assert (await sandbox.exec("echo", ["on"])).stdout_text == "on\n"
        await handle.signal(signal.SIGTERM)
        assert (await handle.collect()).exit_code == 3


async def test_stop_of_a_paused_one(opened: Open) -> None:
    async with opened() as sandbox:
        await sandbox.pause()
        assert await sandbox.stop_and_wait() == (0, True)
