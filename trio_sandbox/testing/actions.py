"""What can be done to programs in a sandbox, as values: the steps of scripts that are drawn, shrunk and played again.

`session` counts back from the session that was started last, among those that live (0 is that one); `client` counts
among the clients, 0 being the sandbox's own handle. Both wrap around, so that a step means something in any script; one
of a script without sessions does nothing.
"""

from __future__ import annotations

import attrs

from trio_sandbox.testing.model import ProgramModel
from trio_sandbox.testing.readable import Readable


@attrs.frozen(repr=False)
class Start(Readable):
    """Start a program. timeout in seconds. detached: it survives its client (never an endless one)."""

    program: ProgramModel
    client: int = 0
    detached: bool = False
    timeout: float | None = None


@attrs.frozen(repr=False)
class Write(Readable):
    """Write to the standard input."""

    data: bytes
    session: int = 0


@attrs.frozen(repr=False)
class CloseInput(Readable):
    """End the standard input."""

    session: int = 0


@attrs.frozen(repr=False)
class Credit(Readable):
    """Take so many bytes of output, as far as they are there: the program gets as much credit back."""

    size: int
    session: int = 0


@attrs.frozen(repr=False)
class Resize(Readable):
    """Change the size of the terminal; of a program without one this is refused."""

    rows: int
    cols: int
    session: int = 0


@attrs.frozen(repr=False)
class Signal(Readable):
    """Send a signal to the program."""

    number: int
    session: int = 0


@attrs.frozen(repr=False)
class Kill(Readable):
    """Kill the program, and read on."""

    session: int = 0


@attrs.frozen(repr=False)
class Pause(Readable):
    """Let time pass: virtual seconds, or a moment of real time."""

    seconds: float


@attrs.frozen(repr=False)
class Detach(Readable):
    """Leave a program that survives that."""

    session: int = 0


@attrs.frozen(repr=False)
class Attach(Readable):
    """Take over a program that was left, as this client."""

    session: int = 0
    client: int = 0


@attrs.frozen(repr=False)
class Cancel(Readable):
    """Cancel the block of a program's handle."""

    session: int = 0


@attrs.frozen(repr=False)
class Connect(Readable):
    """One more client."""


@attrs.frozen(repr=False)
class Close(Readable):
    """A client leaves; what does not survive it is killed. The sandbox's own handle stays."""

    client: int = 1


StdinAction = Write | CloseInput | Resize | Signal | Pause
Action = Start | StdinAction | Credit | Kill | Detach | Attach | Cancel | Connect | Close
