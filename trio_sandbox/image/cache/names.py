"""The names of images, as the cache keys them."""

from __future__ import annotations

from trio_sandbox.errors import InvalidConfigError


def canonical_name(text: str) -> str:
    """The whole name of a registry's image: `python` is `docker.io/library/python:latest`.

    Raises InvalidConfigError for what is no name of a registry's image.
    """
    name, at, digest = text.partition("@")
    head, slash, _ = name.partition("/")
    if not slash or not ("." in head or ":" in head or head == "localhost"):
        name = f"docker.io/{name}" if slash else f"docker.io/library/{name}"
    if not at and ":" not in name.rpartition("/")[2]:
        name += ":latest"
    if not text:
        raise InvalidConfigError(["image: no name"])
    return name + at + digest
