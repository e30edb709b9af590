"""Hard links of a layer to files of the layers below it, until a layer is read that holds the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from trio_sandbox.image.faults import ImageFault, show
from trio_sandbox.image.tree import Folder, Inode


@attrs.frozen(eq=False)
class LowerLink:
    """A link that looks for its file."""

    inode: Inode
    path: tuple[bytes, ...]
    """Of the file."""
    label: str
    """The link in messages, with its layer."""

    def fault(self) -> ImageFault:
        """What is wrong when there is no such file."""
        return ImageFault(f"{self.label} is a hard link to {show(b'/'.join(self.path))}, which is no file")


@attrs.define(eq=False)
class LowerLinks:
    """The links that look for one path, and those for paths below it: a tree, so that a layer is looked through in the
    time that its size allows, however many links there are.
    """

    links: list[LowerLink] = attrs.field(factory=list)
    below: dict[bytes, LowerLinks] = attrs.field(factory=dict)

    def add(self, links: Iterable[LowerLink]) -> None:
        """Let links of a layer that is complete look through those below it."""
        for link in links:
            node = self
            for part in link.path:
                node = node.below.setdefault(part, LowerLinks())
            node.links.append(link)

    def look_through(self, layer: Folder) -> None:
        """Find the files that a layer holds. Raises ImageFault when it says of one that it is no file, or deleted."""
        hidden = self.below if layer.is_closed else self.below.keys() & layer.gone
        for name in self.below.keys() & layer.children.keys():
            wanted, node = self.below[name], layer.children[name]
            if isinstance(node, Inode):
                for link in wanted.links:
                    link.inode.target, node.is_linked = node, True
                del self.below[name]
                wanted = LowerLinks(below=wanted.below)
                wanted.refuse()
            else:
                if node.is_real and wanted.links:
                    raise wanted.links[0].fault()
                wanted.look_through(node)
        for name in hidden:
            if name in self.below:
                self.below[name].refuse()

    def refuse(self) -> None:
        """Raise ImageFault if there is a link that still looks for its file."""
        for link in self._all():
            raise link.fault()

    def _all(self) -> Iterator[LowerLink]:
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield from node.links
            waiting += node.below.values()
