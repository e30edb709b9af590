"""Names of images in registries, by the grammar of Docker's distribution project.

    [REGISTRY[:PORT]/]PATH[:TAG][@DIGEST]

What comes before the first `/` is a registry if it holds a dot, a colon or a capital letter, or is `localhost`; else
the image is Docker Hub's, where a path of one component is short for `library/PATH`.
"""

from __future__ import annotations

import re

import attrs

from trio_sandbox.errors import InvalidConfigError

DOCKER_HUB = "docker.io"
HUB_HOSTS = ("index.docker.io", "registry-1.docker.io")
"""Other names of it, which people have from elsewhere."""
DEFAULT_TAG = "latest"
MAX_PATH = 255
"""Characters of a repository's path."""
MAX_TEXT = 1024

_HOST = re.compile(
    r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*"
    r"|\[[0-9a-fA-F:]+\])(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)
_PATH = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_ONLY_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)


def is_registry(text: str) -> bool:
    """Whether this is HOST or HOST:PORT."""
    match = _HOST.fullmatch(text)
    return match is not None and len(text) <= MAX_PATH and (match["port"] is None or 0 < int(match["port"]) < 65536)


def is_repository(text: str) -> bool:
    """Whether this is the path of a repository, or a part of one."""
    return _PATH.fullmatch(text) is not None and len(text) <= MAX_PATH


@attrs.frozen
class RegistryReference:
    """The whole name of an image in a registry. `str()` of it parses to an equal one."""

    registry: str
    """HOST or HOST:PORT; `docker.io` for Docker Hub."""
    repository: str
    tag: str | None
    """None where only a digest was given."""
    digest: str | None = None
    """`sha256:…`; where both are given, the digest decides and the tag says nothing."""

    @classmethod
    def parse(cls, text: str) -> RegistryReference:
        """The image that `text` names. Raises InvalidConfigError, whose text does not depend on any network."""
        if len(text) > MAX_TEXT:
            raise InvalidConfigError([f"image: a name of {len(text)} characters; {MAX_TEXT} are allowed"])
        name, at, digest = text.partition("@")
        if at and _DIGEST.fullmatch(digest) is None:
            raise _refused(text, "what follows '@' must be sha256: and 64 lower-case hexadecimal digits")
        registry, repository = _split_registry(name)
        repository, colon, tag = repository.partition(":")
        if colon and _TAG.fullmatch(tag) is None:
            raise _refused(text, "a tag is up to 128 letters, digits, '_', '.', '-', not beginning with '.' or '-'")
        if not is_registry(registry):
            raise _refused(text, f"{registry!r} is no HOST or HOST:PORT")
        if not is_repository(repository):
            raise _refused(text, f"{repository!r} is no path of lower-case letters, digits and single separators")
        if _ONLY_HEX.fullmatch(name):
            raise _refused(text, "it reads like an image's id; a digest is given as NAME@sha256:…")
        if registry == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        return cls(registry, repository, tag or (None if digest else DEFAULT_TAG), digest or None)

    @property
    def name(self) -> str:
        """Without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def version(self) -> str:
        """What a registry is asked for: the digest, else the tag."""
        version = self.digest or self.tag
        assert version is not None
        return version

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return self.name + tag + (f"@{self.digest}" if self.digest is not None else "")


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return (DOCKER_HUB if first in HUB_HOSTS else first), rest
    return DOCKER_HUB, name


def _refused(text: str, why: str) -> InvalidConfigError:
    return InvalidConfigError([f"image: {text[:200]!r} is no name of an image: {why}"])
