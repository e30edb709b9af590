"""The guest kernel: the distribution's own cloud kernel, unpacked into the data folder.

Nothing is installed: no root, no /boot, no package database. A kernel is a folder `kernels/<release>` with `vmlinuz`,
`lib/modules/<release>` and `package` (name and version), complete because it got its name by one rename. Whoever
fetches holds the lock `run/kernels.lock` and works in a folder `kernels/.fetching-…`; one that a killed fetch left is
removed by the next.

`$TRIO_SANDBOX_KERNEL` and `$TRIO_SANDBOX_MODULES` name another kernel image and its folder of modules.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.files import storage_errors
from trio_sandbox.home import Home
from trio_sandbox.host.packages import find_program
from trio_sandbox.tools import ToolError, run_tool

Progress = Callable[[str], None]
"""Told one short phrase each time that a new piece of work begins."""

METAPACKAGES = {
    "x86_64": ("linux-image-cloud-amd64", "linux-image-virtual"),
    "aarch64": ("linux-image-cloud-arm64", "linux-image-virtual"),
}
"""By machine: the package that stands for the newest kernel, Debian's name and then Ubuntu's."""

KERNEL_PACKAGE = re.compile(r"linux-(image|image-unsigned|modules|modules-extra|binary)-\d[a-zA-Z0-9.+~-]*")
"""The packages that carry a kernel and its modules: one on Debian, several on Ubuntu. Firmware and tools are others."""

IMAGE_NAME = "vmlinuz"
PACKAGE_NAME = "package"
WORK_PREFIX = ".fetching-"
NAME_ANOTHER = "set TRIO_SANDBOX_KERNEL and TRIO_SANDBOX_MODULES to a kernel of your own"


@attrs.frozen
class Kernel:
    """A kernel that guests can boot.

    `image` is what QEMU loads; `modules` is the folder that holds `modules.dep`; `package` says where both come from.
    """

    image: Path
    modules: Path
    release: str
    package: str


def silent(_: str) -> None:
    """Progress that nobody watches."""


def find_kernel(home: Home) -> Kernel | None:
    """The kernel to boot: the one that the environment names, else the newest in `home`; None when there is none.

    Runs no program. Raises HostNotReadyError when the environment names something that is not a kernel with its
    modules.
    """
    if image := os.environ.get("TRIO_SANDBOX_KERNEL"):
        return named_kernel(Path(image), os.environ.get("TRIO_SANDBOX_MODULES"))
    releases = sorted(
        (name for name in os.listdir(home.kernels) if not name.startswith(".")), key=release_key, reverse=True
    )
    for release in releases:
        folder = home.kernels / release
        kernel = Kernel(folder / IMAGE_NAME, folder / "lib" / "modules" / release, release, _package_of(folder))
        if kernel.image.is_file() and (kernel.modules / "modules.dep").is_file():
            return kernel
    return None


def release_key(release: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key by which 6.1.0-56 is newer than 6.1.0-9."""
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", release) if part)


def _package_of(folder: Path) -> str:
    try:
        return (folder / PACKAGE_NAME).read_text().strip()
    except OSError:
        return "unknown"


def named_kernel(image: Path, modules: str | None) -> Kernel:
    """The kernel that the environment names.

    modules: a folder with modules.dep in it, or one with lib/modules/<release>. Raises HostNotReadyError.
    """
    if not image.is_file():
        raise HostNotReadyError("kernel", f"TRIO_SANDBOX_KERNEL names {image}, which is not a file", NAME_ANOTHER)
    if not modules:
        raise HostNotReadyError("kernel", "TRIO_SANDBOX_KERNEL is set but TRIO_SANDBOX_MODULES is not", NAME_ANOTHER)
    found = image_release(image)
    nested = sorted(Path(modules).glob("lib/modules/*/modules.dep"))
    candidates = [path.parent for path in (Path(modules) / "modules.dep", *nested) if path.is_file()]
    if not candidates:
        remedy = f"run `depmod -b FOLDER {found or 'RELEASE'}` for it, or name another folder"
        raise HostNotReadyError("kernel", f"there is no modules.dep in {modules}", remedy)
    folder = next((path for path in candidates if path.resolve().name == found), candidates[0]).resolve()
    if found and folder.name != found:
        raise HostNotReadyError(
            "kernel", f"{image} is Linux {found}, but the modules are for {folder.name}", NAME_ANOTHER
        )
    return Kernel(image.absolute(), folder, folder.name, f"{image} (named by TRIO_SANDBOX_KERNEL)")


