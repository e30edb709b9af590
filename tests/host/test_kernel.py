"""Which kernel is found, and how one is fetched: with programs that play apt, dpkg and depmod."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.home import Home
from trio_sandbox.host.kernel import Package, fetch_kernel, find_kernel, image_release, parse_packages, release_key
from trio_sandbox.tools import ToolError

from .conftest import Program, appears, make_kernel, make_modules

pytestmark = pytest.mark.anyio


def test_no_kernel(home: Home) -> None:
    assert find_kernel(home) is None


def test_the_newest_complete_one(home: Home) -> None:
    make_kernel(home, "6.1.0-9-cloud-amd64")
    newest = make_kernel(home, "6.1.0-56-cloud-amd64")
    broken = make_kernel(home, "6.12.0-1-cloud-amd64")
    (broken.modules / "modules.dep").unlink()
    (home.kernels / ".fetching-abc").mkdir()
    assert find_kernel(home) == newest


def test_release_key_orders_numbers_as_numbers() -> None:
    releases = [
        "6.1.0-9-cloud-amd64",
        "6.12.73+deb13-cloud-amd64",
        "5.15.0-1-generic",
        "6.1.0-56-cloud-amd64",
        "6.8-rc1",
    ]
    assert sorted(releases, key=release_key)[0] == "5.15.0-1-generic"
    assert sorted(releases, key=release_key)[-1] == "6.12.73+deb13-cloud-amd64"
    assert release_key("6.1.0-9") < release_key("6.1.0-56")


def name_kernel(monkeypatch: pytest.MonkeyPatch, image: Path | None, modules: Path | None) -> None:
    for variable, value in (("TRIO_SANDBOX_KERNEL", image), ("TRIO_SANDBOX_MODULES", modules)):
        if value is not None:
            monkeypatch.setenv(variable, str(value))


def boot_image(release: str) -> bytes:
    """The part of an x86 boot image that names its release."""
    header = bytearray(0x400)
    header[0x202:0x206] = b"HdrS"
    header[0x20E:0x210] = (0x100).to_bytes(2, "little")
    text = f"{release} (someone@example) #1 SMP\0".encode()
    header[0x300 : 0x300 + len(text)] = text
    return bytes(header)


@pytest.mark.parametrize("nested", [False, True])
def test_a_named_kernel(nested: bool, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    make_modules(root / "lib" / "modules" / "6.9.1")
    image = tmp_path / "bzImage"
    image.write_bytes(boot_image("6.9.1"))
    name_kernel(monkeypatch, image, root if nested else root / "lib" / "modules" / "6.9.1")
    kernel = find_kernel(home)
    assert kernel is not None
    assert (kernel.image, kernel.release) == (image, "6.9.1")
    assert kernel.modules == root / "lib" / "modules" / "6.9.1"


def test_named_kernels_that_cannot_be(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "bzImage"
    name_kernel(monkeypatch, image, None)
    with pytest.raises(HostNotReadyError, match="not a file"):
        find_kernel(home)
    image.write_bytes(boot_image("6.9.1"))
    with pytest.raises(HostNotReadyError, match="TRIO_SANDBOX_MODULES is not"):
        find_kernel(home)
    name_kernel(monkeypatch, image, tmp_path)
    with pytest.raises(HostNotReadyError, match=r"depmod -b FOLDER 6\.9\.1"):
        find_kernel(home)
    make_modules(tmp_path / "lib" / "modules" / "6.8.0")
    with pytest.raises(HostNotReadyError, match=r"is Linux 6\.9\.1, but the modules are for 6\.8\.0"):
        find_kernel(home)


@pytest.mark.parametrize("content", [b"", b"short", bytes(0x400), boot_image("")])
def test_images_that_name_no_release(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(content)
    assert image_release(tmp_path / "image") in (None, "(someone@example)")


SHOWN = """\
Package: linux-image-virtual
Version: 6.8.0.45.45
Depends: linux-image-6.8.0-45-generic (= 6.8.0-45.45), linux-firmware | firmware,
Size: 1500
Description: metapackage
 with: a second line

