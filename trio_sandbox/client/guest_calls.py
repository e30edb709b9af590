"""What a handle does in the guest: programs, terminals, files, events. anyio only; owns no task."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import anyio

from trio_sandbox.client.attach import AttachResult, bridge
from trio_sandbox.client.deadlines import deadline_ms
from trio_sandbox.client.detach_keys import parse_detach_keys
from trio_sandbox.client.events import DEFAULT_BUFFER, EventStream, Overflow, emit, subscribe_request
from trio_sandbox.client.fs import SandboxFs
from trio_sandbox.client.options import (
    DEFAULT_SIZE,
    DEFAULT_TERM,
    ExecOptions,
    Stdin,
    check_session_id,
    default_command,
    exec_request,
)
from trio_sandbox.client.outcome import ExecOutput
from trio_sandbox.client.program import ExecHandle, Leave
from trio_sandbox.client.rlimits import Rlimit
from trio_sandbox.client.terminal import Terminal
from trio_sandbox.client.transport import SandboxControl
from trio_sandbox.relay.client_messages import (
    Attach,
)


class GuestCalls:
    """The calls of a `Sandbox` that reach into its guest."""

    def __init__(self, control: SandboxControl) -> None:
        self._control = control

    @property
    def fs(self) -> SandboxFs:
        """The files in the sandbox."""
        return SandboxFs(self._control)

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
        kills it with all that it started. stdin: None is /dev/null. tty: on a terminal of 24 rows and 80 columns, with
        TERM in its environment; all output is then standard output, and a None stdin is a terminal at which nobody
        types. All output is kept in memory: use `exec_stream` for much.

        Raises ExecFailedError, ExecTimeoutError, SandboxCrashedError, SandboxNotRunningError; TypeError and ValueError
        for wrong arguments. Cancellation: the program and its children are killed, and the guest's confirmation is
        awaited for up to 5 s; where no word can reach the guest, they end there 250 ms after the scope's deadline.
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
        detached: bool = False,
    ) -> ExecHandle:
        """Start a command and return its handle, an iterator of events. Arguments as for `exec`.

        The program is killed when the handle's `async with` block ends, with the sandbox, or a little after the scope
        in which the handle was last used. detached: it survives all of them but the sandbox, leaving the block detaches
        from it, and `attach_session` returns it. Cancellation: what was started is killed.
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
        leave = Leave.DETACHES if detached else Leave.KILLS
        handle = self._start(cmd, ExecOptions.build(cmd, args, given), leave=leave)
        await handle.send_request()
        return handle

    def _start(
        self,
        cmd: str,
        options: ExecOptions,
        *,
        leave: Leave = Leave.KILLS,
        size: tuple[int, int] = DEFAULT_SIZE,
        term: str = DEFAULT_TERM,
    ) -> ExecHandle:
        request = exec_request(
            cmd,
            options,
            base_env=self._control.base_env,
            workdir=self._control.default_workdir,
            user=self._control.default_user,
            deadline_ms=0 if leave is Leave.DETACHES else deadline_ms(),
            detached=leave is Leave.DETACHES,
            detachable=leave is Leave.MAY_DETACH,
            size=size,
            term=term,
        )
        return ExecHandle(
            self._control.open_session(request),
            options.stdin,
            options.timeout,
            deadline=math.inf if leave is Leave.DETACHES else anyio.current_effective_deadline(),
            tty=options.tty,
            leave=leave,
        )

    def default_command(self, args: Sequence[str] | None = None) -> list[str]:
        """The command and arguments that `exec_default` runs. Raises as it does, before anything is sent."""
        cmd, rest = default_command(*self._control.default_words, args)
        return [cmd, *rest]

    async def exec_default(self, args: Sequence[str] | None = None, **options: Any) -> ExecOutput:
        """Run what the image is made for to its end: its ENTRYPOINT, followed by `args`, or by its CMD when they are
        None. The sandbox's `entrypoint=` takes the place of both.

        options: as for `exec`. Raises as `exec` does, and ExecFailedError (`bad_args`) when there is nothing to run.
        """
        cmd, *rest = self.default_command(args)
        return await self.exec(cmd, rest, **options)

    async def exec_default_stream(self, args: Sequence[str] | None = None, **options: Any) -> ExecHandle:
        """Start what the image is made for and return its handle. args as for `exec_default`, options as for
        `exec_stream`.
        """
        cmd, *rest = self.default_command(args)
        return await self.exec_stream(cmd, rest, **options)

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

    async def shell_stream(
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
        detached: bool = False,
    ) -> ExecHandle:
        """Start a script through the sandbox's shell and return its handle. Everything else as for `exec_stream`."""
        return await self.exec_stream(
            self._control.shell,
            ["-c", script],
            cwd=cwd,
            user=user,
            env=env,
            timeout=timeout,
            stdin=stdin,
            tty=tty,
            rlimits=rlimits,
            detached=detached,
        )

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

    async def attach_session(self, session_id: int, replay: bool = True) -> ExecHandle:
        """Take over a session that survived its client: its `session_id`, from the handle that started it.

        replay: begin with the newest 64 KiB of its output. The handle's first event is STARTED. `take_stdin` is its
        standard input; leaving the handle's block detaches again. Raises ExecFailedError with the kind
        `no_such_session`, or `session_busy` where somebody is attached to it. Cancellation: nobody is attached.
        """
        handle = self._take_over(Attach(check_session_id(session_id), replay))
        try:
            await handle.wait_until_started()
        except BaseException:
            await handle.aclose()
            raise
        return handle

    def _take_over(self, request: Attach) -> ExecHandle:
        return ExecHandle(self._control.open_session(request), Stdin.pipe(), None, tty=True, leave=Leave.DETACHES)

    async def attach(
        self,
        cmd: str | int,
        args: Sequence[str] | None = None,
        *,
        cwd: str | None = None,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        detach_keys: str | None = None,
        terminal: Terminal | None = None,
    ) -> AttachResult:
        """Bridge a terminal to a command on a terminal of its own in the sandbox, and return its exit code.

        cmd: a command, with arguments as for `exec`; or the number of a session that was detached from, which begins
        with the newest 64 KiB of its output and takes no other arguments. detach_keys: what leaves the program running
        and returns 0, with `detached` and `session_id` on the result; single characters or `ctrl-x`, with commas
        between them ("ctrl-p,ctrl-q"); "ctrl-]" when None, never when "". terminal: standard input and output when
        None.

        The terminal is in raw mode meanwhile and as it was before in any case afterwards; its size is followed. When it
        hangs up, a program that was started here gets SIGHUP, and is killed when that does not end it within 5 s; a
        session is detached from. Raises TerminalError when there is no terminal, before anything is started;
        ExecFailedError, SandboxCrashedError, SandboxNotRunningError; ValueError and TypeError for wrong arguments.
        Cancellation: what was started here is killed as by `exec`; a session is detached from.
        """
        keys = parse_detach_keys(detach_keys)
        given: dict[str, object] = {"cwd": cwd, "user": user, "env": env}
        if isinstance(cmd, int):
            check_session_id(cmd)
            if args is not None or any(value is not None for value in given.values()):
                raise TypeError("a session that runs takes no arguments, cwd, user or env")
        else:
            options = ExecOptions.build(cmd, args, {**given, "stdin": Stdin.pipe(), "tty": True})
        with (terminal or Terminal.of_this_process()).opened() as screen:
            size = screen.size()
            if isinstance(cmd, int):
                # A program on a full screen draws it anew when its size changes, and only then: one row more is a
                # change, and the bridge tells the true size next.
                size = None if size is None else (size[0] + 1, size[1])
                rows, cols = size or (0, 0)
                handle = self._take_over(Attach(cmd, rows=rows, cols=cols))
            else:
                term = os.environ.get("TERM") or DEFAULT_TERM
                handle = self._start(cmd, options, leave=Leave.MAY_DETACH, size=size or DEFAULT_SIZE, term=term)
            return await bridge(handle, screen, keys, size=size, hang_up_detaches=isinstance(cmd, int))

    async def attach_shell(
        self,
        *,
        cwd: str | None = None,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        detach_keys: str | None = None,
        terminal: Terminal | None = None,
    ) -> AttachResult:
        """Bridge a terminal to the sandbox's shell. Everything else as for `attach`."""
        return await self.attach(
            self._control.shell, cwd=cwd, user=user, env=env, detach_keys=detach_keys, terminal=terminal
        )
