"""Stacks of layers drawn at random, made into archives by GNU tar, and unpacked by it for overlayfs."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
from hypothesis import strategies as st

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""The value of `security.capability` for cap_net_bind_service=ep."""

XATTRS = {"user.k": b"\0binary\n=\xff", "trusted.k": b"", "security.capability": CAPABILITY}

FORMATS = [
    ("--format=gnu", "--sparse"),
    *(("--format=posix", "--sparse", f"--sparse-version={version}") for version in ("0.0", "0.1", "1.0")),
]


@attrs.frozen
class Status:
    """What every file has."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: tuple[str, ...]


@attrs.frozen
class Leaf:
    """No folder. `hides` puts a whiteout of the same name beside it."""

    kind: str
    status: Status
    hides: bool


@attrs.frozen
class Gone:
    """A whiteout."""


@attrs.frozen
class Linked:
    """A hard link to a leaf of the same layer, chosen by number."""

    choice: int


@attrs.frozen
class LinkedBelow:
    """A hard link to a file of the layers below, chosen by number."""

    choice: int


@attrs.frozen
class Folder:
    status: Status
    opaque: bool
    hides: bool
    children: dict[str, object]


@attrs.frozen
class Layer:
    root: Folder
    format: tuple[str, ...]


NAMES = st.sampled_from(["a", "b", "c", "l" * 120, "\udcff \n"])
STATUSES = st.builds(
    Status,
    st.sampled_from([0o600, 0o755, 0o4711, 0o1777]),
    st.sampled_from([0, 1000, 3_000_000_000]),
    st.sampled_from([0, 70_000]),
    st.sampled_from([0, 1_700_000_000, 4_000_000_000]),
    st.lists(st.sampled_from(sorted(XATTRS)), max_size=2, unique=True).map(tuple),
)
KINDS = st.sampled_from(["empty", "small", "large", "sparse", "symlink", "long symlink", "fifo", "character", "block"])
LEAVES = (
    st.builds(Leaf, KINDS, STATUSES, st.booleans())
    | st.builds(Gone)
    | st.builds(Linked, st.integers(0, 5))
    | st.builds(LinkedBelow, st.integers(0, 5))
)


def _folders(nodes: st.SearchStrategy[object]) -> st.SearchStrategy[Folder]:
    return st.builds(Folder, STATUSES, st.booleans(), st.booleans(), st.dictionaries(NAMES, nodes, max_size=4))


NODES: st.SearchStrategy[object] = st.recursive(LEAVES, _folders, max_leaves=8)
STACKS = st.lists(st.builds(Layer, _folders(NODES), st.sampled_from(FORMATS)), min_size=1, max_size=4)


def flat(folder: Folder, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every path with its node, folders before what is in them."""
    for name, node in folder.children.items():
        yield prefix + name, node
        if isinstance(node, Folder):
            yield from flat(node, prefix + name + "/")


def write_layer(layer: Layer, place: Path) -> None:
    """The layer's own files, whiteouts by name, in a new folder."""
    place.mkdir()
    nodes = dict(flat(layer.root))
    leaves = [path for path, node in nodes.items() if isinstance(node, Leaf)]
    for path, node in nodes.items():
        file = place / path
        if isinstance(node, Gone) or (isinstance(node, Leaf | Folder) and node.hides):
            (file.parent / f".wh.{file.name}").touch()
        if isinstance(node, Folder):
            file.mkdir()
            if node.opaque:
                (file / ".wh..wh..opq").touch()
        elif isinstance(node, Leaf):
            _write_leaf(file, node)
    for path, node in nodes.items():
        if isinstance(node, Linked) and leaves:
            os.link(place / leaves[node.choice % len(leaves)], place / path, follow_symlinks=False)
    with_xattrs = "--format=posix" in layer.format
    for path, node in reversed([("", layer.root), *nodes.items()]):
        if isinstance(node, Leaf | Folder):
            _set_status(place / path, node.status, with_xattrs)


