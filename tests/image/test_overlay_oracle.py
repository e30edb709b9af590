"""The merge against the kernel's own: layers drawn at random, packed by GNU tar; what overlayfs shows of them when GNU
tar has unpacked them, and what our squashfs shows, must be the same to the last attribute.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings

from tests.image import mount_views
from tests.image.images import merge
from tests.image.layer_stacks import (
    FORMATS,
    STACKS,
    Folder,
    Gone,
    Layer,
    Leaf,
    Linked,
    LinkedBelow,
    Status,
    choose_links_below,
    fresh,
    pack,
    unpack,
    write_layer,
)

View = dict[str, Any]
Ask = Callable[[dict[str, Any]], View]


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "mounting needs root"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "the kernel has no overlayfs"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "no mount namespace can be made here"
    return None


pytestmark = pytest.mark.skipif(_why_not() is not None, reason=str(_why_not()))


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Mounts something in a namespace that goes with the test, and tells what is seen there."""
    argv = ["unshare", "--mount", "--propagation=private", sys.executable, mount_views.__file__]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

        def ask(request: dict[str, Any]) -> View:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            view: View = json.loads(process.stdout.readline())
            return view

        yield ask
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


PLAIN = Status(0o755, 0, 0, 0, ())


def _layer(**children: object) -> Layer:
    return Layer(Folder(PLAIN, opaque=False, hides=False, children=children), FORMATS[-1])


FILE = Leaf("small", Status(0o4711, 1000, 0, 7, ("user.k", "security.capability")), hides=False)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STACKS)
@example([_layer(a=FILE, b=Linked(0)), _layer(a=Gone())])
@example([_layer(a=FILE), _layer(b=LinkedBelow(0), a=Gone()), _layer(c=LinkedBelow(0))])
def test_merge_agrees_with_overlayfs(tmp_path: Path, ask: Ask, layers: list[Layer]) -> None:
    work = fresh(tmp_path / "example")
    archives: list[bytes] = []
    linked: set[str] = set()
    for number, layer in enumerate(layers):
        write_layer(layer, work / f"own{number}")
        below = [str(work / f"lower{lower}") for lower in range(number)]
        links = _links(layer, ask, below)
        archives.append(pack(layer, work / f"own{number}", links))
        lent = {target: work / f"lent{number}-{count}" for count, target in enumerate(sorted(set(links.values())))}
        if lent:
            ask({"overlay": below, "copy": {target: str(file) for target, file in lent.items()}})
        unpack(work / f"own{number}.tar", work / f"lower{number}", lent)
        linked |= {_latin(path) for pair in links.items() for path in pair}
    theirs = ask({"overlay": [str(work / f"lower{number}") for number in range(len(layers))]})
    ours = ask({"squashfs": str(_squashfs(work, archives))})
    for path, xattrs in _stored_xattrs(work / "ours.squashfs").items():
        for file in ours.values():
            if file is ours[path] or (file.get("same") is not None and file["same"] == ours[path].get("same")):
                file["xattrs"] = xattrs
    _forget_inodes(linked, ours, theirs)
    assert ours == theirs


def _links(layer: Layer, ask: Ask, below: Sequence[str]) -> dict[str, str]:
    if not below or not any(isinstance(node, LinkedBelow) for node in _all_nodes(layer.root)):
        return {}
    view = ask({"overlay": below})
    files = [path for path, file in view.items() if file["mode"].startswith("0o100")]
    return choose_links_below(layer, [path.encode("latin-1").decode("utf-8", "surrogateescape") for path in files])


def _all_nodes(folder: Folder) -> Iterator[object]:
    for node in folder.children.values():
        yield node
        if isinstance(node, Folder):
            yield from _all_nodes(node)


def _latin(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("latin-1")


def _squashfs(work: Path, archives: Sequence[bytes]) -> Path:
    target = work / "ours.squashfs"
    argv = ["tar2sqfs", "--quiet", "--no-skip", "--compressor", "lz4", str(target)]
    subprocess.run(argv, input=merge(work, archives, compression="gzip"), check=True)
    return target


def _stored_xattrs(squashfs: Path) -> dict[str, dict[str, str]]:
    """By the packer's own reader: not every kernel that reads squashfs reads them."""
    found = {}
    argv = ["sqfs2tar", "--root-becomes", ".", str(squashfs)]
    data = subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        for member in archive.getmembers():
            xattrs = {
                name.removeprefix("SCHILY.xattr."): _latin(value)
                for name, value in sorted(member.pax_headers.items())
                if name.startswith("SCHILY.xattr.")
            }
            if not member.islnk():
                found[_latin(os.path.normpath(member.name))] = xattrs
    return found


def _forget_inodes(paths: set[str], *views: View) -> None:
    """A link to a lower layer's file is that file for us, and a copy of it for overlayfs."""
    shared = [{view[path].get("same") for path in paths if path in view} - {None} for view in views]
    unclear = {
        path for view, same in zip(views, shared, strict=True) for path in view if view[path].get("same") in same
    }
    for view in views:
        for path in unclear & view.keys():
            view[path].pop("same", None)