Package: broken
"""


def test_parse_packages() -> None:
    assert parse_packages(SHOWN) == [
        Package(
            "linux-image-virtual", "6.8.0.45.45", 1500, ("linux-image-6.8.0-45-generic", "linux-firmware", "firmware")
        )
    ]
    assert parse_packages("") == []


APT_CACHE = """
known = {known!r}
if any(word.startswith("Dir::State=") for word in sys.argv):
    known = {private!r}
print(known.get(sys.argv[-1], ""))
"""
APT_GET = """
open(os.path.dirname(sys.argv[0]) + "/ran", "a").write(" ".join(sys.argv[1:]) + "\\n")
if "download" in sys.argv:
    if {stale} and not any(word.startswith("Dir::State=") for word in sys.argv):
        sys.exit("404  Not Found")
    open(sys.argv[-1].partition("=")[0] + ".deb", "w").write(sys.argv[-1])
"""
DPKG_DEB = """
name = open(sys.argv[2]).read()
target = sys.argv[3]
if {hang} :
    open(os.path.dirname(sys.argv[0]) + "/unpacking", "w").write("yes")
    time.sleep(60)
def put(path, data=""):
    path = os.path.join(target, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "w").write(data)
if "image" in name:
    put("boot/vmlinuz-{release}", "kernel")
    put("usr/share/doc/readme")
if "modules" in name or {single}:
    put("{modules}/{release}/kernel/a.ko")
    os.symlink("/usr/src", os.path.join(target, "{modules}/{release}/build"))
