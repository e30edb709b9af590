"""What is the simulated guest's own: the rest is what the conformance suite asks of it and of the real one."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_sandbox import (
    BootError,
    ExecTimeoutError,
    FilesystemError,
    SandboxCrashedError,
    SandboxPausedError,
    Stdin,
)
from trio_sandbox.relay.liveness import PING_INTERVAL, PING_TIMEOUT
from trio_sandbox.relay.messages import (
    BootFailed,
)
from trio_sandbox.testing import Faults, Program, SimulatedGuest, simulated_sandbox

pytestmark = pytest.mark.anyio


def test_the_package_does_not_import_its_test_tools() -> None:
    code = "import sys, trio_sandbox, trio_sandbox.sandbox; print('trio_sandbox.testing' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


async def test_a_program_is_a_function() -> None:
    guest = SimulatedGuest()

    @guest.program("greet")
    async def greet(program: Program) -> int:
        await program.stdout.send(f"hello {' '.join(program.argv[1:])} from {program.env['PLACE']}\n")
        async for piece in program.stdin:
            await program.stderr.send(piece.upper())
        return 3

    async with simulated_sandbox(guest=guest, env={"PLACE": "here"}) as sandbox:
        output = await sandbox.exec("greet", ["you", "all"], stdin=b"some input")
        assert (output.exit_code, output.stdout_text) == (3, "hello you all from here\n")
        assert output.stderr_text == "SOME INPUT"
        assert not guest.running
        assert not guest.open_sessions


async def test_a_script_is_found_by_its_text() -> None:
    guest = SimulatedGuest()

    @guest.script("make test")
    async def make_test(program: Program) -> int:
        program.files.write("/report", "fine")
        return 0

    async with simulated_sandbox(guest=guest) as sandbox:
        assert (await sandbox.shell("make test")).success
        assert await sandbox.fs.read_text("/report") == "fine"
        assert (await sandbox.shell("make sense")).exit_code == 127


async def test_an_exception_in_a_program_is_its_failure() -> None:
    guest = SimulatedGuest()

    @guest.program("broken")
    async def broken(program: Program) -> int:
        raise KeyError("lost")

    async with simulated_sandbox(guest=guest) as sandbox:
        output = await sandbox.exec("broken")
        assert output.exit_code == 1
        assert "KeyError: 'lost'" in output.stderr_text


async def test_time_is_virtual_and_stands_still_in_a_pause() -> None:
    async with simulated_sandbox() as sandbox:
        began = trio.current_time()
        await sandbox.exec("sleep", ["10000"])
        assert trio.current_time() - began == pytest.approx(10_000)
        async with await sandbox.exec_stream("sleep", ["60"], timeout=100) as handle:
            await handle.wait_until_started()
            await trio.sleep(30)
            await sandbox.pause()
            await trio.sleep(3600)
            with pytest.raises(SandboxPausedError):
                await sandbox.exec("true")
            await sandbox.resume()
            again = trio.current_time()
            await handle.wait()
            assert trio.current_time() - again == pytest.approx(30)


async def test_a_program_that_traps_sigterm_is_killed_all_the_same() -> None:
    guest = SimulatedGuest()

    @guest.program("stubborn")
    async def stubborn(program: Program) -> int:
        program.trap(signal.SIGTERM)
        while True:
            await program.stdout.send(f"caught {await program.next_signal()}\n")

    async with simulated_sandbox(guest=guest) as sandbox:
        async with await sandbox.exec_stream("stubborn") as handle:
            await handle.wait_until_started()
            await wait_all_tasks_blocked()
            await handle.signal(signal.SIGTERM)
            await wait_all_tasks_blocked()
            await handle.kill()
            output = await handle.collect()
        assert (output.signal, output.stdout_text) == (signal.SIGKILL, "caught 15\n")
        with pytest.raises(ExecTimeoutError):
            await sandbox.exec("stubborn", timeout=5)


async def test_a_background_process_holds_the_output_and_dies_with_a_kill() -> None:
    guest = SimulatedGuest()

    async def ticker(program: Program) -> None:
        while True:
            await program.stdout.send(b"tick\n")
            await program.sleep(1)

    @guest.program("daemonise")
    async def daemonise(program: Program) -> int:
        program.spawn(ticker)
        await program.sleep(2.5)
        if len(program.argv) > 1:
            await trio.sleep_forever()
        return 0

    async with simulated_sandbox(guest=guest) as sandbox:
        output = await sandbox.exec("daemonise")
        assert (output.stdout_text, output.held_open) == ("tick\n" * 3, True)
        assert len(guest.running) == 1
        with trio.move_on_after(10):
            await sandbox.exec("daemonise", ["for ever"])
        assert len(guest.running) == 1, "the daemon of the first"


async def test_a_reader_that_stops_stops_its_program_alone() -> None:
    guest = SimulatedGuest()
    async with simulated_sandbox(guest=guest) as sandbox:
        async with await sandbox.exec_stream("yes") as stopped:
            for number in range(100):
                assert (await sandbox.exec("echo", [str(number)])).stdout_text == f"{number}\n"
            await stopped.kill()
            assert await stopped.wait() == (137, False)
        blob = bytes(range(256)) * 8192
        assert (await sandbox.exec("cat", stdin=blob)).stdout_bytes == blob


async def test_crashes_have_their_reasons() -> None:
    for crash, reason in (
        (SimulatedGuest.kill_agent, "kernel-panic"),
        (SimulatedGuest.panic, "kernel-panic"),
        (SimulatedGuest.kill_vmm, "vmm-exited"),
    ):
        guest = SimulatedGuest()
        with pytest.raises(SandboxCrashedError) as caught:
            async with simulated_sandbox(guest=guest) as sandbox:
                async with await sandbox.exec_stream("sleep", ["1000"]) as handle:
                    await handle.wait_until_started()
                    crash(guest)
                    await handle.wait()
        assert caught.value.reason == reason
        assert ("Kernel panic" in caught.value.console_tail) == (reason == "kernel-panic")


async def test_a_guest_that_powers_itself_off_has_stopped() -> None:
    guest = SimulatedGuest()
    async with simulated_sandbox(guest=guest) as sandbox:
        guest.power_off()
        assert await sandbox.wait() == (0, True)


async def test_a_short_stall_is_nothing_and_a_long_one_a_lost_agent() -> None:
    guest = SimulatedGuest()
    began = trio.current_time()
    with pytest.raises(SandboxCrashedError) as caught:
        async with simulated_sandbox(guest=guest) as sandbox:
            guest.stall(PING_TIMEOUT)
            assert (await sandbox.exec("true")).success
            guest.stall(1e9)
            await trio.sleep_forever()
    assert caught.value.reason == "agent-lost"
    assert trio.current_time() - began < PING_INTERVAL + 4 * PING_TIMEOUT


async def test_a_full_disk() -> None:
    guest = SimulatedGuest()
    guest.files.capacity = guest.files.used + 1000
    async with simulated_sandbox(guest=guest) as sandbox:
        await sandbox.fs.write("/small", b"x" * 900)
        with pytest.raises(FilesystemError) as caught:
            await sandbox.fs.write("/large", b"x" * 1_000_000)
        assert caught.value.errno == 28
        assert not await sandbox.fs.exists("/large")


async def test_a_boot_that_fails_or_never_ends() -> None:
    guest = SimulatedGuest(boot_failure=BootFailed("root", 5, "no disk"))
    with pytest.raises(BootError) as caught:
        async with simulated_sandbox(guest=guest):
            pass
    assert caught.value.stage == "root"
    with pytest.raises(BootError, match="not ready within 60 s"):
        async with simulated_sandbox(guest=SimulatedGuest(boot_time=1e6)):
            pass


@pytest.mark.parametrize("seed", range(5))
async def test_late_and_reordered_frames_break_nothing(seed: int) -> None:
    faults = Faults(seed=seed, delay=1.0, delay_chance=0.3, reorder_chance=0.5)
    async with simulated_sandbox(guest=SimulatedGuest(faults=faults)) as sandbox:

        async def one(number: int) -> None:
            blob = bytes([number]) * 300_000
            assert (await sandbox.exec("cat", stdin=blob)).stdout_bytes == blob
            await sandbox.fs.write(f"/{number}", blob)
            assert await sandbox.fs.read(f"/{number}") == blob

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(one, number)


async def test_a_lost_end_is_waited_for_until_the_callers_deadline() -> None:
    guest = SimulatedGuest()
    async with simulated_sandbox(guest=guest) as sandbox:
        async with await sandbox.exec_stream("cat", stdin=Stdin.pipe()) as handle:
            await handle.wait_until_started()
            guest.faults.drop_chance = 1.0
            sink = handle.take_stdin()
            assert sink is not None
            await sink.close()
            with trio.move_on_after(100) as scope:
                await handle.wait()
            assert scope.cancelled_caught
            assert len(guest.faults.dropped) == 1
