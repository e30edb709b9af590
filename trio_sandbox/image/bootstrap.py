"""Run mmdebstrap so that it leaves nothing, even when it and its owner are killed.

It works in a mount and PID namespace of its own: when this process dies the kernel kills `unshare` (parent death
signal), with it the first process of the namespace, with that all others, and then their mounts are gone. Its files are
on a tmpfs of that namespace, or, where memory is short, in a folder below Home.scratch that the next run removes.
Root needs nothing for this; others need a range of user ids (`newuidmap`). Where the host allows no namespaces at all,
mmdebstrap gets SIGTERM, on which it cleans up itself.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import attrs
import trio

from trio_sandbox.errors import HostNotReadyError, StorageError
from trio_sandbox.home import Home
from trio_sandbox.image.apt_sources import AptSources
from trio_sandbox.tools import STDERR_KEPT, ToolError, run_tool

PROGRAM = "mmdebstrap"
PACKAGES = ("python3", "procps", "coreutils", "bash", "dash")
LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*")
KEPT = ("/usr/share/doc/*/copyright",)

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Of mmdebstrap and of what it runs: the maintainer scripts of packages expect no other."""

EPOCH = 1_735_689_600
"""Start of 2025. No file of the image is younger: the same packages make the same bytes."""

TMPFS = Path("/mnt")
"""Where the tmpfs is mounted, for the build alone: every host has it, and it hides nothing that the build needs."""

TMPFS_NEEDS_BYTES = 1 << 30
"""Memory that must be free for the tmpfs to be used; the build takes less than half of it."""

TERMINATE_SECONDS = 10
"""For mmdebstrap to clean its folder, where it has one on disk."""

# The host's name and resolver are its own business, and the guest agent sets the guest's.
_FORGET_HOST = 'rm -f "$1/etc/hostname" "$1/etc/resolv.conf"'
_ON_TMPFS = f'mount -t tmpfs -o mode=1777 tmpfs {TMPFS} && cd / && exec "$@"'
_ON_DISK = 'cd / && exec "$@"'
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_MAPPING = ("--map-root-user", "--map-auto")


@attrs.frozen
class Place:
    """Where and as whom mmdebstrap works."""

    prefix: tuple[str, ...]
    """What comes before mmdebstrap's own command line."""
    mode: str
    folder: Path | None
    """Its TMPDIR on disk; None when it has a tmpfs."""
    is_private: bool
    """Whether it is alone in its namespaces, so that it can be killed without a word."""


async def write_base_tar(sources: AptSources, target: int, home: Home, report: Callable[[str], None]) -> None:
    """Write the tar of a new base system to the descriptor `target`. Takes half a minute and a network mirror.

    The caller holds a lock: one at a time per home. Cancellation kills the build and removes its traces. Raises
    HostNotReadyError, ToolError, StorageError. `report` gets each step's name.
    """
    leftover = home.scratch / PROGRAM
    if not _remove(leftover):
        raise HostNotReadyError(PROGRAM, f"a killed build left mounts below {leftover}", "unmount them, or restart")
    place = await _choose_place(leftover)
    try:
        await _run(_command(place, sources), place, sources, target, report)
    finally:
        _remove(leftover)


