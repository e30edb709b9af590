"""`simulated_sandbox`: the handle of `open_sandbox`, and all that is behind it, in front of a simulated guest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import trio

from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.config import SandboxConfig
from trio_sandbox.home import Home
from trio_sandbox.preparation import prepare_guest
from trio_sandbox.runtime import Runtime
from trio_sandbox.sandbox import claimed, run_machine
from trio_sandbox.service import service
from trio_sandbox.state.rows import Tenure
from trio_sandbox.testing.guest import SimulatedGuest
from trio_sandbox.testing.machine import serve_simulated_machine


@asynccontextmanager
async def simulated_sandbox(
    name: str = "simulated", guest: SimulatedGuest | None = None, *, home: Home | None = None, **options: Any
) -> AsyncIterator[Sandbox]:
    """A handle as `open_sandbox` gives it, with a simulated guest behind it: `async with simulated_sandbox() as sb:`.

    Nothing is isolated, nothing is started but tasks of this block, nothing is written anywhere unless `home` says
    where: then the sandbox has its name and its row there, as a real one. Relay, lifecycle, deadlines and errors are
    those of real sandboxes. It takes a millisecond or two, and under `trio.testing.MockClock` waits for nothing.

    guest: what it runs; one with the usual programs and an empty file system by default. options: as for
    `open_sandbox`; what only a real machine has (image, memory, warm, …) is accepted and means nothing.
    Raises and ends as `open_sandbox` does. Trio only.
    """
    config = SandboxConfig.from_options(name, {"image": "simulated", **options})
    async with service(_hosted, config, guest or SimulatedGuest(), home, name=f"simulated sandbox {name}") as runtime:
        yield Sandbox(runtime)


async def _hosted(
    config: SandboxConfig, guest: SimulatedGuest, home: Home | None, *, task_status: trio.TaskStatus[Runtime]
) -> None:
    await serve_simulated_sandbox(config, guest, home, task_status=task_status)
    await trio.sleep_forever()


async def serve_simulated_sandbox(
    config: SandboxConfig, guest: SimulatedGuest, home: Home | None, *, task_status: trio.TaskStatus[Runtime]
) -> None:
    """Be a sandbox with a simulated guest until it ends, as `serve_sandbox` is one with a machine."""
    runtime = Runtime(config)
    async with AsyncExitStack() as stack:
        if home is not None:
            await stack.enter_async_context(claimed(runtime, home, Tenure.EPHEMERAL))
        serve = partial(serve_simulated_machine, guest, config, runtime.mark, partial(_cut, runtime))
        prepare = partial(prepare_guest, config, Tenure.EPHEMERAL)
        await run_machine(runtime, serve, prepare, task_status=task_status)


async def _cut(runtime: Runtime) -> int:
    transports = runtime.relay.transports
    for transport in transports:
        await transport.aclose()
    return len(transports)


async def cut_clients(sandbox: Sandbox) -> int:
    """Close the connections of all clients behind sockets without a word, as if the relay's process had been killed.

    sandbox: the handle of `simulated_sandbox`, which is no such client and goes on. How many there were; each of them
    meets ConnectionLostError, and what it had started ends in the guest, unless it survives its client.
    """
    runtime = sandbox._control
    assert isinstance(runtime, Runtime), "the handle of another process"
    return await _cut(runtime)