def _write_leaf(file: Path, leaf: Leaf) -> None:
    match leaf.kind:
        case "symlink":
            file.symlink_to("../a")
        case "long symlink":
            file.symlink_to("t" * 150)
        case "fifo":
            os.mkfifo(file)
        case "character":
            os.mknod(file, 0o020600, os.makedev(1, 3))
        case "block":
            os.mknod(file, 0o060600, os.makedev(7, 300))
        case "sparse":
            with file.open("wb") as out:
                out.seek(300_000)
                out.write(b"data" * 2000)
                out.seek(700_000)
                out.write(b"end")
                out.truncate(1_000_000)
        case kind:
            size = {"empty": 0, "small": 3, "large": 200_000}[kind]
            file.write_bytes(random.Random(f"{file.name!a} {leaf}").randbytes(size))


def _set_status(file: Path, status: Status, with_xattrs: bool) -> None:
    os.chown(file, status.uid, status.gid, follow_symlinks=False)
    if not file.is_symlink():
        file.chmod(status.mode)
        if with_xattrs and (file.is_dir() or file.is_file()):
            for name in status.xattrs:
                if name != "security.capability" or file.is_file():
                    os.setxattr(file, name, XATTRS[name])
    os.utime(file, (status.mtime, status.mtime), follow_symlinks=False)


def pack(layer: Layer, place: Path, links_below: dict[str, str]) -> bytes:
    """The archive of a folder as GNU tar writes it, hard links to lower layers at its end."""
    archive = place.with_suffix(".tar")
    xattrs = ["--xattrs", "--xattrs-include=*"] if "--format=posix" in layer.format else []
    subprocess.run(["tar", "-C", place, *layer.format, *xattrs, "-cf", archive, "."], check=True)
    if links_below:
        with tarfile.open(archive, "a", format=tarfile.PAX_FORMAT, errors="surrogateescape") as more:
            for path, target in links_below.items():
                info = tarfile.TarInfo(path)
                info.type, info.linkname = tarfile.LNKTYPE, target
                more.addfile(info)
    return archive.read_bytes()


def choose_links_below(layer: Layer, files_below: Sequence[str]) -> dict[str, str]:
    """For each LinkedBelow, a file of the layers below that this layer says nothing of."""
    nodes = dict(flat(layer.root))
    free = [
        file
        for file in files_below
        if file not in nodes
        and all(isinstance(nodes.get(str(above), layer.root), Folder) for above in Path(file).parents)
    ]
    linked = [(path, node) for path, node in nodes.items() if isinstance(node, LinkedBelow)]
    return {path: free[node.choice % len(free)] for path, node in linked if free}


def unpack(archive: Path, place: Path, lent: dict[str, Path]) -> None:
    """A layer as overlayfs wants it, in a new folder. lent: what its links to lower layers mean, by path in there."""
    place.mkdir()
    made = [folder for path in lent for folder in Path(path).parents]
    for path, file in lent.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", file, place / path], check=True)
    options = ["--xattrs", "--xattrs-include=*", "-p", "--same-owner", "--numeric-owner"]
    subprocess.run(
        ["tar", "-C", place, "--warning=no-timestamp", "--delay-directory-restore", *options, "-xf", archive],
        check=True,
    )
    names = tarfile_names(archive)
    times = {Path(folder): os.stat(folder).st_mtime_ns for folder, _, _ in os.walk(place)}
    for path in lent:
        (place / path).unlink()
    for folder in sorted(set(made), key=lambda folder: -len(folder.parts)):
        if str(folder) not in names:
            (place / folder).rmdir()
    _obey_whiteouts(place)
    for folder, mtime in times.items():
        if os.path.lexists(folder):
            os.utime(folder, ns=(mtime, mtime))


def tarfile_names(archive: Path) -> set[str]:
    with tarfile.open(archive, errors="surrogateescape") as opened:
        return {os.path.normpath(name) for name in opened.getnames()}


def _obey_whiteouts(place: Path) -> None:
    for folder, _, files in os.walk(place, topdown=False):
        for name in files:
            if not name.startswith(".wh."):
                continue
            os.unlink(os.path.join(folder, name))
            hidden = os.path.join(folder, name.removeprefix(".wh."))
            if name == ".wh..wh..opq":
                os.setxattr(folder, "trusted.overlay.opaque", b"y")
            elif not os.path.lexists(hidden):
                os.mknod(hidden, 0o020600, os.makedev(0, 0))
            elif os.path.isdir(hidden) and not os.path.islink(hidden):
                os.setxattr(hidden, "trusted.overlay.opaque", b"y")


def fresh(folder: Path) -> Path:
    """An empty folder of this name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
