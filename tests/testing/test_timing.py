"""The rules of time through the whole stack: handle, relay, lifecycle, link, guest. All in virtual seconds."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_sandbox import (
    ClientLimitError,
    ExecTimeoutError,
    SandboxCrashedError,
    SandboxDrainingError,
    SandboxNotRunningError,
    connect,
)
from trio_sandbox.client.deadlines import MARGIN
from trio_sandbox.life import DRAIN_TIMEOUT, STOP_TIMEOUT
from trio_sandbox.lifecycle import End
from trio_sandbox.relay.admission import CLIENT_LIMIT
from trio_sandbox.relay.liveness import PING_INTERVAL, PING_TIMEOUT
from trio_sandbox.testing import Program, SimulatedGuest, simulated_sandbox
from trio_sandbox.vm.running import TERM_TIMEOUT
from trio_sandbox.vm.supervise import POWER_OFF_TIMEOUT

pytestmark = pytest.mark.anyio
GUEST_GRACE = STOP_TIMEOUT / 2
"""What the guest leaves its programs between SIGTERM and SIGKILL."""


def stubborn_guest(**options: Any) -> SimulatedGuest:
    guest = SimulatedGuest(**options)

    @guest.program("stubborn")
    async def stubborn(program: Program) -> None:
        program.ignore(signal.SIGTERM)
        await trio.sleep_forever()

    return guest


async def ends_after(seconds: float, end: End, reason: str, began: float) -> None:
    assert trio.current_time() - began == pytest.approx(seconds, abs=0.01)
    assert end.reason == reason


# -- idle timeout and max duration


async def test_an_idle_sandbox_stops_by_itself() -> None:
    async with simulated_sandbox(idle_timeout=60) as sandbox:
        began = trio.current_time()
        await ends_after(60, await sandbox.end(), "idle", began)
        assert await sandbox.wait() == (0, True)
        with pytest.raises(SandboxNotRunningError):
            await sandbox.exec("true")


async def test_programs_files_and_touch_are_activity_and_ping_and_subscriptions_are_not() -> None:
    async with simulated_sandbox(idle_timeout=60) as sandbox:
        await sandbox.exec("sleep", ["1000"])
        await trio.sleep(50)
        await sandbox.fs.read("/proc/meminfo")
        await trio.sleep(50)
        await sandbox.touch()
        await trio.sleep(50)
        async with sandbox.events():
            began = trio.current_time()
            await trio.sleep(5)
            await sandbox.ping()
            await ends_after(60 - 50, await sandbox.end(), "idle", began)


async def test_a_pause_stops_the_idle_clock() -> None:
    async with simulated_sandbox(idle_timeout=60) as sandbox:
        began = trio.current_time()
        await trio.sleep(30)
        await sandbox.pause()
        await trio.sleep(1000)
        await sandbox.resume()
        await ends_after(1060, await sandbox.end(), "idle", began)


async def test_max_duration_ends_what_never_ends() -> None:
    async with simulated_sandbox(guest=stubborn_guest(), max_duration=100) as sandbox:
        began = trio.current_time()
        async with await sandbox.exec_stream("stubborn") as handle:
            await trio.sleep(101)
            with pytest.raises(SandboxDrainingError):
                await sandbox.exec("true")
            await ends_after(100 + DRAIN_TIMEOUT + GUEST_GRACE, await sandbox.end(), "max-duration", began)
            assert (await handle.collect()).signal == signal.SIGKILL
        assert await sandbox.wait() == (0, True)


# -- stop


async def test_stop_climbs_the_ladder_as_far_as_it_must() -> None:
    forced = STOP_TIMEOUT + POWER_OFF_TIMEOUT
    for guest, seconds, end in (
        (stubborn_guest(), GUEST_GRACE, (0, True)),
        (stubborn_guest(ignores_shutdown=True), forced, (-9, False)),
        (stubborn_guest(ignores_shutdown=True, ignores_sigterm=True), forced + TERM_TIMEOUT, (-9, False)),
    ):
        async with simulated_sandbox(guest=guest) as sandbox, await sandbox.exec_stream("stubborn") as handle:
            await handle.wait_until_started()
            began = trio.current_time()
            await sandbox.stop()
            await ends_after(seconds, await sandbox.end(), "requested", began)
            assert await sandbox.wait() == end


async def test_a_kill_overtakes_a_stop() -> None:
    async with simulated_sandbox(guest=stubborn_guest(ignores_shutdown=True)) as sandbox:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sandbox.stop, 1000)
            await trio.sleep(3)
            await sandbox.kill()
        await ends_after(3, await sandbox.end(), "killed", began)


async def test_leaving_the_block_waits_for_nobody() -> None:
    began = trio.current_time()
    async with simulated_sandbox(guest=stubborn_guest(ignores_shutdown=True)) as sandbox:
        await sandbox.exec_stream("stubborn")
    assert trio.current_time() == began


# -- drain


async def test_a_drain_waits_for_the_open_and_no_longer_than_its_deadline() -> None:
    async with simulated_sandbox() as sandbox, await sandbox.exec_stream("sleep", ["30"]):
        began = trio.current_time()
        await sandbox.drain()
        await ends_after(30, await sandbox.end(), "drained", began)
    async with simulated_sandbox() as sandbox, await sandbox.exec_stream("sleep", ["30"]):
        began = trio.current_time()
        await sandbox.drain(20)
        await trio.sleep(5)
        await sandbox.drain(10)  # a second one can only make it sooner
        await sandbox.drain(1000)
        await ends_after(15, await sandbox.end(), "drained", began)


async def test_a_detached_program_is_waited_for_too() -> None:
    async with simulated_sandbox() as sandbox:
        async with await sandbox.exec_stream("sleep", ["30"], detached=True) as handle:
            await handle.wait_until_started()
        began = trio.current_time()
        await sandbox.drain()
        await ends_after(30, await sandbox.end(), "drained", began)


# -- liveness


@pytest.mark.parametrize("busy", [False, True])
async def test_a_guest_that_hangs_is_lost_in_time(busy: bool) -> None:
    guest = SimulatedGuest()
    with pytest.raises(SandboxCrashedError) as caught:
        async with simulated_sandbox(guest=guest) as sandbox:
            await trio.sleep(PING_INTERVAL / 2)
            began = trio.current_time()
            guest.stall(1e9)
            if busy:
                await sandbox.exec("true")
            await trio.sleep_forever()
    assert caught.value.reason == "agent-lost"
    assert 2 * PING_TIMEOUT <= trio.current_time() - began <= PING_INTERVAL + 2 * PING_TIMEOUT + 0.01


async def test_a_paused_guest_is_not_lost() -> None:
    async with simulated_sandbox() as sandbox:
        await sandbox.pause()
        await trio.sleep(10_000)
        await sandbox.resume()
        assert (await sandbox.exec("true")).success


# -- programs


async def test_a_timeout_is_the_guests_and_to_the_point() -> None:
    async with simulated_sandbox(guest=stubborn_guest()) as sandbox:
        began = trio.current_time()
        with pytest.raises(ExecTimeoutError):
            await sandbox.exec("stubborn", timeout=7)
        assert trio.current_time() - began == pytest.approx(7)


async def test_the_callers_deadline_comes_first_and_the_guests_after_a_margin() -> None:
    guest = stubborn_guest()
    async with simulated_sandbox(guest=guest) as sandbox:
        with trio.move_on_after(5):
            await sandbox.exec_stream("stubborn")  # and its handle is forgotten
            await trio.sleep_forever()
        await trio.sleep(MARGIN - 0.01)
        assert len(guest.running) == 1
        await trio.sleep(0.02)
        assert not guest.running


async def test_a_handle_that_is_used_in_a_longer_scope_goes_on() -> None:
    guest = stubborn_guest()
    async with simulated_sandbox(guest=guest) as sandbox:
        with trio.move_on_after(5):
            handle = await sandbox.exec_stream("stubborn")
        with trio.move_on_after(100):
            await handle.wait()
        await wait_all_tasks_blocked()
        assert len(guest.running) == 1
        await trio.sleep(MARGIN + 0.01)
        assert not guest.running


async def test_a_guests_deadline_stands_still_in_a_pause() -> None:
    guest = stubborn_guest()
    async with simulated_sandbox(guest=guest) as sandbox:
        with trio.move_on_after(5):
            await sandbox.exec_stream("stubborn")
            await sandbox.pause()
            await trio.sleep_forever()
        await trio.sleep(100)
        assert len(guest.running) == 1
        await sandbox.resume()
        await trio.sleep(5 + MARGIN + 0.01)
        assert not guest.running


# -- clients


async def test_who_waits_for_a_place_gets_it_in_time_or_is_told(tmp_path: Path) -> None:
    address = tmp_path / "relay.sock"
    async with simulated_sandbox(listen=address) as sandbox:
        clients = [await connect(address) for _ in range(CLIENT_LIMIT - 1)]
        with pytest.raises(ClientLimitError) as caught:
            await connect(address)
        assert (caught.value.limit, caught.value.used) == (CLIENT_LIMIT, CLIENT_LIMIT)
        began = trio.current_time()
        with pytest.raises(ClientLimitError):
            await connect(address, wait=30)
        assert trio.current_time() - began == pytest.approx(30)
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                await trio.sleep(20)
                await clients.pop().detach()

            nursery.start_soon(leave)
            clients.append(await connect(address, wait=30))
        assert trio.current_time() - began == pytest.approx(50)
        assert (await clients[-1].exec("echo", ["mine"])).stdout_text == "mine\n"
        for client in clients:
            await client.detach()
        assert (await sandbox.exec("true")).success
