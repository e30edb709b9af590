"""Run mmdebstrap so that it leaves nothing, even when it and its owner are killed.

It works in a mount and PID namespace of its own, on a tmpfs that nobody else sees: when this process dies the kernel
kills `unshare` (parent death signal), with it the first process of the namespace, with that all others, and then
drops the tmpfs. Root needs nothing for this; others need the mapping of user ids (`newuidmap`). Where the host allows
no namespaces, or has little memory, mmdebstrap works in a folder below Home.scratch; it gets SIGTERM, on which it
cleans up, and the next run removes what was left.
"""

from __future__ import annotations

import errno
import os
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
_IN_NAMESPACE = f'mount -t tmpfs -o mode=1777 tmpfs {TMPFS} && cd / && exec "$@"'
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


async def write_base_tar(sources: AptSources, target: int, home: Home, report: Callable[[str], None]) -> None:
    """Write the tar of a new base system to the descriptor `target`. Takes about half a minute and a network mirror.

    The caller holds a lock: one at a time per home. Cancellation kills the build and removes its traces. Raises
    HostNotReadyError, ToolError, StorageError. `report` gets each step's name.
    """
    place = await _choose_place(home)
    try:
        await _run(_command(place, sources), place, sources, target, report)
    finally:
        if place.folder is not None:
            shutil.rmtree(place.folder, ignore_errors=True)


async def _choose_place(home: Home) -> Place:
    namespaces = _NAMESPACES if os.geteuid() == 0 else (*_NAMESPACES, *_MAPPING)
    leftover = home.scratch / PROGRAM
    shutil.rmtree(leftover, ignore_errors=True)
    if _free_memory() >= TMPFS_NEEDS_BYTES:
        with suppress(HostNotReadyError):
            probe = await run_tool([*namespaces, "sh", "-c", _IN_NAMESPACE, "sh", "true"], check=False)
            if probe.returncode == 0:
                return Place(
                    ("setpriv", "--pdeathsig", "KILL", *namespaces, "sh", "-c", _IN_NAMESPACE, "sh"), "root", None
                )
    leftover.mkdir(mode=0o711, exist_ok=True)
    mode = "root" if os.geteuid() == 0 else "unshare"
    return Place(("setpriv", "--pdeathsig", "TERM"), mode, leftover)


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
            await _end(process, gently=place.folder is not None)
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


async def _end(process: subprocess.Popen[bytes], *, gently: bool) -> None:
    """Make sure that the process and what it started are gone, and reap it."""
    with trio.CancelScope(shield=True):
        if gently:
            os.kill(process.pid, signal.SIGTERM)  # Popen.send_signal might reap it
            with trio.move_on_after(TERMINATE_SECONDS):
                await _exited(process)
        os.killpg(process.pid, signal.SIGKILL)
        await _exited(process)
        process.wait()
