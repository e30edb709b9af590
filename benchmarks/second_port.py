"""A sandbox with a second virtio-serial port, and the C programs that use it in the guest: the relay's baseline.

The host's end of the port is driven by plain blocking calls with large buffers, in the thread of the event loop, which
has nothing else to do meanwhile.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from benchmarks import bare
from trio_sandbox.client.options import Stdin
from trio_sandbox.client.outcome import ExecEventType
from trio_sandbox.client.program import ExecHandle
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.config import SandboxConfig
from trio_sandbox.home import Home
from trio_sandbox.sandbox import serve_sandbox
from trio_sandbox.service import service
from trio_sandbox.vm.command import Port

HERE = Path(__file__).parent
GUEST = HERE.parent / "guest"
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-s", "-static", "-ffunction-sections", "-fdata-sections"]
FLAGS += ["-Wl,--gc-sections"]
NAME = "bench"
FOLDER = "/tmp/bench"
"""Where the programs are in the guest."""
MIB = 1 << 20


@attrs.frozen
class BarePort:
    """Our end of the second port of `sandbox`."""

    sandbox: Sandbox
    socket: socket.socket
    buffer: bytearray = attrs.Factory(lambda: bytearray(MIB))

    @asynccontextmanager
    async def echo(self, count: int) -> AsyncIterator[Callable[[], float]]:
        """A call that gives the microseconds of one round trip of 64 bytes; to be called `count` times."""
        program = await self._program(f"{FOLDER}/bare_port {NAME} echo {count}")
        yield self._round_trip
        await _finished(program)

    def _round_trip(self) -> float:
        began = time.perf_counter()
        self.socket.sendall(b"x" * 64)
        self._receive(64)
        return (time.perf_counter() - began) * 1e6

    def _receive(self, size: int) -> None:
        while size > 0:
            count = self.socket.recv_into(self.buffer)
            if not count:
                raise EOFError("the machine has gone")
            size -= count

    async def out(self, source: str, size: int) -> float:
        """MiB/s of `size` bytes that the shell's words `source` write, from their pipe (or file) to us."""
        program = await self._program(source.format(program=f"{FOLDER}/bare_port {NAME} out"))
        began = time.perf_counter()
        self.socket.sendall(b"!")
        self._receive(size)
        took = time.perf_counter() - began
        await _finished(program)
        return size / MIB / took

    async def into(self, sink: str, data: bytes) -> float:
        """MiB/s of `data` from us into the pipe (or file) of the shell's words `sink`."""
        program = await self._program(sink.format(program=f"{FOLDER}/bare_port {NAME} in {len(data)}"))
        began = time.perf_counter()
        self.socket.sendall(data)
        self._receive(1)
        took = time.perf_counter() - began
        await _finished(program)
        return len(data) / MIB / took

    @asynccontextmanager
    async def spawner(self) -> AsyncIterator[Callable[[], Awaitable[float]]]:
        """A call that gives the milliseconds from the fork of /bin/true to its reaped exit, by the agent's own code."""
        program = await self.sandbox.exec_stream(f"{FOLDER}/bare_spawn", stdin=Stdin.pipe())
        await program.recv()
        sink = program.take_stdin()
        assert sink is not None

        async def spawn() -> float:
            await sink.write(b"!")
            event = await program.recv()
            assert event is not None and event.data is not None
            return int(event.data) / 1e3

        yield spawn
        await sink.close()
        await _finished(program)

    async def _program(self, script: str) -> ExecHandle:
        program = await self.sandbox.shell_stream(script)
        event = await program.recv()
        assert event is not None and event.event_type is ExecEventType.STARTED
        self._receive(1)
        return program


async def _finished(program: ExecHandle) -> None:
    output = await program.collect()
    assert output.success, output.stderr_text


@asynccontextmanager
async def opened(home: Home) -> AsyncIterator[BarePort]:
    """A sandbox, booted cold, with the port and the programs in it."""
    with tempfile.TemporaryDirectory() as folder:
        programs = compile_programs(Path(folder))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(bare.TIMEOUT)
        config = SandboxConfig.from_options("bench-relay", {"image": bare.IMAGE, "warm": False})
        async with service(serve_sandbox, config, home, (Port(NAME, theirs.fileno()),), name="sandbox") as runtime:
            theirs.close()
            sandbox = Sandbox(runtime)
            for name, program in programs.items():
                script = f"mkdir -p {FOLDER}; cat > {FOLDER}/{name}; chmod +x {FOLDER}/{name}"
                output = await sandbox.shell(script, stdin=program)
                assert output.success, output.stderr_text
            yield BarePort(sandbox, ours)


def compile_programs(folder: Path) -> dict[str, bytes]:
    """The programs by name, static."""
    agent = [path for path in sorted(GUEST.glob("*.c")) if path.name != "main.c"]
    sources = {"bare_port": [HERE / "bare_port.c"], "bare_spawn": [HERE / "bare_spawn.c", *agent]}
    compiler = "musl-gcc" if shutil.which("musl-gcc") else "cc"
    for name, files in sources.items():
        subprocess.run([compiler, *FLAGS, "-o", folder / name, *files], check=True)
    return {name: (folder / name).read_bytes() for name in sources}
