"""Clients of a relay in a process of their own: `python -m benchmarks.crowd_client SOCKET COUNT SECONDS [stalled]`.

Each of COUNT clients goes through the same mix of commands, files and terminals for SECONDS, with a ping after every
step. A `!` is printed once all are admitted, and the milliseconds of all pings, as JSON, at the end.
`stalled`: one more client asks for output without end and never reads.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import AsyncExitStack

import trio

from trio_sandbox import Sandbox, connect


async def timed_ping(sandbox: Sandbox) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    await sandbox.ping()
    return (time.perf_counter() - began) * 1e3


async def mix(sandbox: Sandbox, number: int, pings: list[float]) -> None:
    """A command, a file there and back, a terminal; a ping after each."""
    path, content = f"/tmp/crowd-{number}", bytes(8192)
    output = await sandbox.exec("true")
    assert output.success, output
    pings.append(await timed_ping(sandbox))
    await sandbox.fs.write(path, content)
    pings.append(await timed_ping(sandbox))
    assert await sandbox.fs.read(path) == content
    pings.append(await timed_ping(sandbox))
    output = await sandbox.exec("tty", tty=True)
    assert output.success, output
    pings.append(await timed_ping(sandbox))


async def _main(address: str, count: int, seconds: float, stalled: bool) -> None:
    pings: list[float] = []
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await connect(address)) for _ in range(count + stalled)]
        if stalled:
            await clients[count].exec_stream("cat", ["/dev/zero"])
        print("!", end="", flush=True)
        ends = trio.current_time() + seconds

        async def work(client: Sandbox, number: int) -> None:
            while trio.current_time() < ends:
                await mix(client, number, pings)

        async with trio.open_nursery() as nursery:
            for number, client in enumerate(clients[:count]):
                nursery.start_soon(work, client, number)
    print(json.dumps(pings))


if __name__ == "__main__":
    trio.run(_main, sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), "stalled" in sys.argv[4:])