def image_release(image: Path) -> str | None:
    """The release that an x86 boot image says it is; None for any other file."""
    with storage_errors(image), image.open("rb") as file:
        header = file.read(0x210)
        if len(header) < 0x210 or header[0x202:0x206] != b"HdrS":
            return None
        file.seek(int.from_bytes(header[0x20E:0x210], "little") + 0x200)
        words = file.read(256).split(b"\0", 1)[0].split()
    return words[0].decode(errors="replace") if words else None


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold a lock file against other processes. Waiting can be cancelled, and a holder that is killed lets go."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await trio.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


async def fetch_kernel(home: Home, progress: Progress = silent) -> Kernel:
    """Download the distribution's newest cloud kernel, unpack it into `home` and return it.

    Raises HostNotReadyError where there is no apt-get or no such package, ToolError when a download or unpacking fails,
    StorageError when the disk refuses. Cancellation: nothing is left but what was there before.
    """
    for program in ("apt-get", "apt-cache", "dpkg-deb"):
        if find_program(program) is None:
            raise HostNotReadyError("kernel", f"there is no {program} here to fetch one with", NAME_ANOTHER)
    async with _locked(home.run / "kernels.lock"):
        with storage_errors(home.kernels):
            for left in home.kernels.glob(f"{WORK_PREFIX}*"):
                shutil.rmtree(left, ignore_errors=True)
            # A name of its own: a tool that outlived a killed fetch may still write into that one's.
            work = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=home.kernels))
            try:
                packages = await _download(work, progress)
                progress("unpacking")
                release = await _unpack(work, packages)
                _publish(work / "tree", home.kernels / release, work / "replaced")
            finally:
                shutil.rmtree(work, ignore_errors=True)
    kernel = find_kernel(home)
    if kernel is None:
        raise HostNotReadyError("kernel", "the package that was fetched holds no kernel", NAME_ANOTHER)
    return kernel


@attrs.frozen
class Package:
    """One package as apt describes it; `size` is in bytes."""

    name: str
    version: str
    size: int
    depends: tuple[str, ...]


def parse_packages(text: str) -> list[Package]:
    """The stanzas that `apt-cache show` printed. Alternatives of a dependency are all listed."""
    packages = []
    for stanza in re.split(r"\n\s*\n", text.strip()):
        fields = dict(re.findall(r"^([A-Za-z-]+): *(.*)$", stanza, re.MULTILINE))
        if "Package" in fields and "Version" in fields:
            depends = ", ".join((fields.get("Pre-Depends", ""), fields.get("Depends", "")))
            names = (re.split(r"[\s(:]", entry.strip(), maxsplit=1)[0] for entry in re.split(r"[,|]", depends))
            size = fields.get("Size", "0")
            packages.append(
                Package(
                    fields["Package"],
                    fields["Version"],
                    int(size) if size.isdigit() else 0,
                    tuple(name for name in names if name),
                )
            )
    return packages


def apt_options(work: Path, *, private: bool) -> list[str]:
    """Options for every apt command. `private` keeps lists and caches in `work`: the system's are root's."""
    # As root apt would download as the user _apt, who may not enter the data folder.
    options = ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2", "-q"]
    if private:
        options += ["-o", f"Dir::State={work}/state", "-o", f"Dir::State::lists={work}/state/lists/"]
        options += ["-o", "Dir::State::status=/var/lib/dpkg/status"]
        options += ["-o", f"Dir::Cache={work}/cache", "-o", "Debug::NoLocking=true"]
    return options


