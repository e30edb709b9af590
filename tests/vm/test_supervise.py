"""The VMM's supervisor with real processes that stand in for QEMU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_sandbox.binaries import host_program_path
from trio_sandbox.errors import BootError
from trio_sandbox.service import service
from trio_sandbox.vm import running
from trio_sandbox.vm.console import TAIL_SIZE, ConsoleLog
from trio_sandbox.vm.supervise import Build, Machine, supervise_vmm

from ..processes import children, ended
from .fake_vmm import LAST, SIGN, alive, descriptors, fake_vmm, pids

pytestmark = pytest.mark.anyio
LAUNCHER = host_program_path()


async def gone(pid: int, within: float = 5.0) -> bool:
    """Whether the process ends in time."""
    with trio.move_on_after(within):
        while alive(pid):
            await trio.sleep(0.005)
    return not alive(pid)


def serving(build: Build, sign_timeout: float = 30.0) -> Any:
    return service(supervise_vmm, build, LAUNCHER, None, sign_timeout)


async def test_the_end_of_the_block_kills_and_reaps(tmp_path: Path) -> None:
    before = descriptors()
    async with serving(fake_vmm(tmp_path, SIGN, LAST)) as machine:
        assert isinstance(machine, Machine)
        assert alive(machine.pid) and pids(tmp_path) == [machine.pid]
        assert os.getpgid(machine.pid) == machine.pid  # else Ctrl-C would reach it too
    assert machine.exit is not None and machine.exit.returncode == -signal.SIGKILL
    assert not alive(machine.pid)
    assert descriptors() == before


async def test_an_exit_of_its_own_is_seen_with_its_evidence(tmp_path: Path) -> None:
    body = """os.read(agent, 1)
os.write(console, b"booting\\nKernel panic\\x1b[0m\\n")
os.write(monitor, b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}\\n')
print("qemu: warning: so it goes", file=sys.stderr)
"""
    async with serving(fake_vmm(tmp_path, SIGN, body)) as machine:
        await machine.agent.send_all(b"x")  # now it may go
        await machine.exited.wait()
        assert machine.exit.returncode == 0
        assert machine.exit.shutdown_reason == "guest-reset"
        assert machine.exit.console_tail == "booting\nKernel panic\ufffd[0m\n"
        assert "so it goes" in machine.exit.stderr


async def test_a_vmm_that_ends_at_once_is_a_boot_error_with_its_words(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(BootError, match="KVM is not what it seems") as caught:
        async with serving(fake_vmm(tmp_path, "sys.exit('KVM is not what it seems')")):
            raise AssertionError("not reached")
    assert caught.value.stage == "spawn"
    assert descriptors() == before


async def test_a_boot_without_a_sign_is_killed_and_tried_once_more(tmp_path: Path) -> None:
    first_hangs = "if len(open(os.path.join(here, 'pids')).read().split()) == 1: time.sleep(1000)\n"
    async with serving(fake_vmm(tmp_path, first_hangs, SIGN, LAST), sign_timeout=2.0) as machine:
        first, second = pids(tmp_path)
        assert second == machine.pid
        assert not alive(first)
    assert not alive(second)


async def test_two_boots_without_a_sign_are_a_boot_error(tmp_path: Path) -> None:
    body = "os.write(console, b'stuck here')\n" + LAST
    with pytest.raises(BootError, match=r"twice(.|\n)*stuck here") as caught:
        async with serving(fake_vmm(tmp_path, body), sign_timeout=1.0):
            raise AssertionError("not reached")
    assert caught.value.stage == "kernel"
    assert len(pids(tmp_path)) == 2 and not any(map(alive, pids(tmp_path)))


async def test_cancel_while_booting_leaves_no_process(tmp_path: Path) -> None:
    before = descriptors()
    entered: list[bool] = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def cancel_once_it_runs() -> None:
            while not pids(tmp_path):
                await trio.sleep(0.005)
            nursery.cancel_scope.cancel()

        async with serving(fake_vmm(tmp_path, LAST)):
            entered.append(True)
    assert not entered
    assert not any(map(alive, pids(tmp_path)))
    assert descriptors() == before


async def test_cancel_at_each_checkpoint_leaves_no_process(tmp_path: Path) -> None:
    """After each number of steps from none on: while the process is spawned, while its services are entered, later."""
    build = fake_vmm(tmp_path, SIGN, LAST)
    before, known = descriptors(), children()
    for steps in range(40):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def cancel(scope: trio.CancelScope = scope, steps: int = steps) -> None:
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                async with serving(build):
                    await trio.sleep_forever()
        assert children() == known, f"after {steps} steps"
    assert descriptors() == before


@pytest.mark.parametrize(
    ("body", "returncode"),
    [
        ("", -signal.SIGTERM),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n", -signal.SIGKILL),
    ],
)
async def test_the_kill_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, returncode: int) -> None:
    monkeypatch.setattr(running, "TERM_TIMEOUT", 0.2)
    async with serving(fake_vmm(tmp_path, body, SIGN, LAST)) as machine:
        machine.grace = 0.05
    assert machine.exit.returncode == returncode


OWNER = """
import sys, trio
from pathlib import Path
from typing import Any
from trio_sandbox.service import service
from trio_sandbox.vm.supervise import supervise_vmm
from tests.vm.fake_vmm import LAST, SIGN, fake_vmm

async def main():
    build = fake_vmm(Path(sys.argv[1]), SIGN, LAST)
    async with service(supervise_vmm, build, Path(sys.argv[2]), None, 30.0) as machine:
        print(machine.pid, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def test_the_vmm_dies_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), tmp_path, LAUNCHER],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with ended(owner):
        assert owner.stdout is not None
        pid = int(await trio.to_thread.run_sync(owner.stdout.readline))
        assert alive(pid)
        owner.kill()
    assert await gone(pid)


def test_the_launcher_refuses_to_start_for_an_owner_that_has_gone() -> None:
    done = subprocess.run([LAUNCHER, "launch", "1", "--", "/bin/echo", "started"], capture_output=True)
    assert done.returncode != 0 and done.stdout == b""


def test_the_console_is_bounded_in_memory_and_shown_whole() -> None:
    shown: list[bytes] = []
    console = ConsoleLog(shown.append)
    piece = b"y" * 100_000
    console.append(piece)
    console.append(b"the end\n")
    assert b"".join(shown) == piece + b"the end\n"
    assert len(console.tail()) == TAIL_SIZE and console.tail().endswith("the end\n")
