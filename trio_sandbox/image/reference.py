"""What an `image=` value means.

    local/NAME[:TAG]       an image kept as an OCI layout folder in the data folder
    /…, ./…, ../…, ~…      a path, as is every os.PathLike: an OCI layout folder, an OCI archive or a Docker archive;
                           `PATH:TAG` or `PATH@TAG` chooses among several images in it
    anything else          a registry's image (`cache/`), which is not looked for here

What `ImageSource` takes for a disk image by its extension never comes here, and a folder without a layout, which is a
root file system by itself, is told apart by `plain_folder`.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import attrs

from trio_sandbox.errors import ImageNotFoundError, InvalidConfigError
from trio_sandbox.files import storage_errors
from trio_sandbox.home import Home
from trio_sandbox.image_source import is_path

LOCAL_PREFIX = "local/"
DISK_EXTENSIONS = (".qcow2", ".raw", ".vmdk")
MAX_REFERENCE = 4096

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LOCAL = re.compile(r"local/(?P<name>[a-z0-9]+(?:[._-]+[a-z0-9]+)*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?")


@attrs.frozen
class ImageLocation:
    """Where an image is: a layout folder or an archive that exists, and which of its images is meant."""

    reference: str
    """What the user wrote, for messages."""
    path: Path
    is_folder: bool
    tag: str | None


def locate_image(image: str | os.PathLike[str], home: Home) -> ImageLocation:
    """Find the image that `image` names. Looks at the disk, but reads no file.

    Raises InvalidConfigError (malformed), ImageNotFoundError (nothing there).
    """
    text = _text(image)
    if isinstance(image, str):
        if text.startswith(LOCAL_PREFIX):
            return _local(text, home)
        if not is_path(text):
            raise InvalidConfigError([f"image: {text!r} reads like a file; a path starts with /, ./, ../ or ~"])
    return _path(text)


def names_registry_image(image: str) -> bool:
    """Whether `image=` text is neither a path nor `local/…`, and does not read like a disk image either."""
    is_here = is_path(image) or image.startswith(LOCAL_PREFIX)
    return not is_here and not image.lower().endswith(DISK_EXTENSIONS)


def plain_folder(image: str) -> Path | None:
    """The folder that `image=` text names, if there is one and no OCI layout in it."""
    if not is_path(image):
        return None
    try:
        path = expanded(image)
        has_layout = (path / "oci-layout").exists() or (path / "index.json").exists()
        return path if path.is_dir() and not has_layout else None
    except (OSError, ValueError, InvalidConfigError):
        return None  # `locate_image` says what is wrong


def expanded(text: str) -> Path:
    """`~` and `~user` as the home they stand for. Raises InvalidConfigError when there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InvalidConfigError([f"image: {text!r}: {error}"]) from error


def local_image_folder(name: str, home: Home) -> Path:
    """The layout folder of the image `local/name`, whether it exists or not."""
    return home.images / "local" / name


def _text(image: object) -> str:
    if not isinstance(image, str | os.PathLike):
        raise InvalidConfigError([f"image: expected text or a path, not {type(image).__name__}"])
    text = os.fsdecode(os.fspath(image))
    if not text or "\0" in text or len(text) > MAX_REFERENCE:
        raise InvalidConfigError([f"image: {text[:80]!r} is empty, too long or contains a NUL character"])
    return text


def _local(text: str, home: Home) -> ImageLocation:
    match = _LOCAL.fullmatch(text)
    if match is None:
        raise InvalidConfigError([f"image: {text!r} is not of the form local/NAME or local/NAME:TAG in lower case"])
    folder = local_image_folder(match["name"], home)
    if not (folder / "index.json").is_file():
        hint = "run `trio-sandbox setup` to build it" if match["name"] == "base" else f"there is no layout in {folder}"
        raise ImageNotFoundError(text, hint)
    return ImageLocation(text, folder, is_folder=True, tag=match["tag"])


def _path(text: str) -> ImageLocation:
    path, tag = _split_tag(text)
    with storage_errors(path.parent):
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise ImageNotFoundError(text, "there is no such file or folder") from None
        except OSError as error:
            if isinstance(error, PermissionError):
                raise
            raise InvalidConfigError([f"image: {text!r}: {error.strerror}"]) from error
    if stat.S_ISDIR(status.st_mode):
        if not (path / "oci-layout").exists() and not (path / "index.json").exists():
            raise InvalidConfigError([f"image: {text!r} has no OCI layout in it; use Image.bind for a folder"])
        return ImageLocation(text, path, is_folder=True, tag=tag)
    if path.suffix.lower() in DISK_EXTENSIONS:
        raise InvalidConfigError([f"image: {text!r} is no OCI image; use Image.disk for a disk"])
    if not stat.S_ISREG(status.st_mode):
        raise InvalidConfigError([f"image: {text!r} is neither a folder nor a regular file"])
    return ImageLocation(text, path, is_folder=False, tag=tag)


def _split_tag(text: str) -> tuple[Path, str | None]:
    """A name that exists as it stands wins; else what follows the last `:` or `@` of the last component is a tag."""
    whole = expanded(text)
    if os.path.lexists(whole):
        return whole, None
    cut = max(whole.name.rfind(":"), whole.name.rfind("@"))
    if cut > 0 and _TAG.fullmatch(whole.name[cut + 1 :]):
        return whole.with_name(whole.name[:cut]), whole.name[cut + 1 :]
    return whole, None
