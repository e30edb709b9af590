"""`serve_sandbox`, the one function that is a sandbox, and `open_sandbox`, which runs it in the caller's task tree.

Read `serve_sandbox` from the outside in: name, disks, VMM, agent stream, ready. Leaving a block is the shutdown step
of what it entered, and the services make the order of death the order of indentation, whatever began it: the end of
the block, a request, an outside cancel or a crash. Nothing has a name on disk, so nothing is left when all of it is
killed at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.config import SandboxConfig
from trio_sandbox.home import Home
from trio_sandbox.host.ready import host_assets
from trio_sandbox.image.rootfs import RootFilesystem, prepare_rootfs
from trio_sandbox.lifecycle import End, State
from trio_sandbox.machine import MachinePlan, closing_descriptor, serve_machine
from trio_sandbox.names import reserved_name
from trio_sandbox.runtime import Runtime
from trio_sandbox.service import service
from trio_sandbox.vm.command import Port


async def serve_sandbox(
    config: SandboxConfig,
    home: Home,
    ports: tuple[Port, ...] = (),
    *,
    task_status: trio.TaskStatus[Runtime] = trio.TASK_STATUS_IGNORED,
) -> End:
    """Be the sandbox `config` until it ends, and return how it ended. Reports `started(runtime)` when it is ready.

    ports: more virtio-serial ports of the machine, which then boots cold.

    Raises, before it is ready: SandboxAlreadyExistsError, HostNotReadyError, ImageError, StorageError, BootError;
    afterwards:
    SandboxCrashedError, RemoteProtocolError. Cancellation: the machine is killed; nothing of it is left when the
    cancellation goes on.
    """
    runtime = Runtime(config)
    mark = _stopwatch(runtime.timings)
    with reserved_name(home, config.name), runtime.lifecycle.within(State.CREATING):
        assets = await host_assets(home)
        mark("assets")
        rootfs = await prepare_rootfs(config.image, home)
        runtime.image = rootfs.config
        mark("image")
        with closing_descriptor(os.open(rootfs.path, os.O_RDONLY | os.O_CLOEXEC)) as base:
            plan = MachinePlan(config, home, assets, rootfs, base, ports=ports, mark=mark)
            async with service(runtime.relay.serve, name="relay"):
                try:
                    async with service(serve_machine, plan, name="machine") as (machine, link):
                        life = runtime.begin(machine, link)
                        mark("ready")
                        with runtime.lifecycle.within(State.RUNNING):
                            task_status.started(runtime)
                        await life.run()
                        if not machine.exited.is_set():
                            with runtime.lifecycle.within(State.STOPPING):
                                await runtime.power_off()
                except BaseException as error:
                    runtime.finish(error)
                    await runtime.relay.last_words()  # noqa: ASYNC102, ASYNC120 - shielded and timed within
                    raise
                runtime.finish(None)
                await runtime.relay.last_words()
    if runtime.crash is not None:
        raise runtime.crash
    assert runtime.end is not None
    return runtime.end


def _stopwatch(timings: dict[str, float]) -> Callable[[str], None]:
    start = time.perf_counter()
    return lambda stage: timings.__setitem__(stage, time.perf_counter() - start)


async def _hosted(config: SandboxConfig, home: Home, *, task_status: trio.TaskStatus[Runtime]) -> None:
    """A sandbox in somebody's block: when it ends as it was asked to, the block goes on with a handle that says so."""
    await serve_sandbox(config, home, task_status=task_status)
    await trio.sleep_forever()


@asynccontextmanager
async def open_sandbox(name: str, *, home: Home | None = None, **options: Any) -> AsyncIterator[Sandbox]:
    """A sandbox for the length of a block: `async with open_sandbox("worker", image="local/base") as sb:`.

    name: 1–128 bytes, letters, digits, '.', '_', '-', starting with a letter or digit; unique in the data folder.
    image: `local/NAME`, a folder with an OCI layout, or an OCI or Docker archive. Required.
    cpus: virtual CPUs (1). memory: MiB (512). workdir, user: of programs (the image's, else "/" and root).
    shell: of `shell()` ("/bin/sh"). hostname (the name). env: for every program. pull_policy ("if-missing").
    boot_timeout: seconds to the ready state (60). warm: clone a template where one is or can be made (True); clones of
    one template share the layout of their kernels' address space, which False avoids at the price of a boot.
    listen: path of a Unix socket on which other processes of this user may connect. websocket: a WebSocketAddress on
    which clients that bring its token may. idle_timeout: seconds without open programs and file operations after which
    it drains and stops. max_duration: seconds of life after which it does. home: the data folder (`Home.default()`).

    Entering raises InvalidConfigError (all problems at once), UnsupportedError for a documented option that is not
    built yet, SandboxAlreadyExistsError, HostNotReadyError, ImageError, StorageError or BootError; nothing is left
    then. When the machine crashes, the block is cancelled and SandboxCrashedError leaves it. A lone failure leaves
    bare; a failure of the block and one of the sandbox together leave as an ExceptionGroup. Leaving the block, in
    whatever way, kills the machine and removes all of it before it returns.
    """
    config = SandboxConfig.from_options(name, options)
    async with service(_hosted, config, home or Home.default(), name=f"sandbox {name}") as runtime:
        yield Sandbox(runtime)


__all__ = ["RootFilesystem", "Runtime", "Sandbox", "open_sandbox", "serve_sandbox"]
