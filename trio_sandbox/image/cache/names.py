"""The names of images, as the cache keys them."""

from __future__ import annotations

import attrs

from trio_sandbox.image.registry.reference import RegistryReference


def canonical_name(text: str) -> str:
    """The whole name of a registry's image: `python` is `docker.io/library/python:latest`. Where there is a digest, the
    tag says nothing.

    Raises InvalidConfigError for what is no name of a registry's image.
    """
    reference = RegistryReference.parse(text)
    return str(attrs.evolve(reference, tag=None) if reference.digest is not None else reference)
