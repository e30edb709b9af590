"""`RegistryAuth`: who somebody is to a registry. A plain value, which is never written down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

BEARER_USER = "<bearer>"
"""The user name by which a password is a bearer token."""


@attrs.frozen
class RegistryAuth:
    """Credentials for the registry of one image, given as `registry_auth=`.

    Neither stored nor logged. For an access token, `password` is the token, and `username` what the registry asks for.
    """

    username: str
    password: str = attrs.field(repr=False)

    @classmethod
    def basic(cls, username: str, password: str) -> RegistryAuth:
        """The same as calling the class."""
        return cls(username, password)

    @classmethod
    def bearer(cls, token: str) -> RegistryAuth:
        """A bearer token, sent as it is, where the registry would have us ask its token server for one."""
        return cls(BEARER_USER, token)


def auth_of(value: Any) -> Any:
    """A RegistryAuth from a mapping of its two fields; everything else as it is, for `auth_problem` to name."""
    if isinstance(value, Mapping) and set(value) == {"username", "password"}:
        return RegistryAuth(**value)
    return value


def auth_problem(value: object) -> str | None:
    """What is wrong with a `registry_auth=`, or None. Says nothing of what is in it."""
    auth = auth_of(value)
    if not isinstance(auth, RegistryAuth):
        return f"must be RegistryAuth, not {type(value).__name__}"
    for name in ("username", "password"):
        text = getattr(auth, name)
        if not isinstance(text, str) or not text or "\0" in text:
            return f"{name}: must be str, not empty, without NUL"
    if ":" in auth.username:
        return "username: must not hold ':'"
    return None
