"""A program in the sandbox on the caller's terminal, until it ends, is left by the detach keys, or the terminal goes.

Runs in: the task of `attach`, with one task that reads what is typed and one that follows the size. Cancellation: the
terminal is itself again first, then the program is ended as its handle does it.

A terminal that hangs up is no detaching: what was started for it gets SIGHUP, as from any terminal, and is killed when
that does not end it. A session that was detached from before is detached from again.
"""

from __future__ import annotations

import signal
import threading

import anyio
import anyio.abc

from trio_sandbox.client import session_end
from trio_sandbox.client.detach_keys import DetachMatcher
from trio_sandbox.client.program import ExecHandle
from trio_sandbox.client.terminal import Screen
from trio_sandbox.errors import SandboxError

FAREWELL_TIMEOUT = 1.0
"""Seconds that a terminal may take to show that we are detached; it may have been stopped."""
_KILLED = 128 + signal.SIGKILL


class AttachResult(int):
    """The exit code of an attached program, or 0 with `detached` when it goes on without us.

    session_id: the session's number in the sandbox, for `attach` and `attach_session`.
    """

    detached: bool
    session_id: int

    def __new__(cls, code: int, *, detached: bool = False, session_id: int = 0) -> AttachResult:
        result = super().__new__(cls, code)
        result.detached, result.session_id = detached, session_id
        return result

    def __repr__(self) -> str:
        return f"AttachResult({int(self)}, detached={self.detached}, session_id={self.session_id})"


async def bridge(
    handle: ExecHandle, screen: Screen, keys: bytes, *, size: tuple[int, int] | None, hang_up_detaches: bool
) -> AttachResult:
    """Join the handle of a program to a terminal, and return what became of the program. See `Sandbox.attach`.

    size: what the program's terminal was told, rows and columns; None when it was not told any.
    """
    async with handle:
        with screen.raw():
            leaving = await _Bridge(handle, screen, keys, size, hang_up_detaches).run()
        if leaving:
            with anyio.move_on_after(session_end.KILL_TIMEOUT):
                await handle.detach()
    if handle.exit is not None or not leaving:
        # A guest that was told to kill it and says nothing for so long has done so, or never will.
        code = handle.exit.code if handle.exit is not None else _KILLED
        return AttachResult(code, detached=False, session_id=handle.session_id)
    with anyio.move_on_after(FAREWELL_TIMEOUT):
        try:
            await screen.write(b"\r\n[detached from session %d]\r\n" % handle.session_id)
        except OSError:  # that is why
            pass
    return AttachResult(0, detached=True, session_id=handle.session_id)


class _Bridge:
    def __init__(
        self, handle: ExecHandle, screen: Screen, keys: bytes, size: tuple[int, int] | None, hang_up_detaches: bool
    ) -> None:
        self._handle = handle
        self._screen = screen
        self._sink = handle.take_stdin()
        self._matcher = DetachMatcher(keys)
        self._hang_up_detaches = hang_up_detaches
        self._size = size
        self._leaving = False
        self._hung_up = False
        self._tasks: anyio.abc.TaskGroup

    async def run(self) -> bool:
        """Until the program ends or is to be left; which of the two. Raises what `ExecHandle.wait` raises."""
        failure: SandboxError | None = None
        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self._type)
            if threading.current_thread() is threading.main_thread():  # no other hears signals
                self._tasks.start_soon(self._follow_size)
            else:
                self._tasks.start_soon(self._pass_size)
            try:
                await self._show()
            except SandboxError as error:  # raised below, where it is not in a group
                failure = error
            self._tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return self._leaving

    async def _show(self) -> None:
        async for event in self._handle:
            if event.data and event.event_type in ("stdout", "stderr") and not self._hung_up:
                try:
                    await self._screen.write(event.data)
                except OSError:
                    self._tasks.start_soon(self._hang_up)
        if not self._handle.detached:
            await self._handle.wait()

    async def _type(self) -> None:
        while data := await self._screen.read():
            passed, found = self._matcher.feed(data)
            if passed:
                await self._send(passed)
            if found:
                self._leave()
                return
        await self._hang_up()

    async def _send(self, data: bytes) -> None:
        try:
            if self._sink is not None:
                await self._sink.write(data)
        except BrokenPipeError:  # it reads no more, or ended; the detach keys are still looked for
            self._sink = None
        except SandboxError:  # the machine has gone: whoever shows the output says so
            pass

    def _leave(self) -> None:
        """End the bridge at once, even where it waits for a stopped terminal, and leave the program running."""
        self._leaving = True
        self._handle.ask_to_detach()
        self._tasks.cancel_scope.cancel()

    async def _hang_up(self) -> None:
        if self._hung_up:
            return
        self._hung_up = True
        if self._hang_up_detaches:
            self._leave()
            return
        await self._handle.signal(signal.SIGHUP)
        await anyio.sleep(session_end.KILL_TIMEOUT)
        self._tasks.cancel_scope.cancel()

    async def _follow_size(self) -> None:
        with anyio.open_signal_receiver(signal.SIGWINCH, signal.SIGCONT) as signals:
            await self._pass_size()  # it may have changed before we listened
            async for number in signals:
                if number == signal.SIGCONT:  # a shell that had stopped us made the terminal its own
                    self._screen.set_raw()
                await self._pass_size()

    async def _pass_size(self) -> None:
        size = self._screen.size()
        if size is not None and size != self._size:
            self._size = size
            await self._handle.resize(*size)
