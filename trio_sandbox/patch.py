"""Patches: changes to the files of a new sandbox, made before anybody can use it. `Patch` makes them. No I/O here.

    await Sandbox.create("web", image="local/base", patches=[Patch.text("/etc/motd", "hello\\n", replace=True)])

They are applied in order, once in the life of a sandbox, as root, to its writable disk: the image stays as it is, and
`Sandbox.start` finds what they made. What is made belongs to root; missing folders above it are made with mode 0o755.
A path that exists is an error unless the patch says `replace=True`; `mkdir` and `remove` do not mind what they find.

`path` stays in the sandbox's root whatever the image holds: symbolic links on the way are followed within it, one at
the end of the path is not (but by `append`, and by `copy_dir` and `mkdir` to a folder), and nothing mounted is entered.
So a patch cannot be led to a device, /proc, or the memory that /tmp and /run are.
"""

from __future__ import annotations

import base64
import enum
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

PATCHES_LIMIT = 1024
"""Patches of one sandbox."""
CONTENT_LIMIT = 4 << 20
"""Bytes of content in all patches of a sandbox together; `copy_file` and `copy_dir` bring any amount."""
PATH_LIMIT, NAME_LIMIT = 4095, 255
"""Bytes of a path, and of one name in it."""
ELSEWHERE = ("proc", "sys", "dev", "tmp", "run", ".msb")
"""Folders of the root on which something is mounted that is not the sandbox's disk."""

HostPath = str | os.PathLike[str]


class PatchKind(enum.StrEnum):
    """What a patch does."""

    TEXT = "text"
    FILE = "file"
    COPY_FILE = "copy_file"
    COPY_DIR = "copy_dir"
    SYMLINK = "symlink"
    MKDIR = "mkdir"
    REMOVE = "remove"
    APPEND = "append"


REQUIRED: dict[PatchKind, tuple[str, ...]] = {
    PatchKind.TEXT: ("path", "content"),
    PatchKind.FILE: ("path", "content"),
    PatchKind.COPY_FILE: ("src", "dst"),
    PatchKind.COPY_DIR: ("src", "dst"),
    PatchKind.SYMLINK: ("target", "link"),
    PatchKind.MKDIR: ("path",),
    PatchKind.REMOVE: ("path",),
    PatchKind.APPEND: ("path", "content"),
}
"""The fields that a patch of each kind must have."""
_WITH_MODE = frozenset({PatchKind.TEXT, PatchKind.FILE, PatchKind.COPY_FILE, PatchKind.MKDIR})
_WITH_REPLACE = frozenset(PatchKind) - {PatchKind.MKDIR, PatchKind.REMOVE, PatchKind.APPEND}


def _kind(value: Any) -> Any:
    return PatchKind(value) if isinstance(value, str) and value in list(PatchKind) else value


