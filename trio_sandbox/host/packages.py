"""Which programs a host needs, which are missing, and how the distribution's package manager brings them.

Rules of this file: the standard library only and nothing from this package, because `scripts/bootstrap.py` loads it
by its path before a virtual environment exists. Everything that looks at the machine is a parameter, so tests need no
machine.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Searched after PATH: Debian leaves them out of an ordinary user's PATH, and mke2fs and depmod live there."""

APT_LISTS = Path("/var/lib/apt/lists")

OTHER_PACKAGE_MANAGERS = ("dnf", "yum", "zypper", "pacman", "apk", "emerge", "xbps-install", "nix-env")


class PackagesError(Exception):
    """Something is missing and could not be installed; `str()` says what to do. `missing` lists it."""

    def __init__(self, message: str, missing: Sequence[Requirement] = ()) -> None:
        self.missing = tuple(missing)
        super().__init__(message)


@dataclass(frozen=True)
class Requirement:
    """One need: met by any one of `programs` on the search path, or by importing `module`; brought by `packages`."""

    name: str
    purpose: str
    packages: tuple[str, ...]
    programs: tuple[str, ...] = ()
    module: str = ""
    build_only: bool = False

    def described(self) -> str:
        """One line for a list: name, purpose."""
        return f"{self.name} ({self.purpose})"


def emulator_name(machine: str) -> str:
    """The QEMU program for guests of this machine's own architecture, as `os.uname().machine` names it."""
    return f"qemu-system-{'aarch64' if machine in ('aarch64', 'arm64') else 'x86_64'}"


def requirements(
    machine: str | None = None, python: tuple[int, int] | None = None, *, root: bool | None = None
) -> tuple[Requirement, ...]:
    """Everything a checkout needs on this kind of machine; those that only building needs say so."""
    machine = machine or os.uname().machine
    is_root = os.geteuid() == 0 if root is None else root
    mapping = Requirement("newuidmap", "the default image, built without root", ("uidmap",), ("newuidmap",))
    major, minor = python or sys.version_info[:2]
    emulator = emulator_name(machine)
    return (
        Requirement(
            emulator,
            "the virtual machine monitor",
            ("qemu-system-arm" if emulator.endswith("aarch64") else "qemu-system-x86",),
            (emulator,),
        ),
        Requirement("tar2sqfs", "root file systems from image layers", ("squashfs-tools-ng",), ("tar2sqfs",)),
        Requirement("mke2fs", "writable disks", ("e2fsprogs",), ("mke2fs",)),
        Requirement("mmdebstrap", "the default image", ("mmdebstrap",), ("mmdebstrap",)),
        *(() if is_root else (mapping,)),
        Requirement("depmod", "the order of kernel modules", ("kmod",), ("depmod",)),
        Requirement("zstd", "compressed kernel modules and layers", ("zstd",), ("zstd",)),
        Requirement("xz", "compressed kernel modules", ("xz-utils",), ("xz",)),
        Requirement("C compiler", "the guest agent", ("musl-tools",), ("musl-gcc", "cc"), build_only=True),
        # The package without a version would serve the distribution's own Python alone.
        Requirement(
            "venv", "the virtual environment", (f"python{major}.{minor}-venv",), module="ensurepip", build_only=True
        ),
    )


def test_requirements() -> tuple[Requirement, ...]:
    """What only the tests need: programs of others whose work is read, or compared with. They skip what is missing."""
    return (
        Requirement("docker-registry", "registries", ("docker-registry",), ("docker-registry",)),
        Requirement("skopeo", "images as others write them", ("skopeo",), ("skopeo",)),
        Requirement("cpio", "initramfs as others read it", ("cpio",), ("cpio",)),
        Requirement("openssl", "certificates of registries", ("openssl",), ("openssl",)),
        Requirement("qemu-img", "disk images", ("qemu-utils",), ("qemu-img",)),
        Requirement("sfdisk", "partition tables", ("fdisk",), ("sfdisk",)),
        Requirement("mkfs.vfat", "file systems that are no root", ("dosfstools",), ("mkfs.vfat",)),
        Requirement("mkfs.xfs", "roots of disk images", ("xfsprogs",), ("mkfs.xfs",)),
        Requirement("mkfs.btrfs", "roots of disk images", ("btrfs-progs",), ("mkfs.btrfs",)),
    )


def find_program(name: str, path: str | None = None) -> str | None:
    """Where the program is, or None: on PATH, or in the system folders that an ordinary user's PATH may lack."""
    searched = os.environ.get("PATH", os.defpath) if path is None else path
    return shutil.which(name, path=os.pathsep.join((searched, *SYSTEM_FOLDERS)))


