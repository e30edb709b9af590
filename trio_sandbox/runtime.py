"""A sandbox from within: what its handle, its clients and `serve_sandbox` ask of it.

Owns: the relay. Everything here is called on the sandbox's own Trio loop.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import attrs
import trio

from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import (
    RemoteProtocolError,
    SandboxCrashedError,
    SandboxDrainingError,
    SandboxError,
    SandboxNotRunningError,
    SandboxPausedError,
    UnsupportedError,
)
from trio_sandbox.forking import forkable, told_forkable
from trio_sandbox.image.rootfs import ImageConfig, RootFilesystem
from trio_sandbox.life import Life
from trio_sandbox.lifecycle import CRASHES, End, EndReason, Lifecycle, State, end_of_machine
from trio_sandbox.listening import listeners_of
from trio_sandbox.logs.places import found_logs, logs_of
from trio_sandbox.logs.recorder import Recorder
from trio_sandbox.metrics import Meter
from trio_sandbox.program_defaults import ProgramDefaults
from trio_sandbox.relay.client_messages import (
    Answer,
    Ended,
    MetricsSample,
    Request,
    SessionInfo,
    Welcome,
)
from trio_sandbox.relay.events import Opener
from trio_sandbox.relay.frames import PROTOCOL_VERSION
from trio_sandbox.relay.link import AgentLink, LinkLost, Session
from trio_sandbox.relay.messages import Shutdown
from trio_sandbox.relay.relay import Relay
from trio_sandbox.service import is_cancellation
from trio_sandbox.state.owner import boot_id
from trio_sandbox.state.record import Record
from trio_sandbox.vm.qmp import QmpClosed, QmpError
from trio_sandbox.vm.running import RunningMachine
from trio_sandbox.vm.supervise import POWER_OFF_TIMEOUT

FORCED = frozenset({EndReason.KILLED, EndReason.CANCELLED})
"""The ends that do not wait for the guest."""


@attrs.define(eq=False)
class Runtime:
    """A sandbox from within: what `serve_sandbox` reports when it is ready, and what its handle works on."""

    config: SandboxConfig
    socket: Path | None = None
    """Where its own process listens, beside what `config` asks for."""
    lifecycle: Lifecycle = attrs.Factory(Lifecycle)
    image: ImageConfig = attrs.Factory(ImageConfig)
    rootfs: RootFilesystem | None = None
    """What it stands on; None for a disk image."""
    machine: RunningMachine | None = None
    link: AgentLink | None = None
    timings: dict[str, float] = attrs.Factory(dict)
    """Seconds since the request at which each stage was reached."""
    life: Life | None = None
    """From ready on."""
    record: Record | None = None
    logs: Recorder | None = None
    _meter: Meter | None = None
    _began: float = attrs.Factory(time.monotonic)
    end: End | None = None
    crash: SandboxCrashedError | None = None
    relay: Relay = attrs.field(init=False)
    ended: trio.Event = attrs.Factory(trio.Event)

    def __attrs_post_init__(self) -> None:
        self.relay = Relay(self, listeners_of(self.config, self.socket))

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

    def find_logs(self) -> Path:
        """Where its logs are. Raises SandboxNotFoundError when they were removed with it, UnsupportedError for a
        sandbox that keeps none.
        """
        if self.record is None:
            raise UnsupportedError("reading the logs of a sandbox without a data folder")
        return found_logs(self.record.folder, self.name)

    @property
    def defaults(self) -> ProgramDefaults:
        """What programs get where their caller says nothing."""
        return ProgramDefaults.of(self.config, self.image)

    @property
    def base_env(self) -> dict[str, str]:
        return self.defaults.env

    @property
    def default_workdir(self) -> str:
        return self.defaults.workdir

    @property
    def default_user(self) -> str:
        return self.defaults.user

    @property
    def default_words(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.defaults.entrypoint, self.defaults.cmd

    def check_open(self) -> None:
        """Raise SandboxPausedError, SandboxDrainingError, SandboxNotRunningError or SandboxCrashedError where no
        session may begin.
        """
        if self.link is None or self.life is None or self.end is not None or self.life.asked is not None:
            raise self.failure()
        if self.life.draining:
            raise SandboxDrainingError(self.config.name)
        if self.life.paused:
            raise SandboxPausedError(self.config.name)
        if not self.link.accepting:
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
        if self.life is not None:
            self.life.end(EndReason.REQUESTED, timeout)
        await self.ended.wait()

    async def kill(self) -> None:
        """End the VMM now and wait for it."""
        if self.life is not None:
            self.life.end(EndReason.KILLED)
        if self.machine is not None:
            self.machine.kill()
        await self.ended.wait()

    async def drain(self, timeout: float | None) -> None:
        """Take no new sessions from now on; stop when the open ones have ended, or after `timeout` seconds."""
        await trio.lowlevel.checkpoint()
        life = self._living()
        life.drain(EndReason.DRAINED, timeout)
        await life.wait_until_draining()
        await self._recorded()

    async def _recorded(self) -> None:
        if self.record is not None:
            await self.record.settled()

    async def pause(self) -> None:
        """Return when the machine stands still. Raises SandboxDrainingError, SandboxNotRunningError."""
        await self._living().pause()
        await self._recorded()
        self._living()

    async def resume(self) -> None:
        """Return when the machine runs. Raises SandboxNotRunningError."""
        await self._living().resume()
        await self._recorded()
        self._living()

    async def metrics(self) -> MetricsSample:
        """What the sandbox uses now. Raises SandboxNotRunningError, SandboxCrashedError."""
        life = self._living()
        if self._meter is None:
            self._meter = Meter(life.machine, life.link, self.config.memory << 20, self._began)
        try:
            return await self._meter.sample(paused=life.paused)
        except (QmpClosed, QmpError):
            raise self.failure() from None

    async def touch(self) -> None:
        """Count this moment as activity, for the idle timeout."""
        await trio.lowlevel.checkpoint()
        self._living().touch()

    def _living(self) -> Life:
        if self.life is None or self.end is not None or self.life.over:
            raise self.failure()
        return self.life

    @property
    def owns_lifecycle(self) -> bool:
        """False: the block does."""
        return False

    @property
    def must_be_ended(self) -> bool:
        """False: the block ends it."""
        return False

    async def leave(self) -> None:
        """Raises UnsupportedError: the sandbox ends with the block of `open_sandbox`."""
        await self.release()

    async def remove(self) -> None:
        """Raises UnsupportedError: the sandbox is removed with its block."""
        raise UnsupportedError("removing a sandbox of open_sandbox", "it is removed with its block")

    async def release(self) -> None:
        """Raises UnsupportedError: the sandbox ends with its block."""
        raise UnsupportedError("letting go of a sandbox of open_sandbox", "it ends with its block")

    async def wait(self) -> End:
        """Wait for the machine's end."""
        await self.ended.wait()
        assert self.end is not None
        return self.end

    # -- what serve_sandbox calls

    def mark(self, stage: str) -> None:
        """A stage of the start was reached."""
        self.timings[stage] = time.monotonic() - self._began

    def begin(self, machine: RunningMachine, link: AgentLink) -> Life:
        """The agent is ready."""
        self.machine, self.link = machine, link
        if self.logs is not None and not self.logs.quiet:
            link.tap = self.logs.output
        self.life = Life(self.config, self.lifecycle, machine, link)
        self.relay.begin(link)
        return self.life

    def entered(self, state: State) -> None:
        """The lifecycle entered a state: it is written down and logged."""
        assert self.record is not None and self.logs is not None
        self.record.entered(state)
        self.logs.entered(state)

    @property
    def stages(self) -> str:
        """How long each stage of the start took."""
        return ", ".join(f"{stage} {seconds * 1000:.0f} ms" for stage, seconds in self.timings.items())

    async def power_off(self) -> None:
        """Ask the agent for a power-off and wait for it, for as long as was granted. Cancellation: the machine is
        killed.
        """
        life = self.life
        assert life is not None
        if life.machine.exited.is_set() or life.asked is None or life.asked in FORCED:
            return
        with trio.move_on_after(life.stop_timeout) as grace:
            if life.link.accepting:  # else the guest powers off already, by itself
                life.link.send(Shutdown(int(life.stop_timeout * 500), self.defaults.stop_signal))
            await life.machine.exited.wait()
        if grace.cancelled_caught and life.asked not in FORCED:
            life.machine.grace = POWER_OFF_TIMEOUT

    def finish(self, end: End) -> None:
        """The machine is gone: tell everyone who waits."""
        self.end = end
        self.lifecycle.end(end)
        if self.end.reason in CRASHES:
            self.crash = SandboxCrashedError(self.config.name, self.end.reason, self.end.console_tail)
        if self.link is not None:
            self.link.fail(self.failure)
        self.relay.end(self.ended_message())
        self.ended.set()

    def find_end(self, error: BaseException | None) -> End:
        """How the machine ended that is gone now. error: what `serve_sandbox` meets instead of its end."""
        exit_ = self.machine.exit if self.machine is not None else None
        tail = exit_.console_tail if exit_ is not None else ""
        if isinstance(error, RemoteProtocolError):
            return End(EndReason.AGENT_LOST, 1, tail)
        if State.RUNNING not in self.lifecycle.history:
            return End(EndReason.CANCELLED if is_cancellation(error) else EndReason.BOOT_FAILED, 1, tail)
        asked = self.life.asked if self.life is not None else None
        asked = asked or (EndReason.CANCELLED if is_cancellation(error) else None)
        if exit_ is None:
            return End(asked or EndReason.VMM_EXITED, -9, tail)
        lost = self.life is not None and self.life.agent_was_lost
        if asked is None and exit_.returncode == -signal.SIGKILL and lost:
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
        defaults = self.defaults
        return Welcome(
            version=PROTOCOL_VERSION,
            name=self.config.name,
            slot=slot,
            limit=limit,
            used=used,
            env=defaults.env,
            workdir=defaults.workdir,
            user=defaults.user,
            entrypoint=defaults.entrypoint,
            cmd=defaults.cmd,
            shell=self.config.shell,
            host=boot_id(),
            logs=os.fspath(logs_of(self.record.folder)) if self.record is not None else "",
        )

    def fork_source(self) -> AbstractAsyncContextManager[dict[str, Any]]:
        """What the sandbox can be forked from, for the length of the block: see `forking.forkable`."""
        return forkable(self)

    def forkable(self) -> AbstractAsyncContextManager[str]:
        """The same for another process."""
        return told_forkable(self)

    async def answer(self, request: Request) -> Answer:
        """Do what a control connection asks; "stop" and "kill" answer when the machine is gone."""
        try:
            return await self._answer(request)
        except SandboxError as error:
            return Answer(error=type(error).__name__, message=str(error))

    async def _answer(self, request: Request) -> Answer:
        match request.op:
            case "stop":
                await self.stop(max(0, request.timeout_ms) / 1000)
            case "kill":
                await self.kill()
            case "drain":
                await self.drain(request.timeout_ms / 1000 if request.timeout_ms > 0 else None)
            case "pause":
                await self.pause()
            case "resume":
                await self.resume()
            case "touch":
                await self.touch()
            case "status" | "sessions":
                pass
            case "metrics":
                return Answer(metrics=await self.metrics())
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
