"""`serve_sandbox`, the one function that is a sandbox, and `open_sandbox`, which runs it in the caller's task tree.

Read `serve_sandbox` from the outside in: name, disks, VMM, agent stream, ready. Leaving a block is the shutdown step
of what it entered, and the services make the order of death the order of indentation, whatever began it: the end of
the block, a request, an outside cancel or a crash. Nothing has a name on disk, so nothing is left when all of it is
killed at once.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.config import DEFAULT_PATH, SandboxConfig
from trio_sandbox.errors import (
    RemoteProtocolError,
    SandboxCrashedError,
    SandboxError,
    SandboxNotRunningError,
    UnsupportedError,
)
from trio_sandbox.home import Home
from trio_sandbox.host.ready import host_assets
from trio_sandbox.image.rootfs import ImageConfig, RootFilesystem, prepare_rootfs
from trio_sandbox.lifecycle import CRASHES, End, EndReason, Lifecycle, State, end_of_machine
from trio_sandbox.machine import EXIT_TIMEOUT, MachinePlan, closing_descriptor, serve_machine
from trio_sandbox.names import reserved_name
from trio_sandbox.relay.events import Opener
from trio_sandbox.relay.frames import PROTOCOL_VERSION
from trio_sandbox.relay.link import AgentLink, LinkLost, Session
from trio_sandbox.relay.liveness import Liveness
from trio_sandbox.relay.messages import Answer, Ended, Request, SessionInfo, Shutdown, Welcome
from trio_sandbox.relay.relay import Listener, Relay
from trio_sandbox.relay.unix_listener import UnixListener
from trio_sandbox.service import service, wait_any
from trio_sandbox.vm.command import Port
from trio_sandbox.vm.supervise import POWER_OFF_TIMEOUT, Machine


@attrs.define(eq=False)
class Runtime:
    """A sandbox from within: what `serve_sandbox` reports when it is ready, and what its handle works on."""

    config: SandboxConfig
    lifecycle: Lifecycle = attrs.Factory(Lifecycle)
    image: ImageConfig | None = None
    machine: Machine | None = None
    link: AgentLink | None = None
    timings: dict[str, float] = attrs.Factory(dict)
    """Seconds since the request at which each stage was reached."""
    asked: EndReason | None = None
    end: End | None = None
    crash: SandboxCrashedError | None = None
    relay: Relay = attrs.field(init=False)
    _stop_timeout: float = 0.0
    _agent_was_lost: bool = False
    _ask: trio.Event = attrs.Factory(trio.Event)
    ended: trio.Event = attrs.Factory(trio.Event)

    def __attrs_post_init__(self) -> None:
        self.relay = Relay(self, _listeners(self.config))

    # -- what the handle calls (`client.transport.SandboxControl`)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where other clients find the relay."""
        return tuple(listener.address for listener in self.relay.listeners)

    @property
    def token(self) -> str | None:
        """What WebSocket clients must bring."""
        tokens = (getattr(listener, "token", None) for listener in self.relay.listeners)
        return next((token for token in tokens if token is not None), None)

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def shell(self) -> str:
        return self.config.shell

    @property
    def console(self) -> str:
        """The end of the guest's console."""
        return self.machine.console.tail() if self.machine is not None else ""

    @property
    def base_env(self) -> dict[str, str]:
        """The environment of every program: a PATH, the image's variables, then the sandbox's."""
        image = self.image.env if self.image else ()
        return {"PATH": DEFAULT_PATH, **dict(word.split("=", 1) for word in image if "=" in word), **self.config.env}

    @property
    def default_workdir(self) -> str:
        return self.config.workdir or (self.image and self.image.working_dir) or "/"

    @property
    def default_user(self) -> str:
        return self.config.user or (self.image and self.image.user) or ""

    def check_open(self) -> None:
        """Raise SandboxNotRunningError or SandboxCrashedError where no session may begin."""
        if self.link is None or self.end is not None or self.asked is not None or not self.link.accepting:
            raise self.failure()

    def open_session(self, request: Opener) -> Session:
        """Begin a session on this process's own channel. Raises SandboxNotRunningError, SandboxCrashedError, and
        ExecFailedError for a request over 1 MiB or one session too many.
        """
        return self.relay.open_session(request)

    async def ping(self) -> None:
        """Return when the agent has answered. Raises SandboxNotRunningError or SandboxCrashedError."""
        self.check_open()
        assert self.link is not None
        try:
            await self.link.ping()
        except LinkLost:
            raise self.failure() from None

    async def sessions(self) -> tuple[SessionInfo, ...]:
        """The sessions that survive their clients."""
        await trio.lowlevel.checkpoint()
        self.check_open()
        return self.relay.survivors.infos

    async def stop(self, timeout: float) -> None:
        """Ask for a power-off with a grace of `timeout` seconds, or for a kill with 0, and wait for the end."""
        if timeout == 0:
            await self.kill()
            return
        self.request_end(EndReason.REQUESTED, timeout)
        await self.ended.wait()

    async def kill(self) -> None:
        """End the VMM now and wait for it."""
        self.request_end(EndReason.KILLED)
        if self.machine is not None:
            self.machine.kill()
        await self.ended.wait()

    async def release(self) -> None:
        """Raises UnsupportedError: the sandbox ends with its block."""
        raise UnsupportedError("letting go of a sandbox of open_sandbox", "it ends with its block")

    async def wait(self) -> End:
        """Wait for the machine's end."""
        await self.ended.wait()
        assert self.end is not None
        return self.end

    # -- what serve_sandbox calls

    def request_end(self, reason: EndReason, stop_timeout: float = 0.0) -> None:
        """Leave the running state for `reason`. A kill overrides a stop; nothing overrides an end."""
        if self.end is None and (self.asked is None or reason is EndReason.KILLED):
            self.asked, self._stop_timeout = reason, stop_timeout
        self._ask.set()

    async def wait_until_over(self, machine: Machine, link: AgentLink) -> None:
        """Wait until the end is asked for or has come by itself."""
        await wait_any(self._ask.wait, machine.exited.wait, link.lost.wait, partial(self._watch, Liveness(link)))
        if link.lost.is_set():
            with trio.move_on_after(EXIT_TIMEOUT) as patience:
                await machine.exited.wait()
            self._agent_was_lost = patience.cancelled_caught

    async def _watch(self, liveness: Liveness) -> None:
        try:
            await liveness.run()
        except SandboxError:  # the machine has gone meanwhile
            await trio.sleep_forever()
        self._agent_was_lost = True

    async def power_off(self, machine: Machine, link: AgentLink) -> None:
        """Ask the agent for a power-off and wait for it, for as long as was granted. Cancellation: the machine is
        killed.
        """
        if machine.exited.is_set() or self.asked is not EndReason.REQUESTED:
            return
        with trio.move_on_after(self._stop_timeout) as grace:
            if link.accepting:  # else the guest powers off already, by itself
                link.send(Shutdown(int(self._stop_timeout * 500)))
            await machine.exited.wait()
        if grace.cancelled_caught and self.asked is EndReason.REQUESTED:
            machine.grace = POWER_OFF_TIMEOUT

    def finish(self, error: BaseException | None) -> None:
        """The machine is gone: find out why, and tell everyone who waits."""
        self.end = self._find_end(error)
        self.lifecycle.end(self.end)
        if self.end.reason in CRASHES:
            self.crash = SandboxCrashedError(self.config.name, self.end.reason, self.end.console_tail)
        if self.link is not None:
            self.link.fail(self.failure)
        self.relay.end(self.ended_message())
        self.ended.set()

    def _find_end(self, error: BaseException | None) -> End:
        exit_ = self.machine.exit if self.machine is not None else None
        tail = exit_.console_tail if exit_ is not None else ""
        if isinstance(error, RemoteProtocolError):
            return End(EndReason.AGENT_LOST, 1, tail)
        if State.RUNNING not in self.lifecycle.history:
            return End(EndReason.CANCELLED if isinstance(error, trio.Cancelled) else EndReason.BOOT_FAILED, 1, tail)
        asked = self.asked or (EndReason.CANCELLED if isinstance(error, trio.Cancelled) else None)
        if exit_ is None:
            return End(asked or EndReason.VMM_EXITED, -9, tail)
        if asked is None and exit_.returncode == -signal.SIGKILL and self._agent_was_lost:
            return End(EndReason.AGENT_LOST, 1, tail)  # it was our own ladder that ended a VMM without an agent
        return end_of_machine(exit_.shutdown_reason, exit_.returncode, tail, asked)

    def failure(self) -> SandboxError:
        """What an operation raises now that the machine has ended or is ending."""
        if self.crash is None:
            return SandboxNotRunningError(self.config.name)
        error = SandboxCrashedError(self.config.name, self.crash.reason, self.crash.console_tail)
        error.__cause__ = self.crash  # so that the block's error and the sandbox's are known for one
        return error

    # -- what the relay asks (`relay.relay.SandboxFacts`)

    def welcome(self, slot: int, limit: int, used: int) -> Welcome:
        """What a new client is told."""
        return Welcome(
            version=PROTOCOL_VERSION,
            name=self.config.name,
            slot=slot,
            limit=limit,
            used=used,
            env=self.base_env,
            workdir=self.default_workdir,
            user=self.default_user,
            shell=self.config.shell,
        )

    async def answer(self, request: Request) -> Answer:
        """Do what a control connection asks; "stop" and "kill" answer when the machine is gone."""
        match request.op:
            case "stop":
                await self.stop(max(0, request.timeout_ms) / 1000)
            case "kill":
                await self.kill()
            case "status" | "sessions":
                pass
            case other:
                return Answer(error="unsupported", message=f"there is no control operation {other!r}")
        ended = self.ended_message()
        return Answer(
            state=ended.state,
            reason=ended.reason,
            exit_code=ended.exit_code,
            console_tail=ended.console_tail,
            clients=self.relay.admission.clients.used,
            sessions=self.relay.survivors.infos if self.link is not None else (),
        )

    def ended_message(self) -> Ended:
        """How it ended; before that, with the state that it is in and no reason."""
        if self.end is None:
            return Ended(self.lifecycle.state, "", 0, "")
        return Ended(self.lifecycle.state, self.end.reason, self.end.exit_code, self.end.console_tail)


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
                        runtime.machine, runtime.link = machine, link
                        runtime.relay.begin(link)
                        mark("ready")
                        await _live(runtime, machine, link, task_status)
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


async def _live(runtime: Runtime, machine: Machine, link: AgentLink, task_status: trio.TaskStatus[Runtime]) -> None:
    """From ready to the end of the machine, or to the moment when it has to be forced."""
    with runtime.lifecycle.within(State.RUNNING):
        task_status.started(runtime)
        await runtime.wait_until_over(machine, link)
    if not machine.exited.is_set():
        with runtime.lifecycle.within(State.STOPPING):
            await runtime.power_off(machine, link)


def _listeners(config: SandboxConfig) -> tuple[Listener, ...]:
    listeners: list[Listener] = []
    if config.listen is not None:
        listeners.append(UnixListener(Path(os.path.abspath(config.listen))))
    if (asked := config.websocket) is not None:
        from trio_sandbox.relay.websocket_listener import WebSocketListener  # 60 ms that only its users pay

        given = {} if asked.token is None else {"token": asked.token}
        listeners.append(WebSocketListener(asked.host, asked.port, **given))
    return tuple(listeners)


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
    which clients that bring its token may. home: the data folder (`Home.default()`).

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