def _remove(folder: Path) -> bool:
    """Remove a folder and all in it. Refuses when something is mounted below: it might be the host's /dev."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    mounts = [re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split()[4]) for line in lines]
    inside = os.fsencode(os.path.join(os.path.realpath(folder), ""))
    if any(os.path.join(mount, b"").startswith(inside) for mount in mounts):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


async def _choose_place(folder: Path) -> Place:
    has_memory = _free_memory() >= TMPFS_NEEDS_BYTES
    script = _ON_TMPFS if has_memory else _ON_DISK
    namespaces = (*_NAMESPACES, *(() if os.geteuid() == 0 else _MAPPING), "sh", "-c", script, "sh")
    if not has_memory:
        folder.mkdir(mode=0o711)
    with suppress(HostNotReadyError):
        if (await run_tool([*namespaces, "true"], check=False)).returncode == 0:
            prefix = ("setpriv", "--pdeathsig", "KILL", *namespaces)
            return Place(prefix, "root", None if has_memory else folder, is_private=True)
    folder.mkdir(mode=0o711, exist_ok=True)
    mode = "root" if os.geteuid() == 0 else "unshare"
    return Place(("setpriv", "--pdeathsig", "TERM"), mode, folder, is_private=False)


def _free_memory() -> int:
    """Bytes of memory that could be had without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def _command(place: Place, sources: AptSources) -> list[str]:
    return [
        *place.prefix,
        PROGRAM,
        f"--mode={place.mode}",
        "--variant=minbase",
        "--format=tar",
        f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        *(f"--dpkgopt=path-include={pattern}" for pattern in KEPT),
        '--aptopt=Acquire::Languages "none"',
        f"--customize-hook={_FORGET_HOST}",
        sources.suite,
        "-",  # the tar goes to standard output
        "-",  # the sources come from standard input
    ]


async def _run(
    argv: Sequence[str], place: Place, sources: AptSources, target: int, report: Callable[[str], None]
) -> None:
    # Not through Trio's run_process: it starts programs from a worker thread, and the death signal is the thread's.
    for program in ("setpriv", PROGRAM):
        if shutil.which(program, path=SEARCH_PATH) is None:
            raise HostNotReadyError(program, "the program is not installed", f"install {program}")
    environment = {
        "PATH": SEARCH_PATH,
        "LC_ALL": "C.UTF-8",
        "HOME": "/",
        "DEBIAN_FRONTEND": "noninteractive",
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "TMPDIR": str(place.folder or TMPFS),
        **sources.environment,
    }
    process = subprocess.Popen(  # noqa: ASYNC220
        argv, stdin=subprocess.PIPE, stdout=target, stderr=subprocess.PIPE, env=environment, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        # A few lines fit into the pipe at once.
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(("\n".join(sources.lines) + "\n").encode())
        said = await _follow(process.stderr.fileno(), report)
        await _exited(process)
    finally:
        with process.stderr:
            with trio.move_on_after(2 * TERMINATE_SECONDS, shield=True):
                await _end(process, process.stderr.fileno(), gently=not place.is_private)
    if process.returncode:
        if os.strerror(errno.ENOSPC) in said:
            folder = str(place.folder or _folder_of(target))
            raise StorageError(folder, errno.ENOSPC, "no space left, here or in the memory that the build works in")
        raise ToolError([PROGRAM], process.returncode, said)


def _folder_of(descriptor: int) -> str:
    """The folder of an open file, for a message."""
    return os.path.dirname(os.readlink(f"/proc/self/fd/{descriptor}"))


async def _follow(descriptor: int, report: Callable[[str], None]) -> str:
    """Report mmdebstrap's steps while it runs, and return the end of all that it said."""
    said = b""
    line = b""
    async with trio.lowlevel.FdStream(os.dup(descriptor)) as stream:
        async for data in stream:
            said = (said + data)[-STDERR_KEPT:]
            *lines, line = (line + data).splitlines(keepends=True) or [b""]
            if line.endswith(b"\n"):
                lines, line = [*lines, line], b""
            for text in lines:
                if text.startswith(b"I: ") and text.rstrip().endswith(b"..."):
                    report(text[3:].strip().rstrip(b".").decode(errors="replace"))
    return said.decode(errors="replace")


async def _exited(process: subprocess.Popen[bytes]) -> None:
    """Wait for the exit by a pidfd, in this thread. The process is not reaped yet, so its id stays its own."""
    pidfd = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)


async def _end(process: subprocess.Popen[bytes], stderr: int, *, gently: bool) -> None:
    """Make sure that the process and what it started are gone, and reap it."""
    if gently:
        os.kill(process.pid, signal.SIGTERM)  # Popen.send_signal might reap it
        with trio.move_on_after(TERMINATE_SECONDS):
            await _exited(process)
    os.killpg(process.pid, signal.SIGKILL)
    await _exited(process)
    process.wait()
    await _follow(stderr, lambda step: None)  # it ends when the last process below has gone
