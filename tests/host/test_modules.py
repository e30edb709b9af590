"""The order of kernel modules, from trees and texts made up here."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.host.modules import (
    ModuleIndex,
    load_order,
    normal_name,
    parse_aliases,
    parse_builtin,
    parse_dependencies,
    parse_soft,
    read_index,
    read_module,
)

pytestmark = pytest.mark.anyio

DEPENDENCIES = """\
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio_mmio.ko.xz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/fs/ext4/ext4.ko.zst: kernel/fs/jbd2/jbd2.ko.zst
kernel/fs/jbd2/jbd2.ko.zst:
kernel/crypto/crc32c_generic.ko:
"""

INDEX = ModuleIndex(
    *parse_dependencies(DEPENDENCIES),
    builtin=parse_builtin("kernel/fs/squashfs/squashfs.ko\nkernel/drivers/char/hw_random/rng-core.ko\n"),
    before=parse_soft("# comment\nsoftdep ext4 pre: crc32c post: other\nsoftdep jbd2 pre: nowhere rng-core\n"),
    aliases=parse_aliases("alias crypto-crc32c crc32c-generic\nalias pci:v00001AF4d* virtio_mmio\n# alias x y\n"),
)


def order(*wanted: str, welcome: tuple[str, ...] = ()) -> list[str]:
    return [normal_name(path) for path in load_order(INDEX, wanted, welcome)]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("virtio-rng", "virtio_rng"),
        ("kernel/a/virtio-rng.ko", "virtio_rng"),
        ("x/ext4.ko.zst", "ext4"),
        ("x/ext4.ko.xz", "ext4"),
        ("overlay", "overlay"),
    ],
)
def test_normal_name(path: str, name: str) -> None:
    assert normal_name(path) == name


def test_dependencies_come_first_and_once() -> None:
    assert order("virtio_mmio", "virtio-rng") == ["virtio_ring", "virtio", "virtio_mmio", "virtio_rng"]


def test_builtin_needs_no_loading() -> None:
    assert order("squashfs", "rng-core") == []


def test_soft_dependencies_by_alias_and_absent_ones_are_left_out() -> None:
    assert order("ext4") == ["crc32c_generic", "jbd2", "ext4"]


def test_welcome_ones_may_be_absent() -> None:
    assert order("virtio", welcome=("nowhere", "virtio_rng")) == ["virtio_ring", "virtio", "virtio_rng"]


def test_all_absent_ones_are_named_at_once() -> None:
    with pytest.raises(HostNotReadyError, match="lack overlay, btrfs"):
        order("overlay", "virtio", "btrfs")


def test_circles_end() -> None:
    index = ModuleIndex({"a": "a.ko", "b": "b.ko"}, {"a": ("b",), "b": ()}, before={"a": ("b",), "b": ("a",)})
    assert load_order(index, ["a"]) == ["b.ko", "a.ko"]


@given(st.dictionaries(st.integers(0, 12), st.lists(st.integers(0, 12), max_size=4), max_size=13))
def test_every_module_after_all_that_it_needs(graph: dict[int, list[int]]) -> None:
    # Edges go to smaller numbers only, as depmod refuses circles.
    needs = {f"m{node}": tuple(f"m{to}" for to in edges if to < node and to in graph) for node, edges in graph.items()}
    index = ModuleIndex({name: f"{name}.ko" for name in needs}, needs)
    found = [normal_name(path) for path in load_order(index, needs)]
    assert sorted(found) == sorted(needs)
    for name, needed in needs.items():
        assert all(found.index(before) < found.index(name) for before in needed)


@given(st.text())
def test_parsers_take_any_text(text: str) -> None:
    parse_dependencies(text)
    parse_builtin(text)
    parse_soft(text)
    parse_aliases(text)


def test_index_from_a_folder_with_the_least_there_can_be(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text("a.ko:\n")
    assert read_index(tmp_path) == ModuleIndex({"a": "a.ko"}, {"a": ()})


def test_index_from_a_folder_without_one(tmp_path: Path) -> None:
    with pytest.raises(HostNotReadyError, match=r"no modules\.dep"):
        read_index(tmp_path)


MODULE = b"\x7fELF" + bytes(range(256)) * 40


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
async def test_modules_are_decompressed(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ko"
    path.write_bytes(MODULE)
    if suffix == ".gz":
        path = tmp_path / "a.ko.gz"
        path.write_bytes(gzip.compress(MODULE))
    elif suffix:
        program = shutil.which("xz" if suffix == ".xz" else "zstd")
        assert program is not None, "set-up installs it"
        await trio.run_process([program, "-q", path])
        path = tmp_path / f"a.ko{suffix}"
    assert await read_module(path) == MODULE


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.ko", b"", "damaged"),
        ("a.ko", b"not a module", "damaged"),
        ("a.ko.gz", b"not gzip", "cannot be read"),
        ("a.ko.gz", gzip.compress(MODULE)[:-20], "cannot be read"),
        ("a.ko.lz4", MODULE, "not supported"),
    ],
)
async def test_bad_modules(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HostNotReadyError, match=told):
        await read_module(tmp_path / name)
