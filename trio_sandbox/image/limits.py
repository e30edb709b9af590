"""How much an image may ask for. Every limit is checked while bytes stream, so a bomb stops where it reaches one."""

from __future__ import annotations

import attrs

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

MAX_TOTAL_BYTES = 10 * GIB
MAX_FILE_BYTES = 5 * GIB
MAX_ENTRIES = 1_000_000
MAX_PATH_BYTES = 4096
MAX_DEPTH = 128
MAX_LAYERS = 256
MAX_METADATA_BYTES = 512 * MIB

MAX_NAME_BYTES = 255
"""Bytes of one path component: the limit of Linux file systems."""

MAX_XATTR_BYTES = 64 * KIB
"""Bytes of one extended attribute's value: the limit of the Linux kernel."""

MAX_EXTENDED_HEADER_BYTES = MIB
"""Bytes of the tar extensions (PAX records, GNU long names) that come before one entry."""

MAX_EXTENSIONS = 16
"""Tar extensions before one entry."""

MAX_SPARSE_EXTENTS = 65_536
"""Data regions of one sparse file."""


@attrs.frozen
class Limits:
    """Limits of one image; the defaults are the product's."""

    total_bytes: int = MAX_TOTAL_BYTES
    """Of all layers together, uncompressed, holes of sparse files counted."""
    file_bytes: int = MAX_FILE_BYTES
    entries: int = MAX_ENTRIES
    """Files, folders, links and whiteouts of all layers, folders that are only implied counted."""
    path_bytes: int = MAX_PATH_BYTES
    depth: int = MAX_DEPTH
    """Components of a path."""
    layers: int = MAX_LAYERS
    metadata_bytes: int = MAX_METADATA_BYTES
    """Names, link targets and extended attributes: what merging keeps in memory."""


DEFAULT_LIMITS = Limits()
