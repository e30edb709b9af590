"""What makes a handle the owner of a sandbox in a process of its own: the other end of its leash. anyio only.

The descriptor is never closed by the garbage collector: an attached sandbox ends with the process that created it, not
with a handle that somebody dropped.
"""

from __future__ import annotations

import os

import anyio
import attrs

from trio_sandbox.home import Home

PROCESS_TIMEOUT = 5.0
"""Seconds for the process of a sandbox that has ended to end too."""


@attrs.define(eq=False)
class Ownership:
    """A sandbox that this program created or started. leash: our end; None once it was let go."""

    home: Home
    name: str
    leash: int | None
    report: int
    """Its end is the end of the sandbox's process."""

    @property
    def is_held(self) -> bool:
        """Whether the sandbox is still ours to end."""
        return self.leash is not None

    def set_free(self) -> None:
        """The sandbox goes on without this process. Harmless when it was set free before."""
        if self.leash is None:
            return
        leash, self.leash = self.leash, None
        try:
            os.write(leash, b"f")
        except BrokenPipeError:  # it has ended
            pass
        finally:
            os.close(leash)
            os.close(self.report)

    async def ended(self) -> None:
        """Wait for the end of the sandbox's process, which has been asked for; then nothing is held any more."""
        if self.leash is None:
            return
        with anyio.move_on_after(PROCESS_TIMEOUT):
            while True:
                await anyio.wait_readable(self.report)
                if not os.read(self.report, 65_536):
                    break
        leash, self.leash = self.leash, None
        os.close(leash)
        os.close(self.report)
