"""One layer while it is read: its entries become a tree, and each is judged by what lies above."""

from __future__ import annotations

import attrs

from trio_sandbox.image.faults import ImageFault, show
from trio_sandbox.image.limits import MAX_NAME_BYTES, MAX_XATTR_BYTES, Limits
from trio_sandbox.image.lower_links import LowerLink
from trio_sandbox.image.tarformat import Entry, Kind
from trio_sandbox.image.tree import AUFS_PRIVATE, OPAQUE, WHITEOUT, Folder, Inode, new_root

_NO_NAME = (b"", b".", b"..")
_MAX_ID = (1 << 32) - 1
_MAX_MAJOR, _MAX_MINOR = (1 << 12) - 1, (1 << 20) - 1


@attrs.define(eq=False)
class Budget:
    """How much of its limits an image has used so far."""

    limits: Limits
    entries: int = 0
    metadata_bytes: int = 0
    file_bytes: int = 0

    def take(self, entry: Entry) -> None:
        """Count an entry. Raises ImageFault."""
        metadata = len(entry.name) + len(entry.link)
        if entry.xattrs:
            metadata += sum(len(key) + len(value) for key, value in entry.xattrs)
        if entry.extents:
            metadata += 16 * len(entry.extents)
        self.take_name(metadata)
        if entry.size:
            limits = self.limits
            if entry.size > limits.file_bytes:
                raise ImageFault(f"{show(entry.name)} has {entry.size} bytes; a file may have {limits.file_bytes}")
            self.file_bytes += entry.size
            if self.file_bytes > limits.total_bytes:
                raise ImageFault(f"with {show(entry.name)} its files have more than {limits.total_bytes} bytes")

    def take_name(self, metadata: int) -> None:
        """Count something that has a name. Raises ImageFault."""
        self.entries += 1
        self.metadata_bytes += metadata
        if self.entries > self.limits.entries:
            raise ImageFault(f"it has more than {self.limits.entries} entries")
        if self.metadata_bytes > self.limits.metadata_bytes:
            raise ImageFault(f"its names, links and attributes have more than {self.limits.metadata_bytes} bytes")


