"""The merge against the kernel's own: random layers, mounted by overlayfs and merged by us, must look the same."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.image.images import Item, folder, hardlink, layer_tar, merge, symlink


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "mounting an overlay needs root"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "the kernel has no overlayfs"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "no mount namespace can be made here"
    return None


pytestmark = pytest.mark.skipif(_why_not() is not None, reason=str(_why_not()))


@attrs.frozen
class Leaf:
    """A file or a symlink; `hides` puts a whiteout of the same name beside it."""

    content: str
    is_link: bool
    mode: int
    hides: bool


@attrs.frozen
class Gone:
    """A whiteout."""


@attrs.frozen
class Linked:
    """A hard link to a file of the same layer, chosen by number."""

    choice: int


@attrs.frozen
class Folder:
    mode: int
    uid: int
    opaque: bool
    hides: bool
    children: dict[str, object]


NAMES = st.sampled_from("abc")
LEAVES = (
    st.builds(Leaf, st.sampled_from("xyz"), st.booleans(), st.sampled_from([0o600, 0o4755]), st.booleans())
    | st.builds(Gone)
    | st.builds(Linked, st.integers(0, 5))
)
NODES: st.SearchStrategy[object] = st.recursive(
    LEAVES,
    lambda nodes: st.builds(
        Folder,
        st.sampled_from([0o700, 0o1777]),
        st.integers(0, 2),
        st.booleans(),
        st.booleans(),
        st.dictionaries(NAMES, nodes, max_size=3),
    ),
    max_leaves=8,
)
STACKS = st.lists(st.dictionaries(NAMES, NODES, max_size=3), min_size=1, max_size=4)


def flat(children: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, node in children.items():
        yield prefix + name, node
        if isinstance(node, Folder):
            yield from flat(node.children, prefix + name + "/")


def resolved_links(layer: dict[str, object]) -> dict[str, str]:
    """For each Linked, the file of the same layer that it names; without files it is left out."""
    files = [path for path, node in flat(layer) if isinstance(node, Leaf) and not node.is_link]
    return {p: files[node.choice % len(files)] for p, node in flat(layer) if isinstance(node, Linked) and files}


def as_items(layer: dict[str, object]) -> list[Item]:
    items: list[Item] = []
    for path, node in flat(layer):
        head, _, name = path.rpartition("/")
        whiteout = Item(f"{head}/.wh.{name}" if head else f".wh.{name}")
        match node:
            case Gone():
                items.append(whiteout)
            case Leaf():
                items += [whiteout] if node.hides else []
                body = (
                    symlink(path, node.content) if node.is_link else Item(path, node.content.encode(), mode=node.mode)
                )
                items.append(body)
            case Folder():
                items.append(folder(path, mode=node.mode, uid=node.uid))
                items += [Item(f"{path}/.wh..wh..opq")] if node.opaque else []
                items += [whiteout] if node.hides else []
    return items + [hardlink(path, target) for path, target in resolved_links(layer).items()]


def write_overlay_layer(root: Path, layer: dict[str, object]) -> None:
    """The same layer as overlayfs wants it on disk."""
    root.mkdir()
    for path, node in flat(layer):
        place = root / path
        match node:
            case Gone():
                os.mknod(place, 0o600 | 0o020000, os.makedev(0, 0))
            case Leaf() if node.is_link:
                place.symlink_to(node.content)
            case Leaf():
                place.write_text(node.content)
                place.chmod(node.mode)
            case Folder():
                place.mkdir()
                place.chmod(node.mode)
                os.chown(place, node.uid, 0)
                if node.opaque or node.hides:
                    os.setxattr(place, "trusted.overlay.opaque", b"y")
    for path, target in resolved_links(layer).items():
        os.link(root / target, root / path)


SHOW = """
import json, os, sys
root, found = sys.argv[1], {}
for folder, folders, files in os.walk(root):
    for name in folders + files:
        path = os.path.join(folder, name)
        if not os.path.lexists(path):  # overlayfs lists a whiteout in a folder that it need not merge
            continue
        status = os.lstat(path)
        body = os.readlink(path) if os.path.islink(path) else open(path).read() if os.path.isfile(path) else ""
        mode = 0o777 if os.path.islink(path) else status.st_mode & 0o7777
        kind = "l" if os.path.islink(path) else "d" if os.path.isdir(path) else "f"
        found[os.path.relpath(path, root)] = [kind, mode, status.st_uid, body]
json.dump(found, sys.stdout)
"""


def overlay_view(folder: Path, layers: list[dict[str, object]]) -> dict[str, list[object]]:
    (folder / "empty").mkdir()
    (folder / "view").mkdir()
    for number, layer in enumerate(layers):
        write_overlay_layer(folder / str(number), layer)
    # Relative names keep the option short; the bottom one is there because an overlay needs two.
    lower = ":".join([*(str(number) for number in reversed(range(len(layers)))), "empty"])
    script = f'mount -t overlay overlay -o ro,lowerdir={lower} view && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", SHOW, "view"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, check=True)
    view: dict[str, list[object]] = json.loads(done.stdout)
    return view


def our_view(data: bytes) -> dict[str, list[object]]:
    view: dict[str, list[object]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive.getmembers():
            if member.name == ".":
                continue
            if member.issym():
                view[member.name] = ["l", 0o777, member.uid, member.linkname]
            elif member.isdir():
                view[member.name] = ["d", member.mode, member.uid, ""]
            else:
                first = archive.getmember(member.linkname) if member.islnk() else member
                file = archive.extractfile(first)
                assert file is not None
                view[member.name] = ["f", first.mode, first.uid, file.read().decode()]
    return view


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STACKS)
def test_merge_agrees_with_overlayfs(tmp_path: Path, layers: list[dict[str, object]]) -> None:
    work = tmp_path / "example"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    ours = our_view(merge(work, [layer_tar(as_items(layer)) for layer in layers]))
    assert ours == overlay_view(work, layers)
