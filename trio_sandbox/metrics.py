"""What a running sandbox uses: processor, memory, disk. Read on demand, from where the truth is.

Processor time is that of the vCPU threads, which QEMU's monitor names and the host's /proc counts; disk bytes are what
QEMU's block layer counted; memory is what the guest's kernel says of itself, read through the agent as a file. Nothing
is sampled while nobody asks.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from pathlib import Path

import attrs
import trio

from trio_sandbox.errors import SandboxError
from trio_sandbox.relay.client_messages import (
    MetricsSample,
)
from trio_sandbox.relay.events import DataReceived, MessageReceived
from trio_sandbox.relay.link import AgentLink, LinkLost, Session
from trio_sandbox.relay.messages import (
    Fs,
)
from trio_sandbox.vm.running import RunningMachine

SHORTEST = 0.1
"""Seconds over which processor use is measured at least."""
LONGEST = 2.0
"""Seconds over which it is measured at most, where the last reading is not older."""
GUEST_TIMEOUT = 1.0
"""Seconds for the guest to tell its memory; then what it told last stands."""
MEMINFO = b"/proc/meminfo"
MEMINFO_LIMIT = 16_384
_TICKS = os.sysconf("SC_CLK_TCK")


@attrs.define(eq=False)
class Meter:
    """The metrics of one machine. memory_limit: bytes of guest memory."""

    machine: RunningMachine
    link: AgentLink
    memory_limit: int
    began: float = attrs.Factory(time.monotonic)
    _threads: tuple[int, ...] = ()
    _readings: deque[tuple[float, float]] = attrs.Factory(lambda: deque(maxlen=64))
    _memory: int | None = None
    _was_paused: bool = False

    async def sample(self, *, paused: bool) -> MetricsSample:
        """The metrics now. paused: the guest cannot be asked; its memory is as it was.

        Processor use is that since the last reading, when that was 0.1 to 2 s ago; else a reading takes 0.1 s. Raises
        QmpClosed when the machine is gone.
        """
        if not self._threads:
            self._threads = tuple(cpu["thread-id"] for cpu in await self.machine.qmp.execute("query-cpus-fast"))
        if paused is not self._was_paused:  # what came before says nothing of now
            self._was_paused = paused
            self._readings.clear()
        percent = await self._processor()
        disks = [disk["stats"] for disk in await self.machine.qmp.execute("query-blockstats")]
        if not paused:
            await self._ask_guest()
        return MetricsSample(
            cpu_percent=percent,
            memory_bytes=self._memory if self._memory is not None else self._resident(),
            memory_limit_bytes=self.memory_limit,
            disk_read_bytes=sum(stats["rd_bytes"] for stats in disks),
            disk_write_bytes=sum(stats["wr_bytes"] for stats in disks),
            net_rx_bytes=0,
            net_tx_bytes=0,
            timestamp_ms=time.time() * 1000,
            uptime_ms=int((time.monotonic() - self.began) * 1000),
        )

    # -- processor

    async def _processor(self) -> float:
        now = self._read()
        earlier = [reading for reading in self._readings if SHORTEST <= now[0] - reading[0] <= LONGEST]
        if not earlier:
            await trio.sleep(SHORTEST)
            earlier, now = [now], self._read()
        self._readings.append(now)
        since = earlier[-1]
        return max(0.0, 100 * (now[1] - since[1]) / (now[0] - since[0]))

    def _read(self) -> tuple[float, float]:
        """Now, and the seconds that the vCPUs have run."""
        used = sum(thread_seconds(self.machine.pid, thread) for thread in self._threads)
        return time.monotonic(), used

    # -- memory

    async def _ask_guest(self) -> None:
        text = bytearray()
        with trio.move_on_after(GUEST_TIMEOUT):
            try:
                await self._read_meminfo(text)
            except (SandboxError, LinkLost):
                return
        found = dict(re.findall(rb"^(MemTotal|MemAvailable): +(\d{1,15}) kB$", text, re.MULTILINE))
        if len(found) == 2:
            used = (int(found[b"MemTotal"]) - int(found[b"MemAvailable"])) * 1024
            self._memory = max(0, min(used, self.memory_limit))  # whatever the guest says

    async def _read_meminfo(self, text: bytearray) -> None:
        session: Session | None = None

        def make(number: int) -> Session:
            nonlocal session
            session = Session(number, self.link, lambda: None)
            return session

        request = Fs("read", MEMINFO, length=MEMINFO_LIMIT, window=MEMINFO_LIMIT, stdin_window=1)
        self.link.open(request, 0, make, counts=False)
        assert session is not None
        try:
            while not session.over:
                event = await session.receive()
                if isinstance(event, DataReceived):
                    text += event.data
                else:
                    assert isinstance(event, MessageReceived)
        finally:
            if not session.over:
                session.abandon()

    def _resident(self) -> int:
        """Of the VMM: what there is to say before the guest has said anything."""
        try:
            pages = int(Path(f"/proc/{self.machine.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")


def thread_seconds(process: int, thread: int) -> float:
    """Processor time of one thread, 0 when it has gone. To the nanosecond where the kernel counts so, else in ticks."""
    try:
        if nanoseconds := int(Path(f"/proc/{process}/task/{thread}/schedstat").read_text().split()[0]):
            return nanoseconds / 1e9
    except (OSError, ValueError, IndexError):
        pass
    try:
        fields = Path(f"/proc/{process}/task/{thread}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
