"""Errors that travel between processes: their type, their facts and their sentence, as plain data. No I/O."""

from __future__ import annotations

from typing import Any

from trio_sandbox import errors
from trio_sandbox.errors import SandboxError

KINDS: dict[str, type[SandboxError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, SandboxError)
}


def to_plain(error: BaseException) -> dict[str, Any]:
    """An error as plain data. A group is its first leaf; what is not ours becomes a SandboxError that names it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    kind = type(error).__name__
    if kind not in KINDS:
        return {"kind": "SandboxError", "facts": {}, "text": f"{kind}: {error}"}
    facts = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(error).items()}
    return {"kind": kind, "facts": facts, "text": str(error)}


def from_plain(plain: dict[str, Any]) -> SandboxError:
    """The error that `to_plain` described."""
    kind = KINDS.get(str(plain.get("kind")), SandboxError)
    error = kind.__new__(kind)
    facts = dict(plain.get("facts", {}))
    error.__dict__.update({key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()})
    error.args = (str(plain.get("text", "")),)
    return error
