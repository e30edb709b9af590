"""What the meter makes of known loads: a scripted monitor, scripted processor times, a scripted guest."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, cast

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.relay.scripted import ScriptedGuest, linked
from trio_sandbox import metrics
from trio_sandbox.metrics import Meter, thread_seconds
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Done,
    Fs,
)
from trio_sandbox.vm.running import RunningMachine

pytestmark = pytest.mark.anyio
MIB = 1 << 20


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@attrs.define
class ScriptedMonitor:
    """Two vCPUs and two disks."""

    written: int = 0

    async def execute(self, command: str, **arguments: object) -> Any:
        await trio.lowlevel.checkpoint()
        if command == "query-cpus-fast":
            return [{"thread-id": 1}, {"thread-id": 2}]
        assert command == "query-blockstats"
        return [{"stats": {"rd_bytes": 7, "wr_bytes": 0}}, {"stats": {"rd_bytes": 5, "wr_bytes": self.written}}]


@attrs.define
class ScriptedMachine:
    qmp: ScriptedMonitor = attrs.Factory(ScriptedMonitor)
    pid: int = 1


@attrs.define
class Load:
    """How busy each vCPU is, on the virtual clock."""

    shares: dict[int, float]

    def seconds(self, process: int, thread: int) -> float:
        return self.shares[thread] * trio.current_time()


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    found = Load({1: 0.0, 2: 0.0})
    monkeypatch.setattr(metrics, "thread_seconds", found.seconds)
    monkeypatch.setattr(time, "monotonic", trio.current_time)
    return found


async def tell_memory(guest: ScriptedGuest, text: bytes) -> None:
    """Answer the next question for the guest's memory."""
    asked = await guest.next_message(FrameType.FS)
    assert isinstance(asked.message, Fs)
    assert asked.message.path == b"/proc/meminfo"
    await guest.output(asked.session, text)
    await guest.say(Done(), asked.session)


@pytest.mark.parametrize(("shares", "percent"), [((0, 0), 0), ((1, 0), 100), ((1, 1), 200), ((0.25, 0.5), 75)])
async def test_a_busy_vcpu_is_a_hundred_percent(load: Load, shares: tuple[float, float], percent: float) -> None:
    load.shares = {1: shares[0], 2: shares[1]}
    async with linked() as (link, _):
        meter = Meter(cast(RunningMachine, ScriptedMachine()), link, 512 * MIB)
        first = await meter.sample(paused=True)  # takes two readings itself
        assert first.cpu_percent == pytest.approx(percent)
        await trio.sleep(1)
        assert (await meter.sample(paused=True)).cpu_percent == pytest.approx(percent)


async def test_use_is_that_since_the_last_reading(load: Load) -> None:
    async with linked() as (link, _):
        meter = Meter(cast(RunningMachine, ScriptedMachine()), link, 512 * MIB)
        await meter.sample(paused=True)
        before = trio.current_time()
        load.shares = {1: 0.0, 2: 0.0}
        await trio.sleep(1)
        assert (await meter.sample(paused=True)).cpu_percent == 0
        await trio.sleep(100)  # too long ago to say anything of now: it reads twice
        load.shares = {1: 1.0, 2: 0.0}
        assert (await meter.sample(paused=True)).cpu_percent == pytest.approx(100)
        assert trio.current_time() == pytest.approx(before + 101 + metrics.SHORTEST)


async def test_disks_add_up_and_memory_is_what_the_guest_says_within_its_limit(load: Load) -> None:
    async with linked() as (link, guest):
        machine = ScriptedMachine()
        meter = Meter(cast(RunningMachine, machine), link, 512 * MIB)

        async def sample(text: bytes) -> Any:
            found = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tell_memory, guest, text)
                found.append(await meter.sample(paused=False))
            return found[0]

        machine.qmp.written = 64 * MIB
        found = await sample(b"MemTotal:  500000 kB\nMemFree: 1 kB\nMemAvailable:  400000 kB\n")
        assert found.memory_bytes == 100_000 * 1024
        assert (found.memory_limit_bytes, found.disk_read_bytes) == (512 * MIB, 12)
        assert found.disk_write_bytes == 64 * MIB
        for nonsense in (b"MemTotal: 99999999999999 kB\nMemAvailable: 0 kB\n", b"MemTotal: 1 kB\nMemAvailable: 9 kB\n"):
            assert 0 <= (await sample(nonsense)).memory_bytes <= 512 * MIB
        last = (await meter.sample(paused=True)).memory_bytes
        assert (await sample(b"nothing of use")).memory_bytes == last


async def test_a_guest_that_does_not_answer_costs_a_second(load: Load) -> None:
    async with linked() as (link, _):
        meter = Meter(cast(RunningMachine, ScriptedMachine()), link, 512 * MIB)
        await meter.sample(paused=True)
        before = trio.current_time()
        assert (await meter.sample(paused=False)).memory_bytes >= 0
        assert trio.current_time() - before <= metrics.GUEST_TIMEOUT + metrics.SHORTEST


def test_a_question_for_memory_is_no_work_and_no_activity() -> None:
    async def ask() -> None:
        async with linked() as (link, guest):
            noticed: list[str] = []
            link.on_activity = lambda: noticed.append("activity")
            meter = Meter(cast(RunningMachine, ScriptedMachine()), link, 512 * MIB)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tell_memory, guest, b"")
                await meter.sample(paused=False)
            assert noticed == []
            assert not link.working

    trio.run(ask, clock=MockClock(autojump_threshold=0))


def test_a_thread_that_works_is_seen_to() -> None:
    done, numbers = threading.Event(), []

    def work() -> None:
        numbers.append(threading.get_native_id())
        while time.thread_time() < 0.2:
            pass
        done.set()
        hold.wait()

    hold = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    done.wait()
    try:
        assert 0.18 <= thread_seconds(os.getpid(), numbers[0]) < 1
    finally:
        hold.set()
        thread.join()
    assert thread_seconds(os.getpid(), 0) == 0
