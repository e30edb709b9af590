"""Who owns a sandbox: a process, named so that its number's next bearer is not taken for it. No I/O but /proc."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import attrs


@attrs.frozen
class Owner:
    """A process: its id, its start in clock ticks since the boot, and which boot that was."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Owner | None:
        """The process that has this id now; None where there is none."""
        ticks = _start_ticks(pid)
        return None if ticks is None else cls(pid, ticks, boot_id())

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        found = cls.of(os.getpid())
        assert found is not None
        return found

    @property
    def is_alive(self) -> bool:
        """Whether that very process still runs. A zombie has ended."""
        return self.boot_id == boot_id() and _start_ticks(self.pid) == self.start_ticks


@functools.cache
def boot_id() -> str:
    """Which start of the host's kernel this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything, spaces and brackets too
    return None if fields[0] in "ZX" else int(fields[19])
