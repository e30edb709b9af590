"""The root file system as a tree in memory, while layers are laid over each other.

Rules, which are those of overlayfs: the upper entry wins; a folder over a folder keeps what is in it; anything else
replaces what was there, children included; a whiteout or an opaque mark hides what lower layers brought, never what
its own layer brings. Symbolic links are never followed: a name is always a place in this tree, so nothing can leave
it.

A file is one `Node` however many names it has, so a hard link keeps its content when an upper layer replaces or
deletes the name that it was made from.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.limits import MAX_NAME_BYTES, MAX_XATTR_BYTES, Limits
from trio_sandbox.image.tarformat import Entry, Extents, Kind, Xattrs

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS_PRIVATE = b".wh..wh."
"""Names that an old union file system kept for itself; they mean nothing outside it."""

XATTR_NAMESPACES = (b"user.", b"trusted.", b"security.")
"""Namespaces that squashfs can store. ACLs (`system.`) are lost."""

OVERLAY_XATTRS = b"trusted.overlay."
"""The guest's overlayfs would obey these; they are its own, not the image's."""

Parts = tuple[bytes, ...]


@attrs.define(eq=False)
class Node:
    """One inode. `children` is None for all but folders."""

    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: Xattrs
    link: bytes = b""
    """Target of a symbolic link."""
    device: tuple[int, int] = (0, 0)
    size: int = 0
    layer: int = 0
    offset: int = 0
    """Of the content in the uncompressed layer."""
    stored: int = 0
    extents: Extents | None = None
    children: dict[bytes, Node] | None = None
    parent: Node | None = None
    """With `name`: the place under which the file is written out; set when the tree is complete."""
    name: bytes = b""


def new_folder() -> Node:
    """A folder that no layer describes."""
    return Node(Kind.DIRECTORY, 0o755, 0, 0, 0, (), children={})


@attrs.define(eq=False)
class Tree:
    """The merged tree, and how much of the limits it has used."""

    limits: Limits
    root: Node = attrs.Factory(new_folder)
    entries: int = 0
    metadata_bytes: int = 0
    file_bytes: int = 0

    def add_layer(self, number: int, entries: Iterator[Entry]) -> None:
        """Lay the next layer over the tree. Raises ImageFault; the tree is then of no more use."""
        layer = [(self._path(entry.name), entry) for entry in self._counted(entries)]
        # A hard link may name a file of a lower layer that this layer hides: look before anything is hidden.
        links = {self._path(entry.link) for _, entry in layer if entry.kind is Kind.HARDLINK}
        targets = {path: self.find(path) for path in links}
        for path, _ in layer:
            if path and path[-1].startswith(WHITEOUT):
                self._hide(path)
        for path, entry in layer:
            if path and path[-1].startswith(WHITEOUT):
                continue
            if entry.kind is Kind.HARDLINK:
                target = self._path(entry.link)
                node = self.find(target) or targets[target]
                if node is None or node.children is not None:
                    raise ImageFault(f"{show(entry.name)} is a hard link to {show(entry.link)}, which is no file")
            else:
                node = self._node(entry, number)
            self._put(path, node)

    def find(self, path: Parts) -> Node | None:
        """The node at `path`, or None."""
        node = self.root
        for part in path:
            child = node.children.get(part) if node.children is not None else None
            if child is None:
                return None
            node = child
        return node

    def _counted(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        for entry in entries:
            self._count(len(entry.name) + len(entry.link))
            for key, value in entry.xattrs:
                self._count(len(key) + len(value), entries=0)
            if entry.extents is not None:
                self._count(16 * len(entry.extents), entries=0)
            if entry.size > self.limits.file_bytes:
                raise ImageFault(f"{show(entry.name)} has {entry.size} bytes; a file may have {self.limits.file_bytes}")
            self.file_bytes += entry.size
            if self.file_bytes > self.limits.total_bytes:
                raise ImageFault(f"its files have more than {self.limits.total_bytes} bytes")
            yield entry

    def _count(self, metadata: int, entries: int = 1) -> None:
        self.entries += entries
        self.metadata_bytes += metadata
        if self.entries > self.limits.entries:
            raise ImageFault(f"it has more than {self.limits.entries} entries")
        if self.metadata_bytes > self.limits.metadata_bytes:
            raise ImageFault(f"its names, links and attributes have more than {self.limits.metadata_bytes} bytes")

    def _path(self, name: bytes) -> Parts:
        """Split a name; `..` stops at the root, and an absolute name starts there."""
        parts: list[bytes] = []
        for part in name.split(b"/"):
            if part == b"..":
                del parts[-1:]
            elif part and part != b".":
                if len(part) > MAX_NAME_BYTES:
                    raise ImageFault(f"{show(part)} is longer than the {MAX_NAME_BYTES} bytes that a name may have")
                parts.append(part)
        if len(parts) > self.limits.depth:
            raise ImageFault(f"{show(name)} is more than {self.limits.depth} folders deep")
        if sum(map(len, parts)) + len(parts) > self.limits.path_bytes:
            raise ImageFault(f"a path is longer than {self.limits.path_bytes} bytes")
        return tuple(parts)

    def _hide(self, path: Parts) -> None:
        name = path[-1]
        folder = self.find(path[:-1])
        if folder is None or folder.children is None:
            return
        if name == OPAQUE:
            folder.children.clear()
        elif not name.startswith(AUFS_PRIVATE):
            hidden = name[len(WHITEOUT) :]
            if hidden in (b"", b".", b".."):
                raise ImageFault(f"{show(name)} is a whiteout of nothing")
            folder.children.pop(hidden, None)

    def _put(self, path: Parts, node: Node) -> None:
        folder = self.root
        for part in path[:-1]:
            assert folder.children is not None
            child = folder.children.get(part)
            if child is None or child.children is None:
                self._count(len(part))
                child = folder.children[part] = new_folder()
            folder = child
        there = folder.children.get(path[-1]) if path and folder.children is not None else self.root
        if there is not None and there.children is not None and node.children is not None:
            there.mode, there.uid, there.gid = node.mode, node.uid, node.gid
            there.mtime, there.xattrs = node.mtime, node.xattrs
        elif not path:
            raise ImageFault("the root of a layer is not a folder")
        elif folder.children is not None:
            folder.children[path[-1]] = node

    def _node(self, entry: Entry, layer: int) -> Node:
        if max(entry.uid, entry.gid) >= 1 << 32:
            raise ImageFault(f"{show(entry.name)} has an owner that no file can have")
        if entry.device[0] >= 1 << 12 or entry.device[1] >= 1 << 20:
            raise ImageFault(f"{show(entry.name)} has a device number that no device can have")
        if entry.kind is Kind.SYMLINK and not 0 < len(entry.link) < self.limits.path_bytes:
            raise ImageFault(f"{show(entry.name)} is a symbolic link to nothing, or to too long a path")
        is_file = entry.kind is Kind.FILE
        return Node(
            entry.kind,
            entry.mode,
            entry.uid,
            entry.gid,
            min(max(entry.mtime, 0), 0xFFFFFFFF),
            _kept_xattrs(entry),
            link=entry.link if entry.kind is Kind.SYMLINK else b"",
            device=entry.device,
            size=entry.size if is_file else 0,
            layer=layer,
            offset=entry.offset,
            stored=entry.stored if is_file else 0,
            extents=entry.extents,
            children={} if entry.kind is Kind.DIRECTORY else None,
        )


def _kept_xattrs(entry: Entry) -> Xattrs:
    if not entry.xattrs:
        return ()
    for key, value in entry.xattrs:
        if len(key) > MAX_NAME_BYTES or len(value) > MAX_XATTR_BYTES or b"\0" in key:
            raise ImageFault(f"{show(entry.name)} has an extended attribute that is too long")
    return tuple(
        (key, value)
        for key, value in sorted(entry.xattrs)
        if key.startswith(XATTR_NAMESPACES) and key not in XATTR_NAMESPACES and not key.startswith(OVERLAY_XATTRS)
    )


def show(name: bytes) -> str:
    """A hostile name for a message: short and printable."""
    return ascii(name[:200].decode(errors="replace"))
