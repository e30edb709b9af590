"""The handle of a running sandbox. anyio only: it works under Trio and under asyncio, and owns no task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import anyio
import attrs

from trio_sandbox.client.events import DEFAULT_BUFFER, EventStream, Overflow, emit, subscribe_request
from trio_sandbox.client.options import ExecOptions, Rlimit, Stdin, exec_request
from trio_sandbox.client.program import ExecHandle, ExecOutput
from trio_sandbox.client.transport import SandboxControl
from trio_sandbox.relay.messages import SessionInfo

STOP_TIMEOUT = 10.0
"""Seconds that `stop` gives the guest to write its data and power off."""


@attrs.frozen
class PingResult:
    """latency_ms: from the question to the answer, through the relay to the agent and back."""

    name: str
    latency_ms: float


class Sandbox:
    """A running sandbox, from `open_sandbox` or `connect`. Operations raise SandboxNotRunningError once it has ended.
    """

    def __init__(self, control: SandboxControl) -> None:
        self._control = control

    @property
    async def name(self) -> str:
        """The sandbox's name: `await sb.name`."""
        return self._control.name

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where other clients find this sandbox: a path for `listen=`, a `ws://` address for `websocket=`."""
        return self._control.addresses

    @property
    def token(self) -> str | None:
        """The bearer token that WebSocket clients must bring; None without `websocket=`."""
        return self._control.token

    @property
    def console(self) -> str:
        """The newest 32 KiB of what the guest printed on its serial console. Evidence, not truth."""
        return self._control.console

    @property
    def timings(self) -> Mapping[str, float]:
        """When each stage of the start was reached, in seconds since it was asked for, in order.

        assets, image; template (only when one had to be made); disks; spawned (a clone) or hello (a boot); ready.
        """
        return self._control.timings

    async def exec(
        self,
        cmd: str,
        args: Sequence[str] | Mapping[str, Any] | None = None,
        *,
        cwd: str | None = None,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stdin: Stdin | bytes | str | None = None,
        tty: bool = False,
        rlimits: Sequence[Rlimit] | None = None,
    ) -> ExecOutput:
        """Run a command to its end and return its output; a non-zero exit is not an error.

        cmd is literal: no shell, but PATH is searched when it has no slash. cwd and user default to the sandbox's,
        else the image's, else "/" and root. env is added to the sandbox's. timeout: seconds after which the guest
        kills it with all that it started.
        stdin: None is /dev/null. All output is kept in memory: use `exec_stream` for much. Raises ExecFailedError,
        ExecTimeoutError, SandboxCrashedError, SandboxNotRunningError; TypeError and ValueError for wrong arguments.
        Cancellation: the program and its children are killed, and the guest's confirmation is awaited for up to 5 s.
        """
        handle = await self.exec_stream(
            cmd, args, cwd=cwd, user=user, env=env, timeout=timeout, stdin=stdin, tty=tty, rlimits=rlimits
        )
        async with handle:
            return await handle.collect()

    async def exec_stream(
        self,
        cmd: str,
        args: Sequence[str] | Mapping[str, Any] | None = None,
        *,
        cwd: str | None = None,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stdin: Stdin | bytes | str | None = None,
        tty: bool = False,
        rlimits: Sequence[Rlimit] | None = None,
    ) -> ExecHandle:
        """Start a command and return its handle, an iterator of events. Arguments as for `exec`.

        The program is killed when the handle's `async with` block ends, or with the sandbox. Cancellation: nothing was
        started.
        """
        given = {
            "cwd": cwd,
            "user": user,
            "env": env,
            "timeout": timeout,
            "stdin": stdin,
            "tty": tty or None,
            "rlimits": rlimits,
        }
        options = ExecOptions.build(cmd, args, given)
        request = exec_request(
            cmd,
            options,
            base_env=self._control.base_env,
            workdir=self._control.default_workdir,
            user=self._control.default_user,
        )
        return ExecHandle(self._control.open_session(request), options.stdin, options.timeout)

    async def shell(
        self,
        script: str,
        *,
        cwd: str | None = None,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stdin: Stdin | bytes | str | None = None,
        tty: bool = False,
        rlimits: Sequence[Rlimit] | None = None,
    ) -> ExecOutput:
        """Run a script through the sandbox's shell (`shell -c script`) to its end. Everything else as for `exec`."""
        return await self.exec(
            self._control.shell,
            ["-c", script],
            cwd=cwd,
            user=user,
            env=env,
            timeout=timeout,
            stdin=stdin,
            tty=tty,
            rlimits=rlimits,
        )

    async def shell_stream(self, script: str, **options: Any) -> ExecHandle:
        """Start a script through the sandbox's shell and return its handle. Options as for `exec_stream`."""
        return await self.exec_stream(self._control.shell, ["-c", script], **options)

    async def emit(self, name: str, payload: Any = None) -> int:
        """Send an event to every guest program that listens for it, and return how many do.

        name: 1 to 128 of A-Z, a-z, 0-9, ".", "_", "-". payload: any value that `json.dumps` takes, at most 64 KiB of
        JSON, 64 deep, without NaN and infinities. A listener that does not keep up loses events, and is told how many.
        Raises ValueError and TypeError before anything is sent; ExecFailedError when the guest refuses it or this
        client has 64 sessions; SandboxCrashedError, SandboxNotRunningError. Cancellation: it was sent whole or not at
        all.
        """
        return await emit(self._control, name, payload)

    def events(
        self, name: str | None = None, *, overflow: Overflow = "drop_oldest", buffer_bytes: int = DEFAULT_BUFFER
    ) -> EventStream:
        """Subscribe to what guest programs emit: events called `name`, or all. It begins when it is first used.

        A subscription that is not read fast enough loses events, and disturbs nobody. buffer_bytes (16 KiB to 256 KiB,
        default 64 KiB) wait in this process, and are never dropped; up to 256 KiB more wait in the guest, where
        overflow says which go then: the oldest, or those that come. Raises ValueError and TypeError.
        """
        return EventStream(self._control, subscribe_request(name, overflow, buffer_bytes))

    async def ping(self) -> PingResult:
        """Ask the agent for an answer. Raises SandboxNotRunningError, SandboxCrashedError. Cancellation: no effect."""
        began = anyio.current_time()
        await self._control.ping()
        return PingResult(self._control.name, (anyio.current_time() - began) * 1000)

    async def sessions(self) -> list[SessionInfo]:
        """The programs that survive their client, oldest first; `attach` and `attach_session` come back to them."""
        return list(await self._control.sessions())

    async def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Let the guest write its data and power off; force it after `timeout` seconds, at once with 0. Harmless when
        it has ended.

        Cancellation: the stop goes on without us.
        """
        if timeout < 0:
            raise ValueError("timeout must be non-negative")
        await self._control.stop(timeout)

    async def stop_and_wait(self) -> tuple[int, bool]:
        """`stop`, then `wait`."""
        await self.stop()
        return await self.wait()

    async def kill(self) -> None:
        """End the machine at once, as a power cut would. Harmless when it has ended."""
        await self._control.kill()

    async def wait(self) -> tuple[int, bool]:
        """Wait for the machine's end: (exit code, success); 0 after a power-off, -9 when killed. Cancellation: no
        effect.
        """
        end = await self._control.wait()
        return end.exit_code, end.success

    async def detach(self) -> None:
        """Let go of a sandbox that `connect` found: it goes on. Raises UnsupportedError for one that its block owns."""
        await self._control.release()

    async def __aenter__(self) -> Sandbox:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):  # closing a socket does not wait
            await self._control.release()
