"""What a sandbox could leave behind, counted: processes, descriptors, sockets, mounts, files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.processes import children
from trio_sandbox.home import Home

VMM_NAME = "trio-sandbox-vm"
"""The thread name that QEMU gives itself (its command line has it as `process=`); the kernel keeps 15 bytes of it."""


def machines(home: Home) -> set[int]:
    """The pids of the VMMs of this data folder, and of VMMs that are our own children and that nobody has reaped.

    Not those of other data folders: somebody else may use the package on this machine while we look.
    """
    return {pid for pid in users(home) | _zombies() if _is_vmm(Path(f"/proc/{pid}"))}


def _is_vmm(process: Path) -> bool:
    try:
        stat, command = (process / "stat").read_text(), (process / "cmdline").read_bytes()
    except OSError:
        return False
    return f"process={VMM_NAME}".encode() in command or VMM_NAME[:15] in stat


def users(home: Home) -> set[int]:
    """The pids of all processes but this one that hold something of the data folder open: VMMs, sandbox processes."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _holds(entry, str(home.root)):
            found.add(int(entry.name))
    return found


def _holds(process: Path, folder: str) -> bool:
    try:
        return any(os.readlink(entry).startswith(f"{folder}/") for entry in (process / "fd").iterdir())
    except OSError:  # it has ended meanwhile
        return False


def files_under(root: Path) -> frozenset[str]:
    """Every file below `root`; folders come with their first use and stay."""
    return frozenset(str(path) for path in root.rglob("*") if not path.is_dir()) if root.exists() else frozenset()


@attrs.frozen
class Traces:
    """A picture of all that could leak from this process and in this data folder."""

    machines: frozenset[int]
    users: frozenset[int]
    children: frozenset[int]
    descriptors: tuple[str, ...]
    sockets: frozenset[str]
    mounts: str
    home: frozenset[str]
    temporary: frozenset[str]

    @classmethod
    def take(cls, home: Home) -> Traces:
        users_now = users(home)
        return cls(
            machines=frozenset(machines(home)),
            users=frozenset(users_now),
            children=frozenset(children()),
            descriptors=tuple(sorted(_descriptors())),
            sockets=frozenset(_sockets_in((str(home.root), tempfile.gettempdir()))),
            mounts=Path("/proc/self/mountinfo").read_text(),
            home=files_under(home.root),
            temporary=frozenset(os.listdir(tempfile.gettempdir())),
        )

    def assert_equal(self, before: Traces) -> None:
        """Raise AssertionError that names what has come and gone since `before`."""
        for field in attrs.fields(Traces):
            now, then = getattr(self, field.name), getattr(before, field.name)
            if isinstance(now, frozenset):
                assert not now ^ then, f"{field.name}: new {set(now - then)}, gone {set(then - now)}"
            assert now == then, field.name


def _zombies() -> set[int]:
    """Our own children that nobody has reaped."""
    return {pid for pid in children() if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"}


def _sockets_in(folders: tuple[str, ...]) -> Iterator[str]:
    for line in Path("/proc/net/unix").read_text().splitlines():
        path = line.split()[-1]
        if path.startswith(folders):
            yield path


def _descriptors() -> Iterator[str]:
    for entry in Path("/proc/self/fd").iterdir():
        try:
            yield os.readlink(entry).split(":")[0]
        except FileNotFoundError:  # the descriptor that lists the folder
            continue


@contextmanager
def leaving_nothing(home: Home) -> Iterator[None]:
    """Assert that the block leaves this process, the data folder and the machine as they were."""
    before = Traces.take(home)
    yield
    Traces.take(home).assert_equal(before)
