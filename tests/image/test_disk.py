"""Disk images before anything boots from them: what is refused, and why; who may have them open."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trio_sandbox.client.image import Image
from trio_sandbox.errors import (
    ImageInUseError,
    ImageNotFoundError,
    InvalidConfigError,
    InvalidImageError,
    SandboxError,
    StorageError,
)
from trio_sandbox.image import disk as disk_module
from trio_sandbox.image.blobs import Blob
from trio_sandbox.image.disk import MAX_LAYERS, opened_disk
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.progress import Meter
from trio_sandbox.image.qcow2 import check_qcow2
from trio_sandbox.image.vmdk import check_vmdk
from trio_sandbox.image_source import ImageSource

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed"),
]
MIB = 1 << 20


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in use is waited for once only, below."""
    monkeypatch.setattr(disk_module, "PATIENCE", 0.0)


def qemu_img(*words: str | os.PathLike[str]) -> None:
    subprocess.run(["qemu-img", *(os.fspath(word) for word in words)], check=True, capture_output=True)


def make_raw(path: Path, size: int = 4 * MIB) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset in range(MIB // 2, size, MIB):
            file.seek(offset)
            file.write(b"data" * 1000)
    return path


def make(path: Path, *options: str) -> Path:
    """An image of the format that the extension names, with data in it."""
    raw = make_raw(path.with_suffix(".source"))
    qemu_img("convert", "-f", "raw", "-O", path.suffix[1:], *options, raw, path)
    return path


def create(path: Path, backing: str, format: str = "qcow2") -> Path:
    """A qcow2 over `backing`, which nobody looks at."""
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", format, path, "4M")
    return path


def look(source: str | os.PathLike[str] | ImageSource) -> list[str]:
    """Open and close it: the formats of its files."""
    return trio.run(opened_once, source)


async def opened_once(source: str | os.PathLike[str] | ImageSource) -> list[str]:
    async with opened_disk(ImageSource.of(source)) as layers:
        return [layer.format.value for layer in layers]


def refused(
    source: str | os.PathLike[str] | ImageSource, words: str, kind: type[SandboxError] = InvalidImageError
) -> None:
    with pytest.raises(kind, match=words):
        look(source)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("disk.qcow2", ()),
        ("disk.qcow2", ("-o", "compat=0.10")),
        ("disk.qcow2", ("-o", "cluster_size=512")),
        ("disk.qcow2", ("-o", "cluster_size=2M")),
        ("disk.qcow2", ("-o", "extended_l2=on")),
        ("disk.qcow2", ("-o", "lazy_refcounts=on")),
        ("disk.qcow2", ("-c", "-o", "compression_type=zstd")),
        ("disk.qcow2", ("-c",)),
        ("disk.vmdk", ()),
    ],
)
def test_what_qemu_makes_is_taken(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    assert look(make(tmp_path / name, *options)) == [name.partition(".")[2]]


def test_a_raw_image_is_what_it_is(tmp_path: Path) -> None:
    assert look(make_raw(tmp_path / "disk.raw")) == ["raw"]
    assert look(Image.disk(make_raw(tmp_path / "disk.img"), format="raw")) == ["raw"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("disk.qcow2", b"", "is empty"),
        ("disk.raw", b"", "is empty"),
        ("disk.raw", bytes(1000), "no multiple of 512"),
        ("disk.raw", b"\x1f\x8b" + bytes(1022), "compressed by gzip"),
        ("disk.raw", bytes(257) + b"ustar" + bytes(762), "a tar archive"),
        ("disk.qcow2", bytes(4096), "no qcow2 image"),
        ("disk.qcow2", b"QFI\xfb\0\0\0\3", "no qcow2 image"),
        ("disk.qcow2", b"QFI\xfb\0\0\0\4" + bytes(4096), "of version 4"),
        ("disk.vmdk", bytes(4096), "no VMDK image"),
        ("disk.vmdk", b"KDMV\x09\0\0\0" + bytes(4096), "of version 9"),
    ],
)
def test_what_is_no_image(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    refused(path, words)


def test_what_is_not_there_or_cannot_be_opened(tmp_path: Path) -> None:
    refused(tmp_path / "none.raw", "there is no such file", ImageNotFoundError)
    (tmp_path / "folder.raw").mkdir()
    refused(tmp_path / "folder.raw", "cannot be opened: Is a directory")
    os.mkfifo(tmp_path / "fifo.raw")
    refused(tmp_path / "fifo.raw", "not a regular file")
    (tmp_path / "device.raw").symlink_to("/dev/null")
    refused(tmp_path / "device.raw", "not a regular file")
    refused(Image.disk("~no-such-user/disk.raw"), "home directory", InvalidConfigError)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_what_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(path: object, flags: int, *rest: object) -> int:
        assert flags & os.O_RDWR
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("trio_sandbox.image.disk.os.open", refuse)
    refused(tmp_path / "disk.raw", "disk.raw cannot be written to, as the guest will", StorageError)


def test_one_format_with_the_name_of_another(tmp_path: Path) -> None:
    image = make(tmp_path / "disk.qcow2")
    refused(Image.disk(image, format="raw"), "no raw image but a qcow2 image")
    refused(Image.disk(image, format="vmdk"), "no VMDK image")
    refused(Image.disk(make(tmp_path / "disk.vmdk"), format="raw"), "no raw image but a VMDK image")


@pytest.mark.parametrize("kind", ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])
def test_a_vmdk_in_several_files_is_refused(tmp_path: Path, kind: str) -> None:
    refused(
        make(tmp_path / "disk.vmdk", "-o", f"subformat={kind}"), "describes other files that hold the disk; convert it"
    )