def _importable(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def missing(
    needed: Iterable[Requirement],
    *,
    which: Callable[[str], str | None] = find_program,
    importable: Callable[[str], bool] = _importable,
) -> list[Requirement]:
    """Those of `needed` that this machine does not meet, in their order."""
    return [
        need
        for need in needed
        if not (importable(need.module) if need.module else any(which(program) for program in need.programs))
    ]


def packages_for(needs: Iterable[Requirement]) -> list[str]:
    """The packages that bring `needs`, each once, in order."""
    return list(dict.fromkeys(package for need in needs for package in need.packages))


def apt_prefix(*, root: bool, sudo: str | None) -> list[str]:
    """The words that go before an apt-get command so that it runs as root and asks no questions."""
    return [*([] if root or sudo is None else [sudo]), "env", "DEBIAN_FRONTEND=noninteractive"]


def apt_command(*words: str) -> list[str]:
    """An apt-get command that waits two minutes for another one, as a fresh machine upgrades itself after its start."""
    return ["apt-get", "-o", "DPkg::Lock::Timeout=120", *words]


def lists_present(folder: Path = APT_LISTS) -> bool:
    """Whether apt has ever fetched its package lists; container images come without."""
    try:
        return any("_Packages" in name for name in os.listdir(folder))
    except OSError:
        return False


def by_hand(needs: Sequence[Requirement], *, which: Callable[[str], str | None] = find_program) -> str:
    """What to do where apt-get is not the package manager."""
    other = next((name for name in OTHER_PACKAGE_MANAGERS if which(name)), None)
    how = f"with {other}" if other else "with this machine's own package manager"
    wanted = ", ".join(program for need in needs for program in (need.programs or (need.name,)))
    return (
        f"there is no apt-get here, so nothing was installed. Install {how} what provides these programs, "
        f"then run this again: {wanted}"
    )


Run = Callable[[Sequence[str]], int]


def run_to_end(argv: Sequence[str], *, cwd: str | None = None) -> int:
    """Run a program with its output shown and return its exit status; without a terminal it gets no standard input.

    Ctrl-C reaches the program itself, which ends in its own time: killing a package manager in the middle would leave
    half a package. KeyboardInterrupt is raised once it is gone.
    """
    stdin = None if sys.stdin and sys.stdin.isatty() else subprocess.DEVNULL
    interrupted: KeyboardInterrupt | None = None
    process = subprocess.Popen(argv, stdin=stdin, cwd=cwd)
    while process.returncode is None:
        try:
            process.wait()
        except KeyboardInterrupt as interrupt:
            interrupted = interrupt
    if interrupted is not None:
        raise interrupted
    return process.returncode


def install(
    needs: Sequence[Requirement],
    *,
    which: Callable[[str], str | None] = find_program,
    run: Run = run_to_end,
    root: bool | None = None,
    have_lists: Callable[[], bool] = lists_present,
    say: Callable[[str], None] = print,
) -> None:
    """Install the packages of `needs` with apt-get, through sudo when not root. Raises PackagesError.

    The package lists are fetched only when there are none, or when the first try fails (they may be old).
    An interrupt reaches apt-get itself, which leaves the system in order; running this again goes on from there.
    """
    if not needs:
        return
    if which("apt-get") is None:
        raise PackagesError(by_hand(needs, which=which), needs)
    is_root = os.geteuid() == 0 if root is None else root
    sudo = which("sudo")
    words = apt_command("install", "-y", "--no-install-recommends", *packages_for(needs))
    if not is_root and sudo is None:
        raise PackagesError(f"not root, and there is no sudo; run this as root: {shlex.join(words)}", needs)
    prefix = apt_prefix(root=is_root, sudo=sudo)

    def attempt(argv: Sequence[str]) -> int:
        say(f"+ {shlex.join([*prefix, *argv])}")
        return run([*prefix, *argv])

    fresh = not have_lists()
    if fresh:
        attempt(apt_command("update"))
    status = attempt(words)
    if status and not fresh:
        attempt(apt_command("update"))
        status = attempt(words)
    if status:
        raise PackagesError(
            f"apt-get failed with {status}; run this by hand to see why: {shlex.join([*prefix, *words])}", needs
        )


def listing(needs: Sequence[Requirement]) -> str:
    """What is missing and what would be installed, as lines for a person."""
    lines = ["Missing on this machine:"]
    lines += [f"  {need.described()}: package {', '.join(need.packages)}" for need in needs]
    return "\n".join(lines)


def ensure(
    needed: Iterable[Requirement],
    *,
    which: Callable[[str], str | None] = find_program,
    importable: Callable[[str], bool] = _importable,
    run: Run = run_to_end,
    root: bool | None = None,
    have_lists: Callable[[], bool] = lists_present,
    say: Callable[[str], None] = print,
    confirm: Callable[[str], bool] = lambda question: True,
) -> list[Requirement]:
    """Install what is missing of `needed` and return it; [] when nothing was. Raises PackagesError.

    What is missing is listed before anything is installed; `confirm` may then refuse.
    """
    needed = tuple(needed)
    wanting = missing(needed, which=which, importable=importable)
    if not wanting:
        return []
    say(listing(wanting))
    if which("apt-get") is not None and not confirm(f"Install {', '.join(packages_for(wanting))}?"):
        raise PackagesError(f"nothing was installed; needed: {', '.join(packages_for(wanting))}", wanting)
    install(wanting, which=which, run=run, root=root, have_lists=have_lists, say=say)
    importlib.invalidate_caches()
    still = missing(wanting, which=which, importable=importable)
    if still:
        names = ", ".join(need.name for need in still)
        raise PackagesError(f"the packages were installed, but these are still missing: {names}", still)
    return wanting
