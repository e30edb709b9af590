"""The relay beside a second port of the same machine, which C programs drive with nothing in the way.

Every round measures each thing once, baseline and relay in turn; the limits are on the ratios of the medians.
"""

from __future__ import annotations

import statistics
import time

from benchmarks.crowd_client import timed_ping
from benchmarks.figures import Figure, Limit, Samples
from benchmarks.second_port import FOLDER, MIB, BarePort, opened
from trio_sandbox.client.outcome import ExecEventType
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.home import Home

PINGS, BATCH = 400, 40
EXECS = 20
SIZE = 64 * MIB
FILE = f"{FOLDER}/file"
"""In the guest's memory, and three of them fit: what is measured is the way, not a disk."""

RAW = "raw port, "
"""Before the name of a baseline."""
ECHO, PING = f"{RAW}echo of 64 bytes", "ping"
SPAWN, EXEC = "agent's own code, fork to reaped exit", "exec /bin/true"
SPAWN_PING = "fork to reaped exit, and a ping"
STREAMS = {
    "stdout, small writes": (f"head -c {SIZE} /dev/zero | {{program}}", f"exec head -c {SIZE} /dev/zero"),
    "stdout, large writes": (f"cat {FILE} | {{program}}", f"exec cat {FILE}"),
}
STDIN = ("{program} | cat > /dev/null", "exec cat > /dev/null")


async def measure(home: Home, rounds: int) -> tuple[dict[str, list[Figure]], list[Limit]]:
    """Tables by title, each with its baselines before what is held against them; and what was promised of them."""
    delays, programs, streams = Samples("µs"), Samples("ms"), Samples("MiB/s")
    async with opened(home) as port:
        await port.sandbox.shell(f"head -c {SIZE} /dev/zero > {FILE}")
        for _ in range(rounds):
            await _delays(port, delays, programs)
            await _streams(port, streams)
    figures = {figure.name: figure for samples in (delays, programs, streams) for figure in samples.figures()}
    pairs = {name: [figures[RAW + name], figures[name]] for name in figures if RAW + name in figures}
    return {"Round trips": delays.figures(), "Programs": programs.figures(), **pairs}, _limits(figures, list(pairs))


async def _delays(port: BarePort, delays: Samples, programs: Samples) -> None:
    """One value for each: the median of many, in turn with its baseline, without the first, whose code is new to the
    emulator. Round trips go in batches, so that each finds its own code warm.
    """
    trips: list[tuple[float, float]] = []
    async with port.echo(PINGS) as echo:
        for _ in range(0, PINGS, BATCH):
            echoes = [echo() for _ in range(BATCH)]
            trips += zip(echoes, [await timed_ping(port.sandbox) * 1e3 for _ in range(BATCH)], strict=True)
    async with port.spawner() as spawn:
        runs = [(await spawn(), await _exec_true(port.sandbox)) for _ in range(EXECS)]
    (echoed, ping), (spawned, executed) = (
        map(statistics.median, zip(*pairs[1:], strict=True)) for pairs in (trips, runs)
    )
    delays.add(ECHO, echoed)
    delays.add(PING, ping)
    programs.add(SPAWN_PING, spawned + ping / 1e3)
    programs.add(SPAWN, spawned)
    programs.add(EXEC, executed)


async def _exec_true(sandbox: Sandbox) -> float:
    began = time.perf_counter()
    await sandbox.exec("/bin/true")
    return (time.perf_counter() - began) * 1e3


async def _streams(port: BarePort, streams: Samples) -> None:
    for name, (raw, relayed) in STREAMS.items():
        streams.add(RAW + name, await port.out(raw, SIZE))
        streams.add(name, await _stdout(port.sandbox, relayed))
    data = bytes(SIZE)
    streams.add(RAW + "stdin", await port.into(STDIN[0], data))
    streams.add("stdin", await _stdin(port.sandbox, STDIN[1], data))
    streams.add(RAW + "fs.read", await port.out(f"{{program}} < {FILE}", SIZE))
    streams.add("fs.read", await _fs_read(port.sandbox))
    streams.add(RAW + "fs.write", await port.into(f"{{program}} > {FILE}.raw", data))
    streams.add("fs.write", await _fs_write(port.sandbox, data))


async def _fs_read(sandbox: Sandbox) -> float:
    """MiB/s of a whole file that is in the guest's page cache."""
    began = time.perf_counter()
    data = await sandbox.fs.read(FILE)
    took = time.perf_counter() - began
    assert len(data) == SIZE, len(data)
    return SIZE / MIB / took


async def _fs_write(sandbox: Sandbox, data: bytes) -> float:
    """MiB/s of a whole file, plainly: as the baseline, in place and without a word from the disk."""
    began = time.perf_counter()
    await sandbox.fs.write(f"{FILE}.relayed", data, atomic=False, fsync=False)
    return len(data) / MIB / (time.perf_counter() - began)


async def _stdout(sandbox: Sandbox, script: str) -> float:
    """MiB/s from the program's start to its last byte."""
    received, began, took = 0, 0.0, 0.0
    async for event in await sandbox.shell_stream(script):
        if event.event_type is ExecEventType.STARTED:
            began = time.perf_counter()
        elif event.event_type is ExecEventType.STDOUT:
            received += len(event.data or b"")
            took = time.perf_counter() - began
    assert received == SIZE, received
    return received / MIB / took


async def _stdin(sandbox: Sandbox, script: str, data: bytes) -> float:
    """MiB/s from the program's start to its end."""
    program = await sandbox.shell_stream(script, stdin=data)
    await program.recv()
    began = time.perf_counter()
    code, _ = await program.wait()
    assert code == 0, code
    return len(data) / MIB / (time.perf_counter() - began)


def _limits(figures: dict[str, Figure], streams: list[str]) -> list[Limit]:
    exec_, spawn_ping = figures[EXEC], figures[SPAWN_PING]
    return [
        Limit.at_most(4.0, figures[PING], figures[ECHO]),
        Limit.at_most(1.15, exec_, spawn_ping),
        Limit(f"{EXEC} less {SPAWN_PING}, ms", exec_.median - spawn_ping.median, most=2.0),
        *(Limit.at_least(0.7, figures[name], figures[RAW + name]) for name in streams),
    ]
