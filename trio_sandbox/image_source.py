"""Where a sandbox's root file system comes from: `ImageSource` values, which `Image` makes. No I/O here.

Text is a source too, `image="…"`: a path whose extension is .qcow2, .raw or .vmdk means a disk image; any other path
means an OCI layout, an archive or a plain folder, whichever it turns out to be; all else is the name of an image.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import attrs

UPPER_SIZE_MIB = 4096
"""MiB of the writable layer over an image or a folder, unless another size is asked for. It is sparse."""
UPPER_SIZE_MIN_MIB, UPPER_SIZE_MAX_MIB = 16, 1 << 20
REFERENCE_LIMIT = 4096
"""Bytes of a reference or a path."""
FILE_SYSTEMS = ("ext4", "ext3", "ext2", "xfs", "btrfs")
"""What the root of a disk image may be."""


class ImageKind(enum.StrEnum):
    """What a root file system is made of."""

    OCI = "oci"
    """Layers: of a registry, `local/NAME`, an OCI layout folder or an archive."""
    DISK = "disk"
    """A disk image: the guest gets the disk itself, and what it writes is in the file."""
    BIND = "bind"
    """A folder of the host, which is never written to."""


class DiskImageFormat(enum.StrEnum):
    """How a disk image is stored."""

    QCOW2 = "qcow2"
    RAW = "raw"
    VMDK = "vmdk"


def path_text(path: str | os.PathLike[str]) -> str:
    """A path object as text that means a path wherever it is read, also from JSON; text as it is."""
    if not isinstance(path, os.PathLike):
        return path
    text = os.fsdecode(path)
    return text if not text or is_path(text) else f"./{text}"


def is_path(text: str) -> bool:
    """Whether `image=` text is a path and not the name of an image."""
    return text.startswith(("/", "./", "../", "~")) or text in (".", "..")


def format_of(path: str) -> DiskImageFormat | None:
    """The format that a path's extension stands for; None when it stands for none."""
    extension = PurePath(path).suffix.lower().removeprefix(".")
    return DiskImageFormat(extension) if extension in list(DiskImageFormat) else None


def _format(value: Any) -> Any:
    return DiskImageFormat(value) if isinstance(value, str) and value in list(DiskImageFormat) else value


def _kind(value: Any) -> Any:
    return ImageKind(value) if isinstance(value, str) and value in list(ImageKind) else value


@attrs.frozen
class ImageSource:
    """A root file system to be: made by `Image.oci`, `Image.disk` and `Image.bind`, given as `image=`.

    Nothing is checked until it becomes a part of a configuration, which names all problems at once.
    """

    kind: ImageKind = attrs.field(converter=_kind)
    reference: str = attrs.field(converter=path_text)
    """The name of an image, or a path."""
    upper_size_mib: int = UPPER_SIZE_MIB
    """MiB of the writable layer; a disk image has none."""
    fstype: str | None = None
    """Of a disk image's root; None: found by looking."""
    format: DiskImageFormat | None = attrs.field(default=None, converter=_format)
    """Of a disk image; None: by its extension."""

    @classmethod
    def of(cls, image: str | os.PathLike[str] | ImageSource) -> ImageSource:
        """What an `image=` value means, as far as that can be told without looking at the disk."""
        if isinstance(image, ImageSource):
            return image
        text = path_text(image)
        kind = ImageKind.DISK if is_path(text) and format_of(text) is not None else ImageKind.OCI
        return cls(kind, text)

    @property
    def disk_format(self) -> DiskImageFormat | None:
        """The format of a disk image: the one given, else by its extension; None where that says nothing."""
        return self.format or format_of(self.reference)

    def in_folder(self, folder: str) -> ImageSource:
        """The same with a path that is relative to `folder` absolute."""
        if self.kind is ImageKind.OCI and not is_path(self.reference):
            return self
        if self.reference.startswith("~"):
            return self
        return attrs.evolve(self, reference=os.path.join(folder, self.reference))

    def problems(self) -> list[str]:
        """What is wrong with it, a sentence each."""
        return list(self._problems())

    def _problems(self) -> Iterator[str]:
        kind: object = self.kind
        if not isinstance(kind, ImageKind):
            yield f"kind: {kind!r} is not one of {', '.join(ImageKind)}"
        if (problem := _reference_problem(self.reference)) is not None:
            yield problem
        yield from self._disk_problems() if self.kind is ImageKind.DISK else self._upper_problems()

    def _disk_problems(self) -> Iterator[str]:
        if self.fstype is not None and self.fstype not in FILE_SYSTEMS:
            yield f"fstype: {self.fstype!r} is not one of {', '.join(FILE_SYSTEMS)}"
        format: object = self.format
        if format is not None and not isinstance(format, DiskImageFormat):
            yield f"format: {format!r} is not one of {', '.join(DiskImageFormat)}"
        elif _reference_problem(self.reference) is None and self.disk_format is None:
            yield f"the extension of {self.reference!r} tells no format; pass format= ({', '.join(DiskImageFormat)})"

    def _upper_problems(self) -> Iterator[str]:
        size = self.upper_size_mib
        if type(size) is not int:
            yield f"upper_size_mib: must be int, not {type(size).__name__}"
        elif not UPPER_SIZE_MIN_MIB <= size <= UPPER_SIZE_MAX_MIB:
            yield f"upper_size_mib: {size} is not within {UPPER_SIZE_MIN_MIB} to {UPPER_SIZE_MAX_MIB} MiB"
        for name in ("fstype", "format"):
            if getattr(self, name) is not None:
                yield f"{name}: only a disk image has one"

    def to_plain(self) -> dict[str, object]:
        """As a JSON object, without what is the default; `from_plain` makes an equal source of it."""
        return attrs.asdict(self, filter=lambda field, value: value != field.default)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ImageSource:
        """The source that `to_plain` wrote. Raises TypeError for other keys; values are for `problems` to name."""
        return cls(**plain)


def _reference_problem(text: object) -> str | None:
    if not isinstance(text, str):
        return f"must be str or os.PathLike, not {type(text).__name__}"
    try:
        size = len(text.encode(errors="surrogateescape"))
    except UnicodeEncodeError:
        return "has characters that stand for no bytes, half of a surrogate pair"
    if "\0" in text or not 1 <= size <= REFERENCE_LIMIT:
        return f"must be 1 to {REFERENCE_LIMIT} bytes without NUL"
    return None
