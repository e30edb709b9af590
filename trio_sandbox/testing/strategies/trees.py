"""Trees of files, folders and symbolic links, with modes and times."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
from hypothesis import strategies as st

_NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
_TIMES = st.integers(0, 2**32 * 10**9)
# One who is not root could not read or remove what has other modes.
_MODES = st.integers(0, 0o7777).map(lambda mode: mode | 0o700)


@attrs.frozen
class FileNode:
    """One thing of a tree.

    content: bytes of a file, the target of a symbolic link as text, or a folder's entries by name. mode: permission
    bits; a link has none of its own. mtime_ns: nanoseconds since the epoch.
    """

    content: bytes | str | dict[bytes, FileNode]
    mode: int = attrs.field(default=0o755, repr=oct)
    mtime_ns: int = 0

    def make(self, path: str | bytes | os.PathLike[str]) -> None:
        """Create it on this machine's disk, where nothing is yet; `copy_from_host` brings it into a sandbox.

        Raises OSError; what was made by then stays.
        """
        place = os.fsencode(path)
        if isinstance(self.content, dict):
            os.mkdir(place)
            for name, node in self.content.items():
                node.make(place + b"/" + name)
        elif isinstance(self.content, str):
            os.symlink(self.content, place)
        else:
            Path(os.fsdecode(place)).write_bytes(self.content)
        if not isinstance(self.content, str):
            os.chmod(place, self.mode)
        os.utime(place, ns=(0, self.mtime_ns), follow_symlinks=False)


_CONTENT = st.one_of(
    st.binary(max_size=50),
    st.integers(50, 200_000).map(lambda size: b"0123456789" * (size // 10)),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
)


def _nodes(content: st.SearchStrategy[Any]) -> st.SearchStrategy[FileNode]:
    return st.builds(FileNode, content, _MODES, _TIMES)


def file_trees(*, max_leaves: int = 12) -> st.SearchStrategy[FileNode]:
    """A folder with about so many things in it at most: names of any bytes, up to 200 KB in a file, dangling links."""
    below = st.recursive(
        _nodes(_CONTENT),
        lambda inner: _nodes(st.dictionaries(_NAMES, inner, max_size=4)),
        max_leaves=max_leaves,
    )
    return _nodes(st.dictionaries(_NAMES, below))
