"""Open and close, again and again: nothing is left, and the check for that can fail."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import trio

from trio_sandbox import Home, SandboxAlreadyExistsError, open_sandbox

from .traces import leaving_nothing

pytestmark = pytest.mark.anyio


async def cycles(home: Home, count: int, at_once: int, *, warm: bool = True) -> None:
    """Open `count` sandboxes, `at_once` at a time, run a program in each."""
    limit = trio.CapacityLimiter(at_once)

    async def one(number: int) -> None:
        async with limit, open_sandbox(f"cycle-{number}", image="local/base", memory=256, warm=warm) as sandbox:
            assert (await sandbox.exec("echo", [str(number)])).stdout_text == f"{number}\n"

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)


@pytest.mark.parametrize("warm", [True, False])
async def test_20_cycles_leave_nothing(home: Home, warm: bool) -> None:
    await trio.to_thread.run_sync(os.getpid)  # a worker thread's own wake-up descriptors stay, so begin with one
    await cycles(home, 2, 2)
    with leaving_nothing(home):
        await cycles(home, 20, 2, warm=warm)


@pytest.mark.soak
async def test_200_cycles_leave_nothing(home: Home) -> None:
    await cycles(home, 2, 2)
    with leaving_nothing(home):
        for _ in range(10):
            await cycles(home, 10, 2)
            await cycles(home, 10, 2, warm=False)


@pytest.mark.soak
@pytest.mark.parametrize("warm", [True, False])
async def test_300_starts_without_a_hang(home: Home, caplog: pytest.LogCaptureFixture, warm: bool) -> None:
    await cycles(home, 2, 2)
    with leaving_nothing(home):
        for _ in range(3):
            await cycles(home, 100, 2, warm=warm)
    assert "no sign of life" not in caplog.text  # a boot that had to be tried again
    assert "did not start" not in caplog.text  # a clone that did


def test_the_leak_check_can_fail(home: Home, tmp_path: Path) -> None:
    with pytest.raises(AssertionError), leaving_nothing(home):
        descriptor = os.open(tmp_path, os.O_RDONLY)
    os.close(descriptor)
    process = None
    with pytest.raises(AssertionError), leaving_nothing(home):
        process = subprocess.Popen(["sleep", "1000"])
    assert process is not None
    process.kill()
    process.wait()
    left = home.scratch / "left-behind"
    with pytest.raises(AssertionError), leaving_nothing(home):
        left.touch()
    left.unlink()


async def test_a_name_is_free_again_when_its_sandbox_is_gone(home: Home) -> None:
    async with open_sandbox("twin", image="local/base"):
        with pytest.raises(SandboxAlreadyExistsError, match="twin"):
            async with open_sandbox("twin", image="local/base"):
                raise AssertionError("not reached")
    async with open_sandbox("twin", image="local/base"):
        pass


async def test_cancel_at_any_moment_leaves_nothing(home: Home) -> None:
    """From before the first step to well after the boot."""
    await cycles(home, 1, 1)
    with leaving_nothing(home):
        for tenths in (0, 0.005, 0.01, 0.02, 0.05, 0.3, 1.0, 2.0, 3.5):
            with trio.move_on_after(tenths):
                async with open_sandbox("cancelled", image="local/base") as sandbox:
                    await sandbox.shell("while :; do :; done")
