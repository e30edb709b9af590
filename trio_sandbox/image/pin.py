"""What a sandbox or a snapshot stands on, as plain data: its tag may mean another image tomorrow."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from trio_sandbox.errors import InvalidImageError
from trio_sandbox.image.oci import ImageConfig

NOTE = "image.json"
"""In the folder of a sandbox that stays: what it stands on."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LISTS = ("env", "entrypoint", "cmd")
_TEXTS = ("working_dir", "user", "stop_signal")


@attrs.frozen
class Pin:
    """An image by its layers, and how it wants its programs run.

    reference: as the user named it. manifest_digest: by which its registry finds it, or "" where there is none.
    """

    reference: str
    chain_id: str
    manifest_digest: str
    config: ImageConfig

    def to_plain(self) -> dict[str, Any]:
        """As a JSON object."""
        return attrs.asdict(self)

    @classmethod
    def from_plain(cls, plain: Any) -> Pin:
        """What `to_plain` wrote. Raises ValueError for anything else: it may come from another machine, and the chain
        id becomes a part of a path.
        """
        keys = {field.name for field in attrs.fields(cls)}
        if not isinstance(plain, dict) or set(plain) != keys:
            raise ValueError(f"an image must have {', '.join(sorted(keys))}, and nothing else")
        reference, chain_id, manifest = plain["reference"], plain["chain_id"], plain["manifest_digest"]
        if not _is_text(reference):
            raise ValueError("the image's reference must be text")
        if not isinstance(chain_id, str) or not DIGEST.fullmatch(chain_id):
            raise ValueError("the image's chain_id must be sha256: and 64 hexadecimal digits")
        if manifest != "" and (not isinstance(manifest, str) or not DIGEST.fullmatch(manifest)):
            raise ValueError("the image's manifest_digest must be sha256: and 64 hexadecimal digits, or empty")
        return cls(reference, chain_id, manifest, _config(plain["config"]))


def _config(plain: Any) -> ImageConfig:
    known = {field.name for field in attrs.fields(ImageConfig)}
    if not isinstance(plain, dict) or not set(plain) <= known:
        raise ValueError(f"the image's config may have only {', '.join(sorted(known))}")
    given: dict[str, Any] = dict(plain)
    for name in _LISTS:
        words = given.get(name, ())
        if not isinstance(words, list | tuple) or not all(map(_is_text, words)):
            raise ValueError(f"the image's {name} must be a list of text")
        given[name] = tuple(words)
    for name in _TEXTS:
        if not _is_text(given.get(name, "")):
            raise ValueError(f"the image's {name} must be text")
    labels = given.get("labels", {})
    if not isinstance(labels, Mapping) or not all(map(_is_text, (*labels, *labels.values()))):
        raise ValueError("the image's labels must be text by text")
    return ImageConfig(**given)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def pin_of(plain: Any, source: Path) -> Pin:
    """What `Pin.to_plain` wrote. source: where it was. Raises InvalidImageError when it is damaged."""
    try:
        return Pin.from_plain(plain)
    except ValueError as error:
        raise InvalidImageError(str(source), f"what the sandbox stands on cannot be read: {error}") from error


def read_pin(folder: Path) -> Pin:
    """What `pinned.pin` wrote. Raises InvalidImageError when it is damaged."""
    try:
        plain = json.loads((folder / NOTE).read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidImageError(str(folder), f"what the sandbox stands on cannot be read: {error}") from error
    return pin_of(plain, folder)
