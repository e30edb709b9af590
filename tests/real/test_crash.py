"""Machines that go away without being asked: a typed error, promptly, with the reason and the evidence, and nothing
left.
"""

from __future__ import annotations

import os
import signal

import pytest
import trio

from trio_sandbox import EndReason, Home, Sandbox, SandboxCrashedError, open_sandbox

from .traces import leaving_nothing, machines

pytestmark = pytest.mark.anyio

PANIC = "echo c > /proc/sysrq-trigger; sleep 1000"
REBOOT = "echo b > /proc/sysrq-trigger; sleep 1000"


@pytest.mark.parametrize(
    ("script", "reason", "evidence"),
    [(PANIC, EndReason.KERNEL_PANIC, "Kernel panic - not syncing"), (REBOOT, EndReason.GUEST_REBOOT, "")],
)
async def test_a_guest_that_crashes_during_an_exec(home: Home, script: str, reason: EndReason, evidence: str) -> None:
    with leaving_nothing(home):
        with pytest.raises(SandboxCrashedError) as caught:
            async with open_sandbox("crashing", image="local/base") as sandbox:
                await sandbox.shell(script)
        assert caught.value.reason is reason
        assert evidence in caught.value.console_tail


async def test_kill_9_on_qemu_ends_an_idle_block_with_the_bare_error(home: Home) -> None:
    with leaving_nothing(home):
        with pytest.raises(SandboxCrashedError) as caught, trio.fail_after(60):
            async with open_sandbox("killed", image="local/base"):
                (vmm,) = machines(home)
                os.kill(vmm, signal.SIGKILL)
                await trio.sleep_forever()
        assert caught.value.reason is EndReason.VMM_EXITED


async def test_several_programs_die_with_their_machine_as_one_error(home: Home) -> None:
    """The block's three failures are all consequences of one: that one leaves, bare."""
    with leaving_nothing(home), pytest.raises(SandboxCrashedError):
        async with open_sandbox("killed", image="local/base") as sandbox:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(sandbox.shell, "echo ready; sleep 1000")
                await sandbox.exec("true")
                (vmm,) = machines(home)
                os.kill(vmm, signal.SIGKILL)


async def test_an_exec_sees_the_crash_where_it_waits(home: Home) -> None:
    seen: list[SandboxCrashedError] = []

    async def run(sandbox: Sandbox) -> None:
        try:
            await sandbox.shell(PANIC)
        except SandboxCrashedError as error:
            seen.append(error)
            raise

    with pytest.raises(SandboxCrashedError) as caught:
        async with open_sandbox("seen", image="local/base") as sandbox:
            await run(sandbox)
    assert seen and seen[0].__cause__ is caught.value


async def test_a_failure_of_the_block_and_a_crash_leave_together(home: Home) -> None:
    with leaving_nothing(home):
        with pytest.RaisesGroup(ValueError, SandboxCrashedError):
            async with open_sandbox("both", image="local/base"):
                (vmm,) = machines(home)
                os.kill(vmm, signal.SIGKILL)
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError("of the block")


async def test_the_blocks_own_error_leaves_bare(home: Home) -> None:
    with leaving_nothing(home):
        with pytest.raises(ValueError, match="mine"):
            async with open_sandbox("mine", image="local/base"):
                raise ValueError("mine")
