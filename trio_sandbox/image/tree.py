"""Layers as trees, and what one layer shows through those that lie over it.

Layers are laid down from the top: what is above is known when a layer is read, so each of its entries is at once known
to be visible or hidden. Rules, which are those of overlayfs: the upper entry wins; a folder over a folder keeps what
is in it; anything else hides what is below it; a whiteout or an opaque mark hides what lower layers bring, never what
its own layer brings. Within a layer a later entry replaces an earlier one. Symbolic links are never followed: a name is
always a place in these trees, so nothing can leave them.

A file is one `Inode` however many names it has, so a hard link keeps its content when an upper layer replaces or
deletes the name that it was made from.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from trio_sandbox.image.tarformat import Entry

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
AUFS_PRIVATE = b".wh..wh."
"""Names that an old union file system kept for itself; they mean nothing outside it."""

Place = tuple[int, int]
"""Where an entry is: the number of its layer, and its offset in there."""


@attrs.define(eq=False)
class Inode:
    """Anything but a folder, under all its names."""

    place: Place
    written: bytes | None = None
    """The name under which it is in the output."""
    is_linked: bool = False
    """Whether a hard link was made to it or of it, so that its names must be counted."""
    target: Inode | None = None
    """Of a link to a file of a lower layer, once that is found: the file."""

    def resolved(self) -> Inode:
        """The file itself."""
        inode = self
        while inode.target is not None:
            inode = inode.target
        return inode


@attrs.define(eq=False)
class Folder:
    """A folder. One that is not `real` only holds marks that hide what is in a lower folder of this name."""

    path: bytes
    """From the root; b"" for the root itself."""
    depth: int
    is_real: bool = False
    entry: Entry | None = None
    """Its metadata, None where only the names of its children imply it."""
    children: dict[bytes, Folder | Inode] = attrs.field(factory=dict)
    gone: set[bytes] | frozenset[bytes] = frozenset()
    """Names that lower layers cannot bring."""
    is_closed: bool = False
    """Lower layers cannot bring any name."""
    above: Folder | None = None
    """While its layer is read: the same folder in what lies above."""
    is_hidden: bool = False
    """While its layer is read: what lies above hides it and all that is in it."""

    def hide(self, name: bytes) -> None:
        """Let lower layers bring nothing of this name."""
        if isinstance(self.gone, frozenset):
            self.gone = set(self.gone)  # not before it is needed: most folders never do
        self.gone.add(name)

    def join(self, name: bytes) -> bytes:
        """The path of a child."""
        return self.path + b"/" + name if self.path else name

    def shows(self, name: bytes) -> bool:
        """Whether a child that is no folder can be seen from above."""
        above = self.above
        if above is None:
            return not self.is_hidden
        if above.is_closed or name in above.gone:
            return False
        there = above.children.get(name)
        return there is None or (isinstance(there, Folder) and not there.is_real)

    def subfolder(self, name: bytes) -> Folder:
        """A new child folder, not real yet."""
        new = Folder(self.join(name), self.depth + 1)
        new.is_hidden = self.is_hidden
        if self.above is not None:
            there = self.above.children.get(name)
            new.is_hidden = self.above.is_closed or name in self.above.gone or isinstance(there, Inode)
            new.above = there if isinstance(there, Folder) and not new.is_hidden else None
        self.children[name] = new
        return new


def new_root() -> Folder:
    """The root of a tree in which nothing is yet."""
    return Folder(b"", 0, is_real=True)


def lay_under(above: Folder, layer: Folder) -> None:
    """Complete `above` with what `layer` shows through it; the layer is used up."""
    if layer.is_real:
        above.is_real = True
        above.entry = above.entry or layer.entry
    if above.is_closed:
        return
    for name, node in layer.children.items():
        if name in above.gone:
            continue
        there = above.children.get(name)
        if there is None:
            above.children[name] = node
        elif isinstance(there, Folder):
            if isinstance(node, Folder):
                lay_under(there, node)
            elif there.is_real:
                above.hide(name)
            else:
                above.children[name] = node
    for name in layer.gone:
        above.hide(name)
    above.is_closed = layer.is_closed


def walk(root: Folder) -> Iterator[Folder]:
    """Every real folder, sorted, each before those in it."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        yield folder
        inner = [node for _, node in sorted(folder.children.items(), reverse=True) if isinstance(node, Folder)]
        waiting += [node for node in inner if node.is_real]