async def _download(work: Path, progress: Progress) -> list[Package]:
    """Download the kernel's packages into `work/debs`: by the system's package lists, else by fresh ones of our own."""
    progress("looking for a kernel package")
    debs = work / "debs"
    debs.mkdir()
    if packages := await _resolve(apt_options(work, private=False)):
        try:
            await _get(packages, debs, apt_options(work, private=False), progress)
            return packages
        except ToolError:
            pass  # lists that are too old name files that are gone
    progress("refreshing package lists")
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    for deb in debs.iterdir():  # perhaps of another version than the one that is to come
        deb.unlink()
    options = apt_options(work, private=True)
    await run_tool(["apt-get", *options, "update"])
    packages = await _resolve(options)
    if not packages:
        wanted = " or ".join(METAPACKAGES.get(os.uname().machine, ("any kernel package",)))
        raise HostNotReadyError(
            "kernel", f"the package sources know no {wanted} for {os.uname().machine}", NAME_ANOTHER
        )
    await _get(packages, debs, options, progress)
    return packages


async def _get(packages: Sequence[Package], debs: Path, options: Sequence[str], progress: Progress) -> None:
    for package in packages:
        progress(f"downloading {package.name} ({package.size / 1e6:.0f} MB)")
        await run_tool(["apt-get", *options, "download", f"{package.name}={package.version}"], cwd=debs)


async def _resolve(options: Sequence[str]) -> list[Package]:
    """The packages that carry the files behind the first metapackage that the lists know; [] when they know none."""
    for metapackage in METAPACKAGES.get(os.uname().machine, ()):
        found: dict[str, Package] = {}
        pending = [metapackage]
        while pending:
            name = pending.pop()
            for package in await _show(name, options):
                pending += [
                    wanted for wanted in package.depends if KERNEL_PACKAGE.fullmatch(wanted) and wanted not in found
                ]
                found[name] = package
        carriers = [package for name, package in found.items() if KERNEL_PACKAGE.fullmatch(name)]
        if carriers:
            return carriers
    return []


async def _show(name: str, options: Sequence[str]) -> list[Package]:
    shown = await run_tool(["apt-cache", *options, "show", "--no-all-versions", name], check=False)
    return [package for package in parse_packages(shown.stdout.decode(errors="replace")) if package.name == name]


async def _unpack(work: Path, packages: Sequence[Package]) -> str:
    """Make `work/tree` a kernel folder from the packages in `work/debs` and return its release."""
    whole, tree = work / "whole", work / "tree"
    for deb in sorted((work / "debs").glob("*.deb")):
        await run_tool(["dpkg-deb", "-x", deb, whole])
    images = sorted(whole.glob("boot/vmlinu[xz]-*"))
    folders = sorted([*whole.glob("lib/modules/*"), *whole.glob("usr/lib/modules/*")])
    if not images or not folders:
        names = ", ".join(package.name for package in packages)
        raise HostNotReadyError("kernel", f"{names} holds no boot image with modules", NAME_ANOTHER)
    release = folders[-1].name
    target = tree / "lib" / "modules" / release
    target.parent.mkdir(parents=True, mode=0o700)
    for folder in (folder for folder in folders if folder.name == release):  # several packages may share the folder
        shutil.copytree(
            folder,
            target,
            dirs_exist_ok=True,
            copy_function=os.rename,
            ignore=shutil.ignore_patterns("build", "source"),
        )
    os.rename(images[-1], tree / IMAGE_NAME)
    await index_modules(tree, release)
    carrier = next((package for package in packages if "image" in package.name), packages[0])
    (tree / PACKAGE_NAME).write_text(f"{carrier.name} {carrier.version}\n")
    return release


async def index_modules(root: Path, release: str) -> None:
    """Write modules.dep and its kin for `root/lib/modules/<release>`: packages leave it to their scripts."""
    # Where the distribution has merged /usr, depmod looks below usr/lib.
    merged = root / "usr" / "lib"
    merged.parent.mkdir()
    merged.symlink_to("../lib")
    try:
        await run_tool([find_program("depmod") or "depmod", "-b", root, release])
    finally:
        merged.unlink()
        merged.parent.rmdir()


def _publish(tree: Path, target: Path, replaced: Path) -> None:
    """Give the finished folder its name; a folder that had it goes to `replaced`, inside the work folder."""
    if target.exists():
        os.rename(target, replaced)
    os.rename(tree, target)
