"""What a registry says about logging in (WWW-Authenticate), and what a token server answers."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.oci import parse_object

MAX_TOKEN = 1 << 16
DEFAULT_LIFE = 60.0
"""Seconds that a token lives when nothing is said of it."""
MAX_CHALLENGE = 1 << 14

_SCHEME = re.compile(r"[ \t,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:[ \t]+|(?=,)|$)")
_PARAMETER = re.compile(
    r"[ \t,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+))[ \t]*(?=,|$)"
)
_TOKEN = re.compile(r"[!-~]+")


@attrs.frozen
class Challenge:
    """One way to log in. scheme: in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """The ways that a header offers; what cannot be read ends the list."""
    text, position, found = header[:MAX_CHALLENGE], 0, []
    while (match := _SCHEME.match(text, position)) is not None:
        position = match.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(text, position)) is not None:
            name, quoted, plain = parameter.groups()
            parameters.setdefault(name.lower(), plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
            position = parameter.end()
        found.append(Challenge(match[1].lower(), parameters))
    return found


@attrs.frozen
class Token:
    """What a token server gave. life: seconds."""

    text: str = attrs.field(repr=False)
    life: float


def parse_token(data: bytes) -> Token:
    """The token in a token server's answer. Raises ImageFault."""
    document = parse_object(data, "the token server's answer")
    text = document.get("token") or document.get("access_token")
    if not isinstance(text, str) or len(text) > MAX_TOKEN or _TOKEN.fullmatch(text) is None:
        raise ImageFault("the token server's answer has no token")
    life = document.get("expires_in")
    if isinstance(life, bool) or not isinstance(life, int | float) or not 0 < life < 1e9:
        life = DEFAULT_LIFE
    return Token(text, float(life))
