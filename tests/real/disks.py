"""Disk images for tests, made of a few files of local/base; nothing is mounted and nobody need be root."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import trio

from trio_sandbox.home import Home
from trio_sandbox.image.rootfs import prepare_rootfs

MIB = 1 << 20
PROGRAMS = ("sh", "dash", "cat", "ls", "sync", "sleep")
LIBRARIES = ("libc.so*", "ld-*", "libselinux*", "libpcre2*")
SMALL_ROOT = (
    *("bin", "sbin", "lib", "lib64*", "usr/lib64", "etc/passwd", "etc/group", "etc/os-release", "usr/lib/os-release"),
    *(f"usr/bin/{name}" for name in PROGRAMS),
    *(f"usr/lib/*-linux-gnu/{name}" for name in LIBRARIES),
    "usr/lib/ld-*",
)
ROOT_TYPE = {"x86_64": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "aarch64": "B921B045-1DF0-41C3-AF44-4C6F280D3FAE"}


def program(name: str) -> str | None:
    """Where it is, also for users whose PATH lacks the system's folders."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def run(name: str, *words: str | os.PathLike[str], stdin: bytes = b"") -> None:
    path = program(name)
    assert path is not None, name
    done = subprocess.run([path, *(os.fspath(word) for word in words)], input=stdin, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def unpack_small_root(home: Home, folder: Path) -> Path:
    """A root file system of 7 MB: a shell and a few programs."""
    packed = trio.run(prepare_rootfs, "local/base", home).path
    folder.mkdir()
    archive = subprocess.run(["sqfs2tar", packed], check=True, capture_output=True).stdout
    options = ("--wildcards", "--no-same-owner", "--delay-directory-restore", "--no-wildcards-match-slash")
    # Not every architecture has all of these, which tar complains about.
    subprocess.run(["tar", "-C", folder, "-x", *options, *SMALL_ROOT], input=archive, capture_output=True)
    assert (folder / "usr" / "bin" / "sh").exists()
    (folder / "etc").mkdir(exist_ok=True)
    return folder


def sparse(path: Path, mib: int) -> Path:
    with path.open("wb") as file:
        file.truncate(mib * MIB)
    return path


def ext4(path: Path, mib: int, root: Path | None = None, *options: str) -> Path:
    run(
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-E",
        "root_owner=0:0",
        *options,
        *(("-d", root) if root else ()),
        sparse(path, mib),
    )
    return path


def xfs(path: Path, root: Path) -> Path:
    """The only way to fill one without mounting it is a list of files."""
    listing = path.with_suffix(".list")
    listing.write_text("\n".join(["/none", "0 0", "d--755 0 0", *_listed(root), "$", ""]))
    run("mkfs.xfs", "-q", "-p", listing, sparse(path, 320))
    return path


def _listed(folder: Path) -> Iterator[str]:
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink():
            yield f"{entry.name} l--777 0 0 {entry.readlink()}"
        elif entry.is_dir():
            yield f"{entry.name} d--755 0 0"
            yield from _listed(entry)
            yield "$"
        else:
            yield f"{entry.name} ---{stat.S_IMODE(entry.stat().st_mode) & 0o777:03o} 0 0 {entry}"


def btrfs(path: Path, root: Path) -> Path:
    run("mkfs.btrfs", "-q", "--rootdir", root, sparse(path, 128))
    return path


def partitioned(path: Path, *partitions: tuple[str, Path], label: str = "gpt") -> Path:
    """A raw disk with a table of partitions of these types and contents."""
    sizes = [content.stat().st_size for _, content in partitions]
    sparse(path, 2 + sum(sizes) // MIB)
    lines = [f"size={size // MIB}M, type={kind}" for (kind, _), size in zip(partitions, sizes, strict=True)]
    run("sfdisk", "-q", path, stdin="\n".join([f"label: {label}", *lines]).encode())
    at = 1
    for (_, content), size in zip(partitions, sizes, strict=True):
        run("dd", f"if={content}", f"of={path}", "bs=1M", f"seek={at}", "conv=notrunc,sparse", "status=none")
        at += size // MIB
    return path


def converted(source: Path, path: Path) -> Path:
    run("qemu-img", "convert", "-f", "raw", "-O", path.suffix[1:], source, path)
    return path


def over(base: Path, path: Path) -> Path:
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base.name, "-F", base.suffix[1:], path)
    return path
