"""A simulated guest: what it can run, what it holds, who its users are, and what goes wrong in it.

It is no sandbox: nothing in it is isolated from anything. Its programs are async Python functions in the caller's own
process, its files are in memory, and its time is Trio's, which may be virtual.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from trio_sandbox.relay.messages import (
    BootFailed,
)
from trio_sandbox.testing.faults import Faults
from trio_sandbox.testing.files import FileError, MemoryFiles
from trio_sandbox.testing.program import Main, Program
from trio_sandbox.testing.programs import BUILT_IN

if TYPE_CHECKING:
    from trio_sandbox.testing.machine import SimulatedMachine

PROGRAM_FOLDERS = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
SHELLS = ("sh", "bash")


@attrs.define(eq=False)
class SimulatedGuest:
    """One guest, for one machine at a time.

    programs: by name; they are in all folders of programs. scripts: what `sh -c TEXT` and files of this text run.
    users: names with uid, gid and home. groups: names with gids. boot_time: seconds of Trio's time until the agent
    speaks. boot_failure: what it says instead of READY. ignores_shutdown: it does not stop when it is asked to.
    ignores_sigterm: nor does the VMM.
    """

    programs: dict[str, Main] = attrs.Factory(lambda: dict(BUILT_IN))
    scripts: dict[str, Main] = attrs.Factory(dict)
    files: MemoryFiles = attrs.Factory(MemoryFiles)
    users: dict[str, tuple[int, int, str]] = attrs.Factory(
        lambda: {"root": (0, 0, "/root"), "daemon": (1, 1, "/usr/sbin"), "nobody": (65534, 65534, "/nonexistent")}
    )
    groups: dict[str, int] = attrs.Factory(lambda: {"root": 0, "daemon": 1, "nogroup": 65534})
    faults: Faults = attrs.Factory(Faults)
    boot_time: float = 0.0
    boot_failure: BootFailed | None = None
    ignores_shutdown: bool = False
    ignores_sigterm: bool = False
    program_folders: tuple[str, ...] = PROGRAM_FOLDERS
    _machine: SimulatedMachine | None = None
    _clock_offset_ns: int = 0

    def __attrs_post_init__(self) -> None:
        self.files.time_ns = self.time_ns
        for name in SHELLS:
            self.programs.setdefault(name, self._shell)

    # -- what it can run

    def program(self, name: str) -> Callable[[Main], Main]:
        """Decorate an async function of a Program: the guest has it under this name from now on."""

        def add(main: Main) -> Main:
            self.programs[name] = main
            return main

        return add

    def script(self, text: str) -> Callable[[Main], Main]:
        """Decorate what `Sandbox.shell(text)` runs."""

        def add(main: Main) -> Main:
            self.scripts[text] = main
            return main

        return add

    def script_main(self, text: str) -> Main:
        """What runs a file that begins with `#!`: `scripts` by its whole text, or by that without its first line."""
        main = self.scripts.get(text) or self.scripts.get(text.partition("\n")[2])
        return main or self._unknown_script

    async def _unknown_script(self, program: Program) -> int:
        await program.stderr.send(f"{program.argv[0]}: what is in this script is not simulated\n")
        return 127

    async def _shell(self, program: Program) -> int | None:
        if len(program.argv) > 2 and program.argv[1] == "-c" and (main := self.scripts.get(program.argv[2])):
            return await main(program)
        await program.stderr.send(f"{program.argv[0]}: this script is not simulated: {program.argv[1:]}\n")
        return 127

    @property
    def running(self) -> list[int]:
        """The ids of the processes that are there."""
        return sorted(self._machine.processes) if self._machine is not None else []

    @property
    def open_sessions(self) -> list[int]:
        """The numbers of the sessions that the agent has."""
        return sorted(self._machine.sessions) if self._machine is not None else []

    def written(self, pid: int) -> int | None:
        """Bytes that a process has written to its standard output and error; None when there is no such process."""
        return self._machine.written(pid) if self._machine is not None else None

    @property
    def is_on(self) -> bool:
        """Whether a machine runs it now."""
        return self._machine is not None

    # -- what happens to it

    def panic(self, message: str = "a fault of the test") -> None:
        """The kernel panics: the sandbox has crashed, and its console says why."""
        self._running.panic(message)

    def kill_agent(self) -> None:
        """PID 1 is gone, which the kernel does not survive."""
        self._running.panic("Attempted to kill init! exitcode=0x00000009")

    def power_off(self) -> None:
        """The guest powers itself off, without a word to anybody."""
        self._running.end(0, "guest-shutdown")

    def kill_vmm(self) -> None:
        """The VMM is killed from outside."""
        self._running.end(-9, None)

    def cut(self, after: int = 7) -> None:
        """The agent's stream breaks off, so many bytes after what has gone already."""
        self._running.agent.cut(after)

    def fill_disk(self, free: int = 0) -> None:
        """No more than so many bytes find room in the files from now on."""
        self.files.capacity = self.files.used + free

    def stall(self, seconds: float) -> None:
        """The agent does nothing for so long of the guest's time."""
        self.faults.stall(self._running.clock, seconds)

    def print(self, text: str) -> None:
        """Something appears on the console."""
        self._running.console.append(text.encode())

    @property
    def _running(self) -> SimulatedMachine:
        if self._machine is None:
            raise RuntimeError("this guest runs in no machine")
        return self._machine

    # -- its clock and its users

    def time_ns(self) -> int:
        """The guest's wall clock."""
        if self._machine is None:
            return time.time_ns()
        return self._clock_offset_ns + int(self._machine.clock.now() * 1e9)

    def set_clock(self, time_ns: int) -> None:
        """The host says what time it is."""
        self._clock_offset_ns = time_ns - int(self._running.clock.now() * 1e9)

    def user(self, text: str) -> tuple[int, int, str]:
        """uid, gid and home of `name`, `uid`, `user:group` or `uid:gid`. Raises KeyError."""
        name, colon, group = text.partition(":")
        by_number = {uid: (uid, gid, home) for uid, gid, home in self.users.values()}
        if not name:
            uid, gid, home = self.users["root"]
        elif name.isdigit():
            uid, gid, home = by_number.get(int(name), (int(name), 0, ""))
        else:
            uid, gid, home = self.users[name]
        return uid, self._group(group) if colon else gid, home

    def _group(self, name: str) -> int:
        return int(name) if name.isdigit() else self.groups[name]

    def owner(self, text: str) -> tuple[int | None, int | None]:
        """What `chown` means. Raises FileError."""
        name, colon, group = text.partition(":")
        try:
            return self.user(name)[0] if name else None, self._group(group) if colon else None
        except KeyError:
            raise FileError(errno.EINVAL) from None

    # -- its machine

    def inhabit(self, machine: SimulatedMachine | None) -> None:
        """The guest runs in this machine now, or in none."""
        if machine is not None and self._machine is not None:
            raise RuntimeError("this guest runs already: each simulated sandbox needs its own")
        self._machine = machine
