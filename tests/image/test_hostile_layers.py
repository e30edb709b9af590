"""Layers that no tool writes: anything at all must end in a typed error or in a sound result."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.image.images import Item, contents, folder, hardlink, layer_tar, listing, merge, symlink
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.limits import MAX_EXTENSIONS, Limits
from trio_sandbox.image.tarfields import BLOCK

Tree = dict[str, object]
"""A folder; a leaf is its kind and content."""


def find(tree: Tree, path: str) -> object:
    node: object = tree
    for part in path.split("/"):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def put(tree: Tree, path: str, node: object) -> None:
    *parents, name = path.split("/")
    for part in parents:
        inner = tree.get(part)
        if not isinstance(inner, dict):
            inner = tree[part] = {}
        tree = inner
    if not (isinstance(node, dict) and isinstance(tree.get(name), dict)):
        tree[name] = node


def hide(tree: Tree, whiteout: str) -> None:
    parent, _, name = whiteout.rpartition("/")
    inner = find(tree, parent) if parent else tree
    if isinstance(inner, dict):
        if name == ".wh..wh..opq":
            inner.clear()
        else:
            inner.pop(name.removeprefix(".wh."), None)


def apply(tree: Tree, layer: Sequence[Item]) -> None:
    """A layer over what is below it, as plainly as it can be said. Raises LookupError for a link to no file."""
    below = {item.link: find(tree, item.link) for item in layer if item.kind == tarfile.LNKTYPE}
    for item in layer:
        if ".wh." in item.name:
            hide(tree, item.name)
    for item in layer:
        if ".wh." in item.name:
            continue
        node: object = {} if item.kind == tarfile.DIRTYPE else (item.kind, item.data, item.link)
        if item.kind == tarfile.LNKTYPE:
            node = find(tree, item.link) or below[item.link]
            if not isinstance(node, tuple) or item.name.startswith(item.link + "/"):
                raise LookupError(item.link)
        put(tree, item.name, node)


def flat(tree: Tree, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, node in tree.items():
        if isinstance(node, dict):
            found |= {prefix + name: "folder", **flat(node, f"{prefix}{name}/")}
        else:
            found[prefix + name] = node
    return found


PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
ITEMS = st.one_of(
    st.builds(Item, PATHS, st.binary(min_size=8, max_size=8)),
    st.builds(folder, PATHS),
    st.builds(symlink, PATHS, st.sampled_from("xy")),
    st.builds(hardlink, PATHS, PATHS),
    PATHS.map(lambda path: Item("/".join([*path.split("/")[:-1], ".wh." + path[-1]]))),
    PATHS.map(lambda path: Item(path + "/.wh..wh..opq")),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(ITEMS, max_size=7), min_size=1, max_size=4))
@example([[Item("a/b", b"1"), Item("a", b"2"), Item("a/b", b"3"), hardlink("c", "a/b"), Item("a/b", b"4")]])
@example([[Item("a/a", b"1"), hardlink("a/a", "a/a"), Item("b", b"2")]])
@example([[Item("a", b"1"), hardlink("c", "a"), folder("a"), hardlink("a", "c"), Item("b", b"2")]])
@example([[folder("a"), Item("a/b")], [Item("a"), folder("a")], [hardlink("c", "a/b")]])
@example([[Item("a", b"1")], [hardlink("b", "a"), Item("b", b"2")], [hardlink("c", "a"), Item(".wh.a")]])
def test_any_order_of_entries_means_what_it_says(tmp_path: Path, layers: list[list[Item]]) -> None:
    expected: Tree = {}
    try:
        for layer in layers:
            apply(expected, layer)
    except LookupError:
        with pytest.raises(ImageFault, match="which is no file"):
            merge(tmp_path, [layer_tar(layer) for layer in layers])
        return
    out = merge(tmp_path, [layer_tar(layer) for layer in layers])
    files, entries, found = contents(out), listing(out), {}
    for name, entry in entries.items():
        first = entries[entry.linkname] if entry.islnk() else entry
        link = first.linkname if first.issym() else ""
        found[name] = "folder" if first.isdir() else (first.type, files.get(name, b""), link)
    del found["."]
    assert found == flat(expected)


SOUND = [
    layer_tar([folder("d"), Item("d/f", b"x" * 700, xattrs=(("user.a", "b"),)), hardlink("d/h", "d/f")]),
    layer_tar([symlink("s", "t" * 200), Item("n" * 300, b"long"), Item("d/.wh.f"), Item("c", kind=tarfile.CHRTYPE)]),
]


def check_typed_or_sound(tmp_path: Path, layers: list[bytes]) -> None:
    try:
        out = merge(tmp_path, layers)
    except ImageFault:
        return
    for name in listing(out):
        assert not name.startswith("/") and ".." not in name.split("/")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1), st.integers(0, 15), st.integers(0, BLOCK - 1), st.binary(min_size=1, max_size=40))
def test_damaged_headers_with_right_checksums(tmp_path: Path, which: int, block: int, at: int, junk: bytes) -> None:
    layers = [bytearray(layer) for layer in SOUND]
    header = layers[which][block * BLOCK : (block + 1) * BLOCK]
    header[at : at + len(junk)] = junk[: BLOCK - at]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    layers[which][block * BLOCK : (block + 1) * BLOCK] = header
    check_typed_or_sound(tmp_path, [bytes(layer) for layer in layers])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=3), st.integers(0, 12_000))
def test_any_bytes(tmp_path: Path, layers: list[bytes], cut: int) -> None:
    check_typed_or_sound(tmp_path, layers)
    check_typed_or_sound(tmp_path, [*SOUND[:1], SOUND[1][:cut] + layers[0]])


@pytest.mark.parametrize(
    ("limits", "item", "said"),
    [
        (Limits(file_bytes=1000), Item("d/big", bytes(1001)), "'d/big' has 1001 bytes; a file may have 1000"),
        (Limits(total_bytes=4000), Item("d/big", bytes(9000)), "it unpacks to more than the 4000 bytes"),
        (Limits(entries=1), Item("d/more"), "more than 1 entries"),
        (Limits(depth=2), Item("a/b/c"), "'a/b/c' is more than 2 folders deep"),
        (Limits(path_bytes=9), Item("d/too-long"), "'d/too-long' is a path of 10 bytes; 9"),
        (Limits(), Item("x" * 256), "longer than the 255 bytes"),
    ],
)
def test_an_error_names_layer_path_and_limit(tmp_path: Path, limits: Limits, item: Item, said: str) -> None:
    with pytest.raises(ImageFault, match=f"^layer 2 of 2: .*{said}"):
        merge(tmp_path, [layer_tar([]), layer_tar([item])], limits=limits)


def test_extensions_without_an_entry_are_bounded(tmp_path: Path) -> None:
    extension = layer_tar([Item("n" * 300)])[: 2 * BLOCK]
    with pytest.raises(ImageFault, match=f"more than {MAX_EXTENSIONS} tar extensions"):
        merge(tmp_path, [extension * (MAX_EXTENSIONS + 1) + layer_tar([Item("a")])])


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "s/passwd"])
def test_a_hard_link_to_outside_is_one_to_a_place_in_the_image(tmp_path: Path, target: str) -> None:
    with pytest.raises(ImageFault, match=r"layer 1 of 1: 'h' is a hard link to .*, which is no file"):
        merge(tmp_path, [layer_tar([symlink("s", "/etc"), hardlink("h", target)])])
