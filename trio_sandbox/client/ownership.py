"""What makes a handle the owner of a sandbox in a process of its own: the other end of its leash. anyio only.

The descriptor is never closed by the garbage collector: an attached sandbox ends with the process that created it, not
with a handle that somebody dropped.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress

import anyio
import anyio.to_thread
import attrs

from trio_sandbox.client.report import Report
from trio_sandbox.home import Home
from trio_sandbox.process.order import DISCARD, FREE
from trio_sandbox.state.places import note_kill

PROCESS_TIMEOUT = 5.0
"""Seconds for the process of a sandbox that has ended to end too."""


@attrs.define(eq=False)
class Ownership:
    """A sandbox that this program created or started. leash: our end; None once its process has ended or it was let go.
    is_held: whether the sandbox is still ours to end and to remove.
    """

    home: Home
    name: str
    pid: int
    leash: int | None
    report: Report
    """Its end is the end of the sandbox's process."""
    is_held: bool = True
    _ending: anyio.Lock = attrs.Factory(anyio.Lock)

    def set_free(self) -> None:
        """The sandbox goes on without this process. Harmless when it was set free before."""
        self.is_held = False
        self._say(FREE)
        self._let_go()

    def discard(self) -> None:
        """Have the sandbox killed and forgotten; `ended` waits for it. Harmless when it has ended."""
        self._say(DISCARD)

    def _say(self, word: bytes) -> None:
        if self.leash is not None:
            try:
                os.write(self.leash, word)
            except BrokenPipeError:  # it has ended
                pass

    async def ended(self, *, forced: bool = True) -> None:
        """Wait for the end of the process of a sandbox that has ended, or was asked to; then nothing is held any more.

        forced: kill it when that does not come. Else it is left to itself after a while.
        """
        async with self._ending:  # several may wait for it at once
            if self.leash is None:
                return
            with anyio.move_on_after(PROCESS_TIMEOUT) as patience:
                await self.report.ended()
            if patience.cancelled_caught and not forced:
                return
            if patience.cancelled_caught:
                os.kill(self.pid, signal.SIGKILL)  # its pipe is open: the number is still its own
            await wait_for_exit(self.pid)
            if patience.cancelled_caught:
                await anyio.to_thread.run_sync(note_kill, self.home, self.name)
            self._let_go()

    def ended_at_exit(self) -> None:
        """`ended` for the end of a program, where no event loop runs any more. Blocks for at most PROCESS_TIMEOUT."""
        if self.leash is None:
            return
        with suppress(ProcessLookupError):
            process = os.pidfd_open(self.pid)
            try:
                if not select.select([process], [], [], PROCESS_TIMEOUT)[0]:
                    signal.pidfd_send_signal(process, signal.SIGKILL)
            finally:
                os.close(process)
        self._let_go()

    def _let_go(self) -> None:
        if self.leash is not None:
            leash, self.leash = self.leash, None
            os.close(leash)
            os.close(self.report.descriptor)


async def wait_for_exit(pid: int) -> None:
    """Wait until a process is gone, or a zombie. Its pipes and sockets close a moment before that."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await anyio.wait_readable(process)
    finally:
        os.close(process)