def _text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _content(value: Any) -> Any:
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@attrs.frozen
class PatchConfig:
    """One patch, made by `Patch`. Fields that its kind does not have are None.

    Nothing is checked until it becomes a part of a configuration, which names all problems at once.
    """

    kind: PatchKind = attrs.field(converter=_kind)
    path: str | None = attrs.field(default=None, converter=_text)
    content: str | bytes | None = attrs.field(default=None, converter=_content, repr=_shown)
    src: str | None = attrs.field(default=None, converter=_text)
    dst: str | None = attrs.field(default=None, converter=_text)
    target: str | None = attrs.field(default=None, converter=_text)
    link: str | None = attrs.field(default=None, converter=_text)
    mode: int | None = None
    replace: bool = False

    @property
    def guest_path(self) -> str:
        """The path in the guest that is changed."""
        return self.path or self.dst or self.link or ""

    @property
    def data(self) -> bytes:
        """The bytes of the content; text as UTF-8."""
        content = self.content or b""
        return content.encode() if isinstance(content, str) else content

    def in_folder(self, folder: str) -> PatchConfig:
        """The same with a source on the host that is relative to `folder` absolute."""
        return self if self.src is None else attrs.evolve(self, src=os.path.join(folder, self.src))

    def problems(self) -> list[str]:
        """What is wrong with it, a sentence each. The host's files are not looked at."""
        kind: object = self.kind
        if not isinstance(kind, PatchKind):
            return [f"{kind!r} is not one of {', '.join(PatchKind)}"]
        return [f"{self.kind}: {problem}" for problem in self._problems()]

    def _problems(self) -> Iterator[str]:
        required = REQUIRED[self.kind]
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if name in required:
                problem = "required" if value is None else check(value)
                if problem is not None:
                    yield f"{name}: {problem}"
            elif value is not None:
                yield f"{name}: this kind of patch has none"
        yield from self._content_problems()
        if self.mode is not None and self.kind not in _WITH_MODE:
            yield "mode: this kind of patch has none"
        elif self.mode is not None and (type(self.mode) is not int or not 0 <= self.mode <= 0o7777):
            yield f"mode: must be permission bits, 0 to 0o7777, not {self.mode!r}"
        replace: object = self.replace
        if not isinstance(replace, bool):
            yield f"replace: must be bool, not {type(replace).__name__}"
        elif replace and self.kind not in _WITH_REPLACE:
            yield "replace: this kind of patch has none"

    def _content_problems(self) -> Iterator[str]:
        has_content = "content" in REQUIRED[self.kind]
        wanted = bytes if self.kind is PatchKind.FILE else str
        if not has_content and self.content is not None:
            yield "content: this kind of patch has none"
        elif has_content and self.content is None:
            yield "content: required"
        elif has_content and not isinstance(self.content, wanted):
            yield f"content: must be {wanted.__name__}, not {type(self.content).__name__}"
        elif isinstance(self.content, str) and not _is_unicode(self.content):
            yield "content: cannot be written as UTF-8; use Patch.file for bytes"

    def to_plain(self) -> dict[str, Any]:
        """As a JSON object, without what is the default; bytes as base64. `from_plain` makes an equal patch of it."""
        plain = attrs.asdict(self, filter=lambda field, value: value != field.default)
        if isinstance(self.content, bytes):
            plain["content"] = base64.b64encode(self.content).decode()
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> PatchConfig:
        """The patch that `to_plain` wrote. Raises TypeError and ValueError for what it cannot have written."""
        patch = cls(**plain)
        if patch.kind is PatchKind.FILE and isinstance(patch.content, str):
            return attrs.evolve(patch, content=base64.b64decode(patch.content, validate=True))
        return patch


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _raw(value: object) -> bytes | str:
    """The bytes of a path, or what is wrong with it."""
    if not isinstance(value, str):
        return f"must be str, not {type(value).__name__}"
    try:
        raw = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return f"{value!r} is no path"
    if not raw or b"\0" in raw or len(raw) > PATH_LIMIT:
        return f"must be 1 to {PATH_LIMIT} bytes without NUL"
    return raw


def _any_path(value: object) -> str | None:
    raw = _raw(value)
    return raw if isinstance(raw, str) else None


def _guest_path(value: object) -> str | None:
    raw = _raw(value)
    if isinstance(raw, str):
        return raw
    names = [name for name in raw.split(b"/") if name not in (b"", b".")]
    if not raw.startswith(b"/"):
        return f"{value!r} is not an absolute path"
    if b".." in names:
        return f"{value!r} must not hold '..'"
    if not names:
        return "must not be the root itself"
    if any(len(name) > NAME_LIMIT for name in names):
        return f"a name in it has more than {NAME_LIMIT} bytes"
    if (first := os.fsdecode(names[0])) in ELSEWHERE:
        return f"/{first} is not on the sandbox's disk; write to it with `fs` when the sandbox runs"
    return None


