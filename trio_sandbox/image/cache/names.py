"""The names of images, as the cache keys them."""

from __future__ import annotations

import re

from trio_sandbox.errors import InvalidConfigError

_DOMAIN = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def canonical_name(text: str) -> str:
    """The whole name of a registry's image: `python` is `docker.io/library/python:latest`.

    Raises InvalidConfigError for what is no name of a registry's image.
    """
    head, slash, rest = text.partition("/")
    if not slash or not ("." in head or ":" in head or head == "localhost"):
        text = f"docker.io/{text}" if slash else f"docker.io/library/{text}"
    match = _NAME.fullmatch(text)
    if match is None or len(text) > 512:
        raise InvalidConfigError([f"image: {rest or head!r} is no name of a registry's image"])
    name = f"{match['domain']}/{match['path']}"
    if match["digest"]:
        return f"{name}@{match['digest']}"
    return f"{name}:{match['tag'] or 'latest'}"
