"""What `snapshot.json` says of a snapshot, checked like hostile input: it may come from another machine. No I/O.

A snapshot is a folder of files and this description of them. Its digest is that of the description, which holds the
digests of the files: so it covers everything, and the name, which is the folder's, is no part of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import attrs

from trio_sandbox.image.pin import DIGEST, Pin
from trio_sandbox.labels import labels_problem

VERSION = 1
"""Of the description. A reader refuses what it does not know."""
DISK, MEMORY = "disk", "memory"
KINDS = (DISK, MEMORY)
"""What a snapshot may be of."""
DISK_FILE = "upper.ext4"
"""The writable disk of the sandbox."""
MEMORY_FILE, STATE_FILE, KERNEL_FILE = "memory.ram", "devices.state", "kernel.stub"
"""Of a running machine: its memory, the state of its devices, and the stub of a kernel that it was given, if it was."""
FORMAT = "raw"
"""How the disk is stored: as its bytes, sparse."""
DESCRIPTION_FILE = "snapshot.json"
MAX_DESCRIPTION_BYTES = 4 << 20
"""Bytes; an image's labels and environment may be long."""
MAX_FILES = 16
MAX_FILE_BYTES = 1 << 40
"""Bytes of one file with its holes: the largest disk that a sandbox may have."""
MAX_LABELS = 256
NAME_LIMIT = 128

