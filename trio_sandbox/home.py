"""Where things are on disk: one folder, mode 0700, `$TRIO_SANDBOX_HOME` or `~/.trio-sandbox`."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from trio_sandbox.errors import StorageError


@attrs.frozen
class Home:
    """The data folder and the places in it. Every property creates its folder when it is first asked for.

    Raises StorageError when the disk refuses.
    """

    root: Path

    @classmethod
    def default(cls) -> Home:
        """The folder of `$TRIO_SANDBOX_HOME`, else `~/.trio-sandbox`."""
        return cls(Path(os.environ.get("TRIO_SANDBOX_HOME") or "~/.trio-sandbox").expanduser().absolute())

    def folder(self, *parts: str) -> Path:
        """The folder `root/parts…`, created with mode 0700 if it is not there."""
        path = self.root.joinpath(*parts)
        if not path.is_dir():
            try:
                for step in (*reversed(path.relative_to(self.root).parents), path.relative_to(self.root)):
                    (self.root / step).mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(str(path), error.errno or 0, error.strerror or str(error)) from error
        return path

    @property
    def blobs(self) -> Path:
        """Content-addressed image blobs, named by their sha256 in hex."""
        return self.folder("cache", "blobs", "sha256")

    @property
    def rootfs(self) -> Path:
        """Root file systems ready to boot: `<chain id>.squashfs`."""
        return self.folder("cache", "rootfs")

    @property
    def images(self) -> Path:
        """The images named `local/…`: one OCI layout folder each."""
        return self.folder("images")

    @property
    def kernels(self) -> Path:
        """Unpacked kernels with their modules."""
        return self.folder("kernels")

    @property
    def initramfs(self) -> Path:
        """Initial RAM file systems, named by a digest of what is in them."""
        return self.folder("initramfs")

    @property
    def scratch(self) -> Path:
        """Where anonymous files live: they have no name, so it is always empty."""
        return self.folder("scratch")

    @property
    def host(self) -> Path:
        """What was found out about this machine: the acceleration verdict, the TSC rate."""
        return self.folder("host")

    @property
    def run(self) -> Path:
        """Locks and, for sandboxes that take clients, sockets."""
        return self.folder("run")