@attrs.define(eq=False)
class LayerTree:
    """The tree of one layer under the tree of those above it."""

    number: int
    label: str
    """The layer in messages."""
    budget: Budget
    root: Folder
    lower_links: list[LowerLink] = attrs.field(factory=list)
    """Hard links to what this layer does not hold."""
    replaced: list[Inode] = attrs.field(factory=list)
    """What this layer brought and then replaced."""
    is_contradicted: bool = False
    """Whether something that was replaced had been written."""
    _folders: dict[bytes, Folder] = attrs.field(factory=dict)
    """By the spelling that entries used."""

    @classmethod
    def under(cls, above: Folder, number: int, label: str, budget: Budget) -> LayerTree:
        """An empty layer under the tree `above`, which must not change until this one is complete."""
        root = new_root()
        root.above = above
        return cls(number, label, budget, root)

    def add(self, entry: Entry) -> tuple[Inode, bytes | None] | None:
        """Take the next entry. If it is one to write: its inode, and its path, None when it is hidden from above.

        Raises ImageFault for what cannot be, or is over a limit; the tree is then of no more use.
        """
        self.budget.take(entry)
        _check(entry, self.budget.limits)
        head, _, name = entry.name.rstrip(b"/").rpartition(b"/")
        if name in _NO_NAME:
            parts = self._split(entry.name)
            if not parts:
                self._describe_root(entry)
                return None
            head, name = b"/".join(parts[:-1]), parts[-1]
        if name.startswith(WHITEOUT):
            self._white_out(head, name)
            return None
        folder = self._folders.get(head) or self._real_folder(head)
        if len(name) > MAX_NAME_BYTES or folder.depth >= self.budget.limits.depth:
            self._split(entry.name)  # raises
        return self._put(folder, name, entry)

    def _put(self, folder: Folder, name: bytes, entry: Entry) -> tuple[Inode, bytes | None] | None:
        if entry.kind is Kind.DIRECTORY:
            mine = self._subfolder(folder, name)
            mine.is_real, mine.entry = True, entry
            return None
        inode = self._linked(entry) if entry.kind is Kind.HARDLINK else Inode((self.number, entry.offset))
        there = folder.children.get(name)
        if there is inode:  # a link to itself
            return None
        if there is not None:
            self._drop(folder, name, there)
        folder.children[name] = inode
        if entry.kind is Kind.HARDLINK:
            return None
        return inode, folder.join(name) if folder.shows(name) else None

    def _subfolder(self, folder: Folder, name: bytes) -> Folder:
        there = folder.children.get(name)
        if isinstance(there, Folder):
            return there
        if there is not None:
            self._drop(folder, name, there)
        return folder.subfolder(name)

    def _drop(self, folder: Folder, name: bytes, node: Folder | Inode) -> None:
        """Forget a child that another one replaces; what it hid of lower layers stays hidden."""
        folder.hide(name)
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if isinstance(node, Inode):
                self.replaced.append(node)
                self.is_contradicted |= node.written is not None
            else:
                self._folders.clear()
                waiting += node.children.values()

    def _real_folder(self, spelling: bytes) -> Folder:
        folder = self.root
        for part in self._split(spelling):
            folder = self._subfolder(folder, part)
            if not folder.is_real:
                folder.is_real = True
                self.budget.take_name(len(part))
        self._folders[spelling] = folder
        return folder

    def _describe_root(self, entry: Entry) -> None:
        if entry.kind is not Kind.DIRECTORY:
            raise ImageFault("its root is not a folder")
        self.root.entry = entry

    def _white_out(self, head: bytes, name: bytes) -> None:
        """Hide what lower layers bring, without making the folder that it would be in."""
        hidden = name[len(WHITEOUT) :]
        if hidden in _NO_NAME:
            raise ImageFault(f"{show(name)} is a whiteout of nothing")
        if name.startswith(AUFS_PRIVATE) and name != OPAQUE:
            return
        folder = self.root
        for part in self._split(head):
            there = folder.children.get(part)
            if isinstance(there, Inode):
                return
            if there is None:
                self.budget.take_name(len(part))
                there = folder.subfolder(part)
            folder = there
        if name == OPAQUE:
            folder.is_closed = True
        else:
            folder.hide(hidden)

    def _linked(self, entry: Entry) -> Inode:
        """The file that a hard link means; of a lower layer, when this one does not hold it."""
        parts = self._split(entry.link)
        node: Folder | Inode | None = self.root
        for part in parts:
            node = node.children.get(part) if isinstance(node, Folder) else None
        if isinstance(node, Folder) and node.is_real:
            raise ImageFault(f"{show(entry.name)} is a hard link to {show(entry.link)}, which is no file")
        if isinstance(node, Inode):
            node.is_linked = True
            return node
        inode = Inode((self.number, entry.offset), is_linked=True)
        self.lower_links.append(LowerLink(inode, tuple(parts), f"{self.label}: {show(entry.name)}"))
        return inode

    def _split(self, name: bytes) -> list[bytes]:
        """The parts of a path; `..` stops at the root, and an absolute path starts there. Raises ImageFault."""
        limits = self.budget.limits
        if len(name) >= limits.path_bytes:
            raise ImageFault(f"{show(name)} is a path of {len(name)} bytes; {limits.path_bytes} is the limit")
        parts: list[bytes] = []
        for part in name.split(b"/"):
            if part == b"..":
                del parts[-1:]
            elif part and part != b".":
                if len(part) > MAX_NAME_BYTES:
                    raise ImageFault(f"{show(part)} is longer than the {MAX_NAME_BYTES} bytes that a name may have")
                parts.append(part)
        if len(parts) > limits.depth:
            raise ImageFault(f"{show(name)} is more than {limits.depth} folders deep")
        return parts


def _check(entry: Entry, limits: Limits) -> None:
    """Refuse what no file can have."""
    if len(entry.name) >= limits.path_bytes:
        raise ImageFault(f"{show(entry.name)} is a path of {len(entry.name)} bytes; {limits.path_bytes} is the limit")
    if entry.uid > _MAX_ID or entry.gid > _MAX_ID:
        raise ImageFault(f"{show(entry.name)} has an owner that no file can have")
    if entry.device[0] > _MAX_MAJOR or entry.device[1] > _MAX_MINOR:
        raise ImageFault(f"{show(entry.name)} has a device number that no device can have")
    if entry.kind is Kind.SYMLINK and not 0 < len(entry.link) < limits.path_bytes:
        raise ImageFault(f"{show(entry.name)} is a symbolic link to nothing, or to too long a path")
    for key, value in entry.xattrs:
        if len(key) > MAX_NAME_BYTES or len(value) > MAX_XATTR_BYTES or b"\0" in key:
            raise ImageFault(f"{show(entry.name)} has an extended attribute that is too long")