_CHECKS = {"path": _guest_path, "src": _any_path, "dst": _guest_path, "target": _any_path, "link": _guest_path}


def patches_problems(value: object) -> list[str]:
    """What is wrong with the patches of a configuration, a sentence each, with the index of the patch."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return [f"patches: must be a list of PatchConfig, not {type(value).__name__}"]
    if len(value) > PATCHES_LIMIT:
        return [f"patches: {len(value)} patches, at most {PATCHES_LIMIT} are allowed"]
    found: list[str] = []
    for index, patch in enumerate(value):
        if not isinstance(patch, PatchConfig):
            found.append(f"patches[{index}]: must be PatchConfig, not {type(patch).__name__}; use Patch to make one")
        else:
            found += [f"patches[{index}]: {problem}" for problem in patch.problems()]
    if not found and (size := sum(len(patch.data) for patch in value)) > CONTENT_LIMIT:
        found.append(
            f"patches: {size} bytes of content, at most {CONTENT_LIMIT} are allowed; use Patch.copy_file for more"
        )
    return found


class Patch:
    """Factories of patches. Paths in the guest are absolute, without `..`; modes are permission bits, 0 to 0o7777."""

    @staticmethod
    def text(path: str, content: str, *, mode: int | None = None, replace: bool = False) -> PatchConfig:
        """Write text as UTF-8. mode: 0o644 when None. replace: in the place of a file or a link that is there, of
        which nothing is kept; a folder is never replaced by a file.
        """
        return PatchConfig(PatchKind.TEXT, path=path, content=content, mode=mode, replace=replace)

    @staticmethod
    def file(path: str, content: bytes, *, mode: int | None = None, replace: bool = False) -> PatchConfig:
        """Write bytes. Everything else as for `text`."""
        return PatchConfig(PatchKind.FILE, path=path, content=content, mode=mode, replace=replace)

    @staticmethod
    def append(path: str, content: str) -> PatchConfig:
        """Add text to a regular file that is there, in the image or by an earlier patch; its owner and mode stay. A
        link that leads to one in the sandbox's root is followed.
        """
        return PatchConfig(PatchKind.APPEND, path=path, content=content)

    @staticmethod
    def copy_file(src: HostPath, dst: str, *, mode: int | None = None, replace: bool = False) -> PatchConfig:
        """Copy a file of the host of any size. mode: the source's permission bits when None. replace: as for `text`."""
        return PatchConfig(PatchKind.COPY_FILE, src=_text(src), dst=dst, mode=mode, replace=replace)

    @staticmethod
    def copy_dir(src: HostPath, dst: str, *, replace: bool = False) -> PatchConfig:
        """Copy a folder of the host and all in it, with permission bits, times and symbolic links, which are copied as
        they are and not followed. Owners, setuid, setgid and sticky bits do not travel; devices, FIFOs and sockets are
        left out.

        replace: fill a folder that is there, or to which a link leads: it keeps its mode and what else it holds; files
        and links in it are replaced. A folder in the place of anything else, and the other way round, is an error.
        """
        return PatchConfig(PatchKind.COPY_DIR, src=_text(src), dst=dst, replace=replace)

    @staticmethod
    def mkdir(path: str, *, mode: int | None = None) -> PatchConfig:
        """Make a folder. mode: 0o755 when None. A folder that is there stays as it is, and so does a link to one."""
        return PatchConfig(PatchKind.MKDIR, path=path, mode=mode)

    @staticmethod
    def remove(path: str) -> PatchConfig:
        """Remove a file, a link (not what it leads to) or a folder with all in it. Harmless when it is not there."""
        return PatchConfig(PatchKind.REMOVE, path=path)

    @staticmethod
    def symlink(target: str, link: str, *, replace: bool = False) -> PatchConfig:
        """Make a symbolic link. target: any text, taken as it is. replace: as for `text`."""
        return PatchConfig(PatchKind.SYMLINK, target=target, link=link, replace=replace)