_TEXTS = frozenset({"acceleration", "arch", "qemu_version"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FILE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@attrs.frozen(kw_only=True)
class MachineFacts:
    """What a VMM must be to go on from a machine's memory. first_session: the lowest number of a session to come."""

    acceleration: str
    arch: str
    qemu_version: str
    cpus: int
    memory_mib: int
    tsc_khz: int
    first_session: int


class SnapshotFault(Exception):
    """What is wrong with a snapshot, before it is known under which name the user asked for it."""


def name_problem(name: object) -> str | None:
    """What is wrong with the name of a snapshot, or None."""
    if not isinstance(name, str):
        return f"must be str, not {type(name).__name__}"
    if not _NAME.fullmatch(name) or len(name) > NAME_LIMIT:
        return f"{name!r} is not 1 to {NAME_LIMIT} letters, digits, '.', '_' and '-', the first a letter or digit"
    return None


@attrs.frozen
class FileFacts:
    """One file of a snapshot: its bytes with holes, and its digest (`content.digest_of`)."""

    size: int
    digest: str


@attrs.frozen(kw_only=True)
class Description:
    """What a snapshot is. created_ns: since the epoch. source: the sandbox that it was made of."""

    kind: str
    created_ns: int
    source: str
    image: Pin
    files: Mapping[str, FileFacts]
    machine: MachineFacts | None = None
    """Of one with memory."""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    format: str = FORMAT
    version: int = VERSION

    def to_bytes(self) -> bytes:
        """The content of `snapshot.json`: the same for equal descriptions."""
        return json.dumps(attrs.asdict(self), sort_keys=True, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """`sha256:…` of all of the snapshot."""
        return f"sha256:{hashlib.sha256(self.to_bytes()).hexdigest()}"

    @property
    def virtual_bytes(self) -> int:
        """Bytes of all files with their holes."""
        return sum(facts.size for facts in self.files.values())

    @classmethod
    def parse(cls, data: bytes) -> Description:
        """What `to_bytes` wrote. Raises SnapshotFault for anything else."""
        if len(data) > MAX_DESCRIPTION_BYTES:
            raise SnapshotFault(f"{DESCRIPTION_FILE} has more than {MAX_DESCRIPTION_BYTES} bytes")
        try:
            plain = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise SnapshotFault(f"{DESCRIPTION_FILE} is no JSON: {error}") from error
        if not isinstance(plain, dict):
            raise SnapshotFault(f"{DESCRIPTION_FILE} is not a JSON object")
        return cls._of(plain)

    @classmethod
    def _of(cls, plain: dict[str, Any]) -> Description:
        version = plain.get("version")
        if type(version) is not int or not 1 <= version <= VERSION:
            raise SnapshotFault(f"its version is {version!r}; this release of the package reads {VERSION}")
        keys = {field.name for field in attrs.fields(cls)}
        if plain.keys() != keys:
            odd = ", ".join(sorted(map(repr, plain.keys() ^ keys)))
            raise SnapshotFault(f"{DESCRIPTION_FILE} lacks these, or has too many: {odd[:200]}")
        if plain["kind"] not in KINDS or plain["format"] != FORMAT:
            found = " in ".join(repr(plain[key])[:40] for key in ("kind", "format"))
            raise SnapshotFault(f"it is of {found}; this release of the package reads {', '.join(KINDS)} in {FORMAT}")
        if not _is_count(plain["created_ns"], 1 << 63):
            raise SnapshotFault("created_ns is not a time in nanoseconds")
        if (problem := name_problem(plain["source"])) is not None:
            raise SnapshotFault(f"source: {problem}"[:300])
        checked = {"image": _image(plain["image"]), "files": _files(plain), "labels": _labels(plain)}
        return cls(**{**plain, **checked, "machine": _machine(plain)})


def _is_count(value: object, end: int) -> bool:
    return type(value) is int and 0 <= value < end


def _image(plain: Any) -> Pin:
    try:
        return Pin.from_plain(plain)
    except ValueError as error:
        raise SnapshotFault(str(error)) from error


def _machine(plain: dict[str, Any]) -> MachineFacts | None:
    machine = plain["machine"]
    if (plain["kind"] == MEMORY) != (machine is not None):
        raise SnapshotFault("machine: one with memory has it, and no other")
    if machine is None:
        return None
    fields = attrs.fields_dict(MachineFacts)
    if not isinstance(machine, dict) or machine.keys() != fields.keys():
        raise SnapshotFault(f"machine: must have {', '.join(sorted(fields))}, and nothing else")
    for name, value in machine.items():
        is_text = isinstance(value, str) and len(value) < 100
        if not (is_text if name in _TEXTS else _is_count(value, 1 << 32)):
            raise SnapshotFault(f"machine: {name} is {value!r}"[:300])
    return MachineFacts(**machine)


def _labels(plain: dict[str, Any]) -> Mapping[str, str]:
    labels = plain["labels"]
    problem = labels_problem(labels)
    if problem is None and len(labels) > MAX_LABELS:
        problem = f"{len(labels)} are too many; {MAX_LABELS} are allowed"
    if problem is not None:
        raise SnapshotFault(f"labels: {problem}"[:300])
    return dict(labels)


def _files(plain: dict[str, Any]) -> Mapping[str, FileFacts]:
    files = plain["files"]
    if not isinstance(files, dict) or not 1 <= len(files) <= MAX_FILES:
        raise SnapshotFault(f"files must be an object of 1 to {MAX_FILES} files")
    needed = (DISK_FILE,) if plain["kind"] == DISK else (DISK_FILE, MEMORY_FILE, STATE_FILE)
    for name in needed:
        if name not in files:
            raise SnapshotFault(f"files: {name} is missing")
    return {name: _facts(name, facts) for name, facts in files.items()}


def _facts(name: str, plain: Any) -> FileFacts:
    if not _FILE.fullmatch(name) or name == DESCRIPTION_FILE:
        raise SnapshotFault(f"files: {name[:80]!r} is no name of a file of a snapshot")
    if not isinstance(plain, dict) or plain.keys() != {"size", "digest"}:
        raise SnapshotFault(f"files: {name!r} must have size and digest, and nothing else")
    size, digest = plain["size"], plain["digest"]
    if not _is_count(size, MAX_FILE_BYTES + 1):
        raise SnapshotFault(f"files: the size of {name!r} is not within 0 to {MAX_FILE_BYTES} bytes")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise SnapshotFault(f"files: the digest of {name!r} must be sha256: and 64 hexadecimal digits")
    return FileFacts(size, digest)
