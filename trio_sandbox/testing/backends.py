"""Where the state machine runs: in front of a simulated guest, or of a real machine, with the same rules."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import attrs

from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.errors import FilesystemError, PathNotFoundError
from trio_sandbox.sandbox import open_sandbox
from trio_sandbox.testing.faults import Faults
from trio_sandbox.testing.guest import SimulatedGuest
from trio_sandbox.testing.sandbox import simulated_sandbox
from trio_sandbox.testing.steps import Time


class Backend(Protocol):
    """time: whose it is. moment: seconds to wait for what need not come. patience: for what must come."""

    time: Time
    moment: float
    patience: float

    def open(self, faults: Faults) -> Any:
        """An async context manager: `(sandbox, address)` of a fresh one, and a socket on which it takes clients."""

    async def is_alive(self, sandbox: Sandbox, pid: int) -> bool:
        """Whether the guest has this process."""

    async def written(self, sandbox: Sandbox, pid: int) -> int | None:
        """Bytes that the process has written so far; None where nobody knows."""


@attrs.define(eq=False)
class SimulatedBackend:
    """The simulated guest, in virtual time. make_guest: what it runs; options: as for `simulated_sandbox`."""

    make_guest: Callable[[], SimulatedGuest] = SimulatedGuest
    options: dict[str, Any] = attrs.Factory(dict)
    time: Time = Time.AUTOMATIC
    moment: float = 1.0
    patience: float = 600.0
    guest: SimulatedGuest = attrs.field(init=False, factory=SimulatedGuest)

    @asynccontextmanager
    async def open(self, faults: Faults) -> AsyncIterator[tuple[Sandbox, Path]]:
        self.guest = self.make_guest()
        self.guest.faults = faults
        with tempfile.TemporaryDirectory(prefix="trio-sandbox-kit-") as folder:
            address = Path(folder) / "s"
            async with simulated_sandbox(guest=self.guest, listen=address, **self.options) as sandbox:
                yield sandbox, address

    async def is_alive(self, sandbox: Sandbox, pid: int) -> bool:
        return pid in self.guest.running

    async def written(self, sandbox: Sandbox, pid: int) -> int | None:
        return self.guest.written(pid)


@attrs.define(eq=False)
class RealBackend:
    """Real machines: each example has its own. options: as for `open_sandbox`; `image` is required.

    Few examples are enough here: a machine takes a tenth of a second where it is cloned. Faults do not happen: they are
    for simulated guests.
    """

    options: dict[str, Any]
    time: Time = Time.REAL
    moment: float = 0.02
    patience: float = 60.0

    @asynccontextmanager
    async def open(self, faults: Faults) -> AsyncIterator[tuple[Sandbox, Path]]:
        with tempfile.TemporaryDirectory(prefix="trio-sandbox-kit-") as folder:
            address = Path(folder) / "s"
            name = Path(folder).name
            async with open_sandbox(name, listen=address, **self.options) as sandbox:
                yield sandbox, address

    async def is_alive(self, sandbox: Sandbox, pid: int) -> bool:
        try:
            status = await sandbox.fs.read_text(f"/proc/{pid}/stat")
        except PathNotFoundError:
            return False
        return status.rpartition(")")[2].split()[0] != "Z"  # a zombie is gone but for its name

    async def written(self, sandbox: Sandbox, pid: int) -> int | None:
        try:
            counters = await sandbox.fs.read_text(f"/proc/{pid}/io")
        except FilesystemError:
            return None
        return next((int(line.split()[1]) for line in counters.splitlines() if line.startswith("wchar:")), None)
