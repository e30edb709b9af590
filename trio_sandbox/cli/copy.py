"""`trio-sandbox cp`: files and folders between this machine and a sandbox."""

from __future__ import annotations

import os
import posixpath
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from trio_sandbox.cli.failures import CommandError
from trio_sandbox.cli.output import size, tell

if TYPE_CHECKING:
    from trio_sandbox.client.fs import SandboxFs
    from trio_sandbox.client.fs_types import FsCopied


@attrs.frozen
class Place:
    """One side of a copy. name: the sandbox; None for this machine."""

    name: str | None
    path: str

    @classmethod
    def of(cls, word: str) -> Place:
        """`NAME:PATH`; what begins with `/` or `.` is on this machine, whatever else it holds."""
        name, colon, path = word.partition(":")
        if colon and name and "/" not in name and not word.startswith("."):
            return cls(name, path or "/")
        return cls(None, word)

    @property
    def is_contents(self) -> bool:
        """`FOLDER/.`: what is in it, and not itself."""
        return self.path == "." or self.path.endswith("/.")

    @property
    def wants_folder(self) -> bool:
        return self.path.endswith("/")

    @property
    def last(self) -> str:
        """The last name of the path; empty where it has none."""
        last = posixpath.basename(posixpath.normpath(self.path))
        return "" if last in (".", "..") else last

    def __str__(self) -> str:
        return self.path if self.name is None else f"{self.name}:{self.path}"


@click.command()
@click.option("-u", "--user", default=None, help="Whose rights apply in the sandbox, and who owns what is made there.")
@click.option("--links", is_flag=True, help="Bring symbolic links out too; who follows one goes where the guest likes.")
@click.option("-q", "--quiet", is_flag=True, help="Do not say what was copied.")
@click.option(
    "-r", "-a", "--archive", is_flag=True, expose_value=False, help="Accepted and not needed: folders come whole."
)
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
def cp(user: str | None, links: bool, quiet: bool, source: str, destination: str) -> int:
    """Copy a file or a folder into a sandbox (`cp SRC NAME:PATH`) or out of it (`cp NAME:PATH DST`).

    Where DST is a folder, SRC goes into it; else it is what SRC becomes. `FOLDER/.` stands for what is in a folder. A
    host path with a colon is written with `./`. What comes out of a sandbox appears whole or not at all, and a folder
    must not be there yet.
    """
    here, there = Place.of(source), Place.of(destination)
    if (here.name is None) == (there.name is None):
        raise click.UsageError("one of SRC and DST must be NAME:PATH, and the other a path of this machine")
    from trio_sandbox.cli.running import run_async

    return run_async(copy, here, there, user, links, quiet)


async def copy(source: Place, destination: Place, user: str | None, links: bool, quiet: bool) -> None:
    """The whole of `cp`."""
    from trio_sandbox.cli.copy_progress import shown_progress
    from trio_sandbox.client.sandbox import Sandbox

    name = source.name or destination.name
    assert name is not None
    handle = await Sandbox.get(name)
    is_shown = not quiet and sys.stderr.isatty()
    async with await handle.connect() as sandbox:
        fs = sandbox.fs
        if destination.name is not None:
            target = await into_guest(fs, source, destination, user)
            total = size_here(source.path)
            with shown_progress(source.last, total, is_shown=is_shown) as tell_progress:
                done = await fs.copy_from_host(source.path, target.path, user=user, on_progress=tell_progress)
        else:
            target = await out_of_guest(fs, source, destination, user)
            total = await size_in_guest(fs, source, user) if is_shown else None
            with shown_progress(source.last, total, is_shown=is_shown) as tell_progress:
                done = await fs.copy_to_host(
                    source.path, target.path, symlinks=links, user=user, on_progress=tell_progress
                )
    report(done, target, quiet)


def size_here(path: str) -> int | None:
    """Bytes of a file of this machine; None for what is no file."""
    return os.path.getsize(path) if os.path.isfile(path) else None


async def size_in_guest(fs: SandboxFs, source: Place, user: str | None) -> int | None:
    """Bytes of a file in the guest; None for what is no file."""
    from trio_sandbox.client.fs_types import FsEntryKind

    status = await fs.stat(source.path, user=user)
    return status.size if status.kind is FsEntryKind.FILE else None


def report(done: FsCopied, target: Place, quiet: bool) -> None:
    """Say what was left out, and on a terminal what was copied."""
    if not quiet and sys.stderr.isatty():
        tell(f"copied {done.entries} {'entry' if done.entries == 1 else 'entries'}, {size(done.size)}, to {target}")
    if done.skipped:
        many = "" if done.skipped == 1 else "s"
        if target.name is None:
            tell(f"left out {done.skipped} symbolic link{many}; --links brings them")
        else:
            tell(f"left out {done.skipped} special file{many} (devices, FIFOs, sockets)")


async def into_guest(fs: SandboxFs, source: Place, destination: Place, user: str | None) -> Place:
    """Exactly where in the guest it goes. Raises CommandError."""
    from trio_sandbox.client.fs_types import FsEntryKind
    from trio_sandbox.errors import PathNotFoundError

    here = Path(source.path)
    is_folder = here.is_dir()
    if not is_folder and not here.is_symlink() and not here.exists():
        raise CommandError(f"{source}: there is no such file or folder")
    try:
        there = (await fs.stat(destination.path, user=user)).kind
    except PathNotFoundError:
        if destination.wants_folder and not is_folder:
            raise CommandError(f"{destination}: there is no such folder") from None
        return destination
    if there is FsEntryKind.DIRECTORY:
        if is_folder and source.is_contents:
            return destination
        name = os.path.basename(os.path.abspath(source.path))
        return attrs.evolve(destination, path=posixpath.join(destination.path, name))
    if is_folder:
        raise CommandError(f"{destination} is no folder, and {source} is one")
    return destination


async def out_of_guest(fs: SandboxFs, source: Place, destination: Place, user: str | None) -> Place:
    """Exactly where on this machine it goes. Raises CommandError, PathNotFoundError."""
    from trio_sandbox.client.fs_types import FsEntryKind

    is_folder = (await fs.stat(source.path, user=user)).kind is FsEntryKind.DIRECTORY
    target = Path(destination.path)
    if not target.is_dir():
        if destination.wants_folder and not is_folder:
            raise CommandError(f"{destination}: there is no such folder")
        return destination
    if source.is_contents:
        raise CommandError(f"{destination} is there already, and a folder is copied out to a new one; name another")
    if not source.last:
        raise CommandError(f"{source} has no name to go by in {destination}; name a new folder")
    return attrs.evolve(destination, path=str(target / source.last))
