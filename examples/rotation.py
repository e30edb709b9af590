"""A service whose worker is replaced without a job lost: the new one starts, the old one drains.

    $ python examples/rotation.py
    JOB 1 from shout-1
    JOB 2 from shout-2
    JOB 1A from shout-1
    ...
    9 jobs done, none lost

Workers are detached sandboxes, found by their label: this program may end and begin again, and so may the one that
rotates them; they need not be the same.
"""

from __future__ import annotations

import trio

from trio_sandbox import (
    ConnectionLostError,
    Sandbox,
    SandboxDrainingError,
    SandboxHandle,
    SandboxNotFoundError,
    SandboxNotRunningError,
)

WORK = "import sys, time; time.sleep(0.3); print(sys.argv[1].upper(), 'from', sys.argv[2])"


async def workers(service: str) -> list[SandboxHandle]:
    """Those that take jobs, the newest last."""
    return [handle for handle in await Sandbox.list({"service": service}) if handle.status == "running"]


async def connect_newest(service: str) -> Sandbox:
    """The newest worker that can be reached. One may drain, end and be gone while we look."""
    while True:
        for handle in reversed(await workers(service)):
            try:
                return await handle.connect()
            except (SandboxNotRunningError, SandboxNotFoundError, ConnectionLostError):
                continue
        await trio.sleep(0.05)


async def submit(service: str, job: str) -> str:
    """Do a job on the newest worker. One that drains refuses a job before it begins, so it can be given to another."""
    while True:
        async with await connect_newest(service) as worker:
            try:
                output = await worker.exec("python3", ["-c", WORK, job, await worker.name], timeout=60)
            except SandboxDrainingError:
                continue
        return output.stdout_text.strip()


async def rotate(service: str) -> None:
    """Start a new worker, make sure that it works, then let the old ones finish what they have, for up to a minute.

    Of two that rotate at once one succeeds, and the other is told that the name is taken.
    """
    numbers = [int(handle.name.rpartition("-")[2]) for handle in await Sandbox.list({"service": service})]
    name = f"{service}-{max(numbers, default=0) + 1}"
    old = await workers(service)
    labels = {"service": service}
    async with await Sandbox.create(name, image="local/base", labels=labels, detached=True, ephemeral=True) as worker:
        assert (await worker.exec("true")).success
        await worker.detach()  # until here a failure ends it; from here on it lives without us
    for handle in old:
        await handle.drain(timeout=60)


async def main(service: str = "shout") -> None:
    """Three generations of workers, and jobs all the time."""
    done: list[str] = []

    async def customer(job: str) -> None:
        done.append(await submit(service, job))
        print(done[-1])

    try:
        async with trio.open_nursery() as nursery:
            for generation in (1, 2, 3):
                await rotate(service)
                await customer(f"job {generation}")
                for also in "ab":  # these go on while the next worker takes over
                    nursery.start_soon(customer, f"job {generation}{also}")
    finally:
        with trio.CancelScope(shield=True):
            for handle in await workers(service):
                await handle.drain(timeout=60)
            for handle in await Sandbox.list({"service": service}):  # those that drain already, too
                await handle.wait_until_stopped()
    print(f"{len(done)} jobs done, none lost")


if __name__ == "__main__":
    trio.run(main)
