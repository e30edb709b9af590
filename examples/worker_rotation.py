"""A service whose worker is replaced without a job lost: the new one starts, the old one drains.

Workers are detached sandboxes, found by their label: this program may end and begin again, and so may the one that
rotates them; they need not be the same.
"""

from __future__ import annotations

import trio

from trio_sandbox import Sandbox, SandboxHandle, SandboxNotRunningError

WORK = "import sys, time; time.sleep(0.3); print(sys.argv[1].upper())"


async def workers(service: str) -> list[SandboxHandle]:
    """Those that take jobs, the newest last."""
    return [handle for handle in await Sandbox.list({"service": service}) if handle.status == "running"]


async def submit(service: str, job: str) -> str:
    """Do a job on the newest worker. One that drains, or has ended, refuses before it begins: the next is asked."""
    while True:
        newest = (await workers(service))[-1]
        try:
            async with await newest.connect() as worker:
                return (await worker.exec("python3", ["-c", WORK, job], timeout=60)).stdout_text.strip()
        except SandboxNotRunningError:
            await trio.sleep(0.05)


async def rotate(service: str, generation: int) -> None:
    """Start a new worker, make sure that it works, then let the old ones finish what they have, for up to a minute."""
    old = await workers(service)
    worker = await Sandbox.create_detached(
        f"{service}-{generation}", image="local/base", labels={"service": service}, ephemeral=True, memory=256
    )
    async with worker:
        assert (await worker.exec("true")).success
        await worker.detach()
    for handle in old:
        await handle.drain(timeout=60)


async def main(service: str = "shout") -> None:
    """Jobs all the time, and two rotations meanwhile."""
    done: list[str] = []

    async def customer(number: int) -> None:
        done.append(await submit(service, f"job {number}"))

    await rotate(service, 1)
    try:
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(customer, number)
                if number in (2, 5):
                    nursery.start_soon(rotate, service, number)
                await trio.sleep(0.2)
    finally:
        with trio.CancelScope(shield=True):
            for handle in await workers(service):
                await handle.drain()
                await handle.wait_until_stopped()
    print(f"{len(done)} jobs done, none lost; first and last: {min(done)}, {max(done)}")


if __name__ == "__main__":
    trio.run(main)
