"""Many clients of one machine: places, a client that stalls, clients that vanish, a full sandbox that is stopped."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_sandbox import ClientLimitError, ExecEventType, Sandbox, Stdin, connect, open_sandbox
from trio_sandbox.relay.admission import CLIENT_LIMIT
from trio_sandbox.relay.budget import CLIENT_BYTES

pytestmark = pytest.mark.anyio

PATIENCE = 120
MIB = 1 << 20


@asynccontextmanager
async def shared(tmp_path: Path, name: str = "shared") -> AsyncIterator[tuple[Sandbox, Path]]:
    """A sandbox that others may connect to, and where."""
    address = tmp_path / "relay.sock"
    with trio.fail_after(PATIENCE):
        async with open_sandbox(name, image="local/base", listen=address) as sandbox:
            yield sandbox, address


async def processes(sandbox: Sandbox, name: str) -> int:
    """How many programs of that name run in the guest."""
    counted = await sandbox.shell(f"ps -e -o comm= | grep -cx {name}")
    return int(counted.stdout_text)


async def until_none(sandbox: Sandbox, name: str) -> None:
    while await processes(sandbox, name):
        await trio.sleep(0.05)


async def test_sixteen_clients_fit_and_one_more_is_told_or_waits(tmp_path: Path) -> None:
    async with shared(tmp_path) as (sandbox, address), AsyncExitStack() as stack:
        for _ in range(CLIENT_LIMIT - 1):  # the block's own handle is the sixteenth
            await stack.enter_async_context(await connect(address))
        with pytest.raises(ClientLimitError) as caught:
            await connect(address)
        assert (caught.value.limit, caught.value.used) == (CLIENT_LIMIT, CLIENT_LIMIT)
        with pytest.raises(ClientLimitError):
            await connect(address, wait=0.05)
        async with trio.open_nursery() as nursery:

            async def wait_for_a_place() -> None:
                async with await connect(address, wait=PATIENCE) as late:
                    assert (await late.exec("echo", ["in"])).stdout_text == "in\n"

            nursery.start_soon(wait_for_a_place)
            await trio.testing.wait_all_tasks_blocked(0.2)
            await stack.aclose()
        assert (await sandbox.exec("true")).success


async def test_a_full_sandbox_can_be_stopped(tmp_path: Path) -> None:
    async with shared(tmp_path) as (sandbox, address), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await connect(address)) for _ in range(CLIENT_LIMIT - 1)]
        await clients[0].stop()
        assert await clients[1].wait() == (0, True)
        assert await sandbox.wait() == (0, True)


async def test_a_client_that_never_reads_stalls_its_own_program_only(tmp_path: Path) -> None:
    async with shared(tmp_path) as (sandbox, address):
        async with await connect(address) as stalled, await connect(address) as lively:
            flood = await stalled.exec_stream("cat", ["/dev/zero"])
            event = await flood.recv()
            assert event is not None and event.event_type is ExecEventType.STARTED
            await stalled.shell("head -c 100000000 /dev/zero > /tmp/x & exec sleep 0.2")  # its other sessions move
            data = os.urandom(3 * MIB)
            for client in (lively, sandbox):
                assert (await client.exec("cat", stdin=data)).stdout_bytes == data
                await client.fs.write("/root/file", data)
                assert await client.fs.read("/root/file") == data
            await flood.kill()
            assert (await flood.wait())[0] == 128 + signal.SIGKILL


async def agent_memory(sandbox: Sandbox) -> int:
    """Bytes that the guest agent holds."""
    status = await sandbox.fs.read_text("/proc/1/status")
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


async def test_memory_is_bounded_while_nobody_reads_anything(tmp_path: Path) -> None:
    """16 clients with 4 endless programs each: what waits for them is within their windows, everywhere."""
    async with shared(tmp_path) as (sandbox, address), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await connect(address)) for _ in range(CLIENT_LIMIT - 1)]
        assert await agent_memory(sandbox) < 4 * MIB
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        floods = [await client.exec_stream("cat", ["/dev/zero"]) for client in (*clients, sandbox) for _ in range(4)]
        while await processes(sandbox, "cat") < len(floods):
            pass
        for _ in range(20):  # each takes a turn of the agent, which would read more if it were let
            assert (await sandbox.exec("echo", ["still"])).stdout_text == "still\n"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        # The relay and all clients live in this process: what they hold is held twice.
        assert grown * 1024 < 2 * CLIENT_LIMIT * CLIENT_BYTES, f"{grown} KiB"
        assert await agent_memory(sandbox) < 8 * MIB
        for flood in floods:
            await flood.kill()


VANISHING = """
import sys, trio
from trio_sandbox import connect

async def main():
    async with await connect(sys.argv[1]) as sandbox:
        kept = await sandbox.exec_stream("sh", ["-c", "echo kept; exec sleep 2000"], detached=True)
        lost = await sandbox.exec_stream("sleep", ["1000"])
        while (await kept.recv()).data != b"kept\\n":
            pass
        await lost.recv()
        print(kept.session_id, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_a_client_that_vanishes_takes_its_programs_along_but_for_the_detached(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with shared(tmp_path) as (sandbox, address):
        client = subprocess.Popen(
            [sys.executable, "-c", VANISHING, address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            assert client.stdout is not None
            kept = int(await trio.to_thread.run_sync(client.stdout.readline))
            assert await processes(sandbox, "sleep") == 2
            client.send_signal(number)
            await trio.to_thread.run_sync(client.wait)
            while await processes(sandbox, "sleep") == 2:
                await trio.sleep(0.05)
            (survivor,) = await sandbox.sessions()
            assert (survivor.id, survivor.attached) == (kept, False)
            async with await sandbox.attach_session(kept) as handle:
                output = b""
                while output != b"kept\n":
                    event = await handle.recv()
                    assert event is not None
                    output += event.data or b""
                await handle.kill()
                await handle.wait()
            await until_none(sandbox, "sleep")
            assert list(await sandbox.sessions()) == []
        finally:
            client.kill()
            client.wait()
            assert client.stdout is not None
            client.stdout.close()


async def stream_in(sandbox: Sandbox, size: int) -> None:
    """Stream `size` bytes into a program that counts them."""
    piece = bytes(MIB)
    async with await sandbox.exec_stream("wc", ["-c"], stdin=Stdin.pipe()) as program:
        sink = program.take_stdin()
        assert sink is not None
        for _ in range(size // MIB):
            await sink.write(piece)
        await sink.close()
        assert int((await program.collect()).stdout_text) == size


async def large_input(tmp_path: Path, size: int) -> None:
    async with shared(tmp_path) as (sandbox, address), await connect(address) as client:
        for handle in (sandbox, client):
            await stream_in(handle, 8 * MIB)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await stream_in(handle, size)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < 16 * 1024, f"{grown} KiB more memory for {size >> 20} MiB of input"


async def test_input_of_any_size_streams_in_constant_memory(tmp_path: Path) -> None:
    await large_input(tmp_path, 128 * MIB)


@pytest.mark.soak
async def test_a_gibibyte_of_input_streams_in_constant_memory(tmp_path: Path) -> None:
    with trio.fail_after(600):
        async with open_sandbox("large", image="local/base") as sandbox:
            await stream_in(sandbox, 8 * MIB)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await stream_in(sandbox, 1024 * MIB)
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024