"""
DEPMOD = """
folder = os.path.join(sys.argv[2], "usr/lib/modules", sys.argv[3])
open(folder + "/modules.dep", "w").write("kernel/a.ko:\\n")
"""


def stanza(name: str, version: str, depends: str = "", size: int = 0) -> str:
    return f"Package: {name}\nVersion: {version}\nSize: {size}\nDepends: {depends}\n"


DEBIAN_IMAGE = "linux-image-6.1.0-9-cloud-amd64"
DEBIAN = {
    "linux-image-cloud-amd64": stanza("linux-image-cloud-amd64", "6.1-2", f"{DEBIAN_IMAGE} (= 6.1)"),
    DEBIAN_IMAGE: stanza(DEBIAN_IMAGE, "6.1-2", "kmod, initramfs-tools | dracut", 26_000_000),
}
UBUNTU_IMAGE = "linux-image-6.8.0-45-generic"
UBUNTU_MODULES = "linux-modules-6.8.0-45-generic"
UBUNTU = {
    "linux-image-virtual": stanza("linux-image-virtual", "6.8", f"{UBUNTU_IMAGE}, linux-firmware"),
    UBUNTU_IMAGE: stanza(UBUNTU_IMAGE, "6.8.0-45.45", f"kmod, {UBUNTU_MODULES}"),
    UBUNTU_MODULES: stanza(UBUNTU_MODULES, "6.8.0-45.45"),
}


@pytest.fixture(autouse=True)
def on_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("linux-image-cloud-amd64", "linux-image-virtual")
    monkeypatch.setattr("trio_sandbox.host.kernel.METAPACKAGES", {os.uname().machine: names})


def fake_distribution(
    program: Program,
    known: dict[str, str],
    *,
    release: str = "6.1.0-9-cloud-amd64",
    private: dict[str, str] | None = None,
    stale: bool = False,
    hang: bool = False,
    modules: str = "lib/modules",
    single: bool = True,
) -> Path:
    program("apt-cache", APT_CACHE.format(known=known, private=known if private is None else private))
    program("dpkg-deb", DPKG_DEB.format(release=release, hang=hang, modules=modules, single=single))
    program("depmod", DEPMOD)
    return program("apt-get", APT_GET.format(stale=stale)).parent


def left(home: Home) -> list[str]:
    return sorted(path.name for path in home.kernels.iterdir())


async def test_debian(home: Home, program: Program) -> None:
    fake_distribution(program, DEBIAN)
    told: list[str] = []
    kernel = await fetch_kernel(home, told.append)
    assert (kernel.release, kernel.package) == ("6.1.0-9-cloud-amd64", "linux-image-6.1.0-9-cloud-amd64 6.1-2")
    assert "downloading linux-image-6.1.0-9-cloud-amd64 (26 MB)" in told
    assert left(home) == ["6.1.0-9-cloud-amd64"]
    folder = home.kernels / kernel.release
    assert sorted(path.name for path in folder.iterdir()) == ["lib", "package", "vmlinuz"]
    assert sorted(path.name for path in kernel.modules.iterdir()) == ["kernel", "modules.dep"]


async def test_ubuntu_has_its_modules_in_another_package(home: Home, program: Program) -> None:
    fake_distribution(program, UBUNTU, release="6.8.0-45-generic", modules="usr/lib/modules", single=False)
    kernel = await fetch_kernel(home)
    assert (kernel.release, kernel.package) == ("6.8.0-45-generic", "linux-image-6.8.0-45-generic 6.8.0-45.45")


async def test_no_lists_are_fetched_in_private(home: Home, program: Program) -> None:
    ran = fake_distribution(program, {}, private=DEBIAN) / "ran"
    await fetch_kernel(home)
    update, download = ran.read_text().splitlines()
    assert update.endswith("update")
    assert f"Dir::State={home.kernels}/.fetching-" in update
    assert f"Dir::Cache={home.kernels}/.fetching-" in download


async def test_old_lists_are_fetched_again(home: Home, program: Program) -> None:
    ran = fake_distribution(program, DEBIAN, stale=True) / "ran"
    await fetch_kernel(home)
    assert [line.split()[-1] for line in ran.read_text().splitlines()] == [
        "linux-image-6.1.0-9-cloud-amd64=6.1-2",
        "update",
        "linux-image-6.1.0-9-cloud-amd64=6.1-2",
    ]


async def test_no_such_package(home: Home, program: Program) -> None:
    fake_distribution(program, {})
    with pytest.raises(HostNotReadyError, match="know no linux-image-cloud-amd64 or linux-image-virtual"):
        await fetch_kernel(home)
    assert left(home) == []


async def test_a_package_without_a_kernel(home: Home, program: Program) -> None:
    fake_distribution(program, DEBIAN, single=False)
    with pytest.raises(HostNotReadyError, match="no boot image with modules"):
        await fetch_kernel(home)
    assert left(home) == []


async def test_a_download_that_fails_twice(home: Home, program: Program) -> None:
    fake_distribution(program, DEBIAN)
    program("apt-get", "sys.exit('E: no route to host')")
    with pytest.raises(ToolError, match="no route to host"):
        await fetch_kernel(home)
    assert left(home) == []


async def test_no_package_manager(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_sandbox.host.kernel.find_program", lambda name: None)
    with pytest.raises(HostNotReadyError, match="TRIO_SANDBOX_KERNEL"):
        await fetch_kernel(home)


async def test_fetched_again_it_replaces_the_old_one(home: Home, program: Program) -> None:
    make_kernel(home, "6.1.0-9-cloud-amd64")
    (home.kernels / ".fetching-abc").mkdir()
    (home.kernels / ".fetching-abc" / "left by a killed one").touch()
    fake_distribution(program, DEBIAN)
    kernel = await fetch_kernel(home)
    assert kernel.package == "linux-image-6.1.0-9-cloud-amd64 6.1-2"
    assert left(home) == ["6.1.0-9-cloud-amd64"]


async def test_interrupted_it_leaves_nothing(home: Home, program: Program) -> None:
    folder = fake_distribution(program, DEBIAN, hang=True)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch_kernel, home)
            await appears(folder / "unpacking")
            nursery.cancel_scope.cancel()
    assert left(home) == []
    fake_distribution(program, DEBIAN)
    assert (await fetch_kernel(home)).release == "6.1.0-9-cloud-amd64"


async def test_two_at_once_take_turns(home: Home, program: Program) -> None:
    fake_distribution(program, DEBIAN)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch_kernel, home)
            nursery.start_soon(fetch_kernel, home)
    assert left(home) == ["6.1.0-9-cloud-amd64"]