def test_other_vmdks_are_refused(tmp_path: Path) -> None:
    refused(
        make(tmp_path / "disk.vmdk", "-o", "subformat=streamOptimized"), "compressed and cannot be written in place"
    )
    refused(rewritten(make(tmp_path / "one.vmdk"), b"parentCID=ffffffff", b"parentCID=fffffffe"), "stands on another")
    refused(rewritten(make(tmp_path / "two.vmdk"), b"monolithicSparse", b"vmfsSparse000000"), "of the kind 'vmfsSpa")
    hinted = rewritten(make(tmp_path / "four.vmdk"), b"\nRW ", b'\nparentFileNameHint="/etc/shadow"\nRW ')
    refused(hinted, "stands on another")
    # QEMU would read another description than the one that is looked at.
    refused(patched(make(tmp_path / "five.vmdk"), 28, struct.pack("<Q", 21)), "does not describe itself")
    # With a capacity of 0, QEMU would read the description and open the files that it names.
    refused(patched(make(tmp_path / "three.vmdk"), 12, bytes(8)), "impossible size")


def rewritten(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


def patched(path: Path, offset: int, new: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(new)
    return path


@pytest.mark.parametrize("name", ["disk.qcow2", "disk.vmdk"])
def test_a_file_that_was_cut(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name)
    size = path.stat().st_size
    for left in (size - 2 * 65536, size // 2, 66_000, 1000):
        os.truncate(path, left)
        refused(path, "cut|no qcow2|ends after")


@pytest.mark.parametrize(
    ("offset", "new", "words"),
    [
        (32, struct.pack(">I", 2), "encrypted"),
        (72, struct.pack(">Q", 2), "marked as damaged"),
        (72, struct.pack(">Q", 4), "data is in another file"),
        (72, struct.pack(">Q", 1 << 40), "features that are not known"),
        (20, struct.pack(">I", 40), "impossible size"),
        (24, bytes(8), "impossible size"),
        (36, struct.pack(">I", 0), "size of its mapping table"),
        (36, struct.pack(">I", 0xFFFFFFFF), "size of its mapping table"),
        (40, struct.pack(">Q", 1 << 50), "no mapping table"),
        (48, struct.pack(">Q", 1 << 50), "no reference counts"),
        (100, struct.pack(">I", 1 << 30), "impossible length"),
        (8, struct.pack(">QI", 1 << 40, 10), "impossible name"),
        (8, struct.pack(">QI", 512, 10), "format that its header does not tell"),
        (112, struct.pack(">II", 0x44415441, 8), "data is in another file"),
        (112, struct.pack(">II", 1, 1 << 30), "goes beyond its end"),
    ],
)
def test_a_qcow2_header_that_cannot_be(tmp_path: Path, offset: int, new: bytes, words: str) -> None:
    refused(patched(make(tmp_path / "disk.qcow2"), offset, new), words)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/shadow",
        "../disk.qcow2",
        "./../disk.qcow2",
        "sub/disk.qcow2",
        "nbd://127.0.0.1:10809/x",
        "nbd:unix:/tmp/socket",
        "file:disk.qcow2",
        'json:{"driver":"file","filename":"/etc/shadow"}',
        "fat:/etc",
        ".",
    ],
)
def test_a_backing_file_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    make(tmp_path / "sub" / "disk.qcow2")
    refused(create(tmp_path / "over.qcow2", name, "raw"), "is not in its own folder")


def test_a_backing_file_in_the_same_folder(tmp_path: Path) -> None:
    make(tmp_path / "base.qcow2")
    make_raw(tmp_path / "base.raw")
    assert look(create(tmp_path / "one.qcow2", "base.qcow2")) == ["qcow2", "qcow2"]
    assert look(create(tmp_path / "two.qcow2", "./base.raw", "raw")) == ["qcow2", "raw"]
    assert look(create(tmp_path / "three.qcow2", str(tmp_path.resolve() / "one.qcow2"))) == ["qcow2"] * 3
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.qcow2"
    link.symlink_to(tmp_path / "one.qcow2")  # its own folder is that of the file
    assert look(link) == ["qcow2", "qcow2"]


def test_what_a_backing_file_cannot_be(tmp_path: Path) -> None:
    refused(create(tmp_path / "a.qcow2", "none.qcow2"), "'none.qcow2' cannot be opened: No such file")
    (tmp_path / "link.raw").symlink_to("/etc/passwd")
    refused(create(tmp_path / "b.qcow2", "link.raw", "raw"), "'link.raw' is a symbolic link")
    os.mkfifo(tmp_path / "fifo")
    refused(create(tmp_path / "c.qcow2", "fifo", "raw"), "not a regular file")
    make_raw(tmp_path / "base.raw")
    refused(create(tmp_path / "d.qcow2", "base.raw", "qcow2"), "'base.raw': it is no qcow2")
    refused(rewritten(create(tmp_path / "e.qcow2", "base.raw", "qcow2"), b"\5qcow2", b"\5qcowX"), "'qcowX'")
    refused(create(tmp_path / "f.qcow2", "f.qcow2"), "stands on itself")
    create(tmp_path / "g.qcow2", "h.qcow2")
    refused(create(tmp_path / "h.qcow2", "g.qcow2"), "stands on itself")


def test_a_chain_has_an_end(tmp_path: Path) -> None:
    make(tmp_path / "0.qcow2")
    for number in range(1, MAX_LAYERS + 1):
        create(tmp_path / f"{number}.qcow2", f"{number - 1}.qcow2")
    assert len(look(tmp_path / f"{MAX_LAYERS - 1}.qcow2")) == MAX_LAYERS
    refused(tmp_path / f"{MAX_LAYERS}.qcow2", "stands on more than")


# -- locks


async def test_one_machine_at_a_time(tmp_path: Path) -> None:
    base = make(tmp_path / "base.qcow2")
    os.link(base, tmp_path / "other.qcow2")
    over = [create(tmp_path / f"{name}.qcow2", "base.qcow2") for name in "ab"]
    async with opened_disk(ImageSource.of(base)):
        for image in (base, tmp_path / "other.qcow2"):
            with pytest.raises(ImageInUseError, match="give each sandbox a copy"):
                async with opened_disk(ImageSource.of(image)):
                    pass
        with pytest.raises(ImageInUseError, match="another machine writes to a file that it stands on"):
            async with opened_disk(ImageSource.of(over[0])):
                pass
    async with opened_disk(ImageSource.of(over[0])), opened_disk(ImageSource.of(over[1])):
        with pytest.raises(ImageInUseError):
            async with opened_disk(ImageSource.of(base)):
                pass
    async with opened_disk(ImageSource.of(base)):
        pass


def test_a_file_in_use_is_waited_for_but_not_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine of an owner that was just killed has it for a moment longer."""
    image, tries = make_raw(tmp_path / "disk.raw"), 0
    monkeypatch.setattr(disk_module, "PATIENCE", 1.0)

    def lock(descriptor: int, *, shared: bool) -> bool:
        nonlocal tries
        tries += 1
        return tries > 3

    monkeypatch.setattr(disk_module, "lock_disk", lock)
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(opened_once, image, clock=clock)
    assert tries == 4
    tries, before = -1000, clock.current_time()
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(ImageInUseError):
        trio.run(opened_once, image, clock=clock)
    assert 1.0 <= clock.current_time() - before < 1.2
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, *, shared: bool) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(disk_module, "lock_disk", refuse)
    refused(make_raw(tmp_path / "disk.raw"), "cannot be read and locked: No locks available")


def test_a_killed_process_holds_nothing_but_its_vmm_does(tmp_path: Path) -> None:
    """The lock goes with the open file, which a machine inherits."""
    image = make_raw(tmp_path / "disk.raw")
    code = (
        "import os, subprocess, sys; from trio_sandbox.locks import lock_disk\n"
        "descriptor = os.open(sys.argv[1], os.O_RDWR); assert lock_disk(descriptor, shared=False)\n"
        "child = subprocess.Popen(['sleep', '1000'], pass_fds=[descriptor])\n"
        "print(child.pid, flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", code, str(image)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        machine = int(process.stdout.readline())
        process.kill()
        process.wait()
    ended = os.pidfd_open(machine)
    try:
        refused(image, "another machine uses the file", ImageInUseError)
    finally:
        signal.pidfd_send_signal(ended, signal.SIGKILL)
        select.select([ended], [], [])
        os.close(ended)
    assert look(image) == ["raw"]


@pytest.mark.parametrize(("byte", "beneath"), [(100, False), (203, False), (101, False), (101, True)])
async def test_a_qemu_of_somebody_else_is_noticed(tmp_path: Path, byte: int, beneath: bool) -> None:
    image = make(tmp_path / "disk.qcow2")
    asked = create(tmp_path / "over.qcow2", "disk.qcow2") if beneath else image
    with image.open("rb") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
        with pytest.raises(ImageInUseError):
            async with opened_disk(ImageSource.of(asked)):
                pass
    async with opened_disk(ImageSource.of(asked)):
        pass


# -- damage of any kind


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("samples")
    return {name: make(folder / f"disk.{name}").read_bytes() for name in ("qcow2", "vmdk")}


DAMAGE = st.lists(st.tuples(st.integers(0, 1 << 18), st.binary(min_size=1, max_size=16)), min_size=1, max_size=8)


@pytest.mark.parametrize(("name", "check"), [("qcow2", check_qcow2), ("vmdk", check_vmdk)])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=DAMAGE, header=DAMAGE, length=st.integers(0, 1 << 20))
@example(damage=[(0, b"")], header=[(0, b"")], length=1 << 20)
def test_damage_is_a_fault_and_nothing_else(
    samples: dict[str, bytes],
    name: str,
    check: Callable[[Blob, Meter], object],
    damage: list[tuple[int, bytes]],
    header: list[tuple[int, bytes]],
    length: int,
) -> None:
    data = bytearray(samples[name][:length])
    for offset, new in (*damage, *((offset % 120, new) for offset, new in header)):
        if offset < len(data):
            data[offset : offset + len(new)] = new
    memory, said = os.memfd_create("disk"), ""
    try:
        os.write(memory, data)
        check(Blob("the file", memory, 0, len(data)), Meter(threaded=False))
    except ImageFault as fault:
        said = str(fault)
    finally:
        os.close(memory)
    assert said.isprintable()
