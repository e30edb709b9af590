"""The locks of the cache (`trio_sandbox/locks.py`), by what they are about."""

from __future__ import annotations


def blob_key(digest: str) -> str:
    """A blob is in use: shared by those who rely on it, alone for who removes it."""
    return f"blob {digest}"


def rootfs_key(chain_id: str) -> str:
    """The root file system of these layers is in use: as for a blob."""
    return f"rootfs {chain_id}"


def download_key(digest: str) -> str:
    """A blob is being downloaded, by one at a time."""
    return f"download {digest}"
