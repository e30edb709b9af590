"""Addresses that registries give us: where to go on, and who gives tokens. They may say anything."""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit

from trio_sandbox.image.registry.failures import Refused

MAX_ADDRESS = 1 << 14
_PORTS = {"http": 80, "https": 443}


def same_origin(one: str, other: str) -> bool:
    """Whether both are of one scheme, host and port: what may get the same credentials."""
    first, second = _split(one), _split(other)
    return first is not None and second is not None and _origin(first) == _origin(second)


def redirect_target(url: str, location: str | None, status: int) -> str:
    """Where an answer of `url` sends us. Raises Refused for what is no http address, and for a way out of TLS."""
    target = None
    try:
        target = urljoin(url, location) if location and location.isprintable() else None
    except ValueError:
        pass
    parts = _split(target) if target else None
    if target is None or parts is None:
        raise Refused("it redirects to what is no address", status=status)
    if parts.scheme == "http" and urlsplit(url).scheme == "https":
        raise Refused(f"it redirects from https to plain http ({parts.hostname})", status=status)
    return target


def token_server(realm: str, *, insecure: bool) -> str:
    """The address of a token server. insecure: it may be plain http, as the registry is. Raises Refused."""
    parts = _split(realm)
    if parts is None or not (parts.scheme == "https" or insecure):
        raise Refused("it names no https address as its token server", status=401)
    return parts._replace(fragment="").geturl()


def host_of(url: str) -> str:
    """The host of an address, for messages."""
    parts = _split(url)
    return (parts.hostname or "") if parts is not None else ""


def _split(url: str) -> SplitResult | None:
    """An http or https address with a host, and without a user; None for everything else."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError:
        return None
    fine = known and parts.username is None and len(url) <= MAX_ADDRESS and url.isascii() and url.isprintable()
    return parts if fine and " " not in url else None


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]
