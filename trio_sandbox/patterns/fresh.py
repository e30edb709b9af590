"""How the helpers get sandboxes: created, ephemeral, in a process of their own; or as the caller says. anyio only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import InvalidConfigError
from trio_sandbox.home import Home

Make = Callable[[str], AbstractAsyncContextManager[Sandbox]]
"""Makes the sandbox of this name for the length of a block."""


def maker(
    make: Make | None, name: str, home: Home | None, options: Mapping[str, Any], problems: Sequence[str] = ()
) -> Make:
    """`make`, or what creates sandboxes with these options. problems: what is wrong with other arguments.

    Raises InvalidConfigError with all that is wrong, before anything is made.
    """
    if make is None:
        SandboxConfig.from_options(name, {**options, "ephemeral": True}, problems)
        return lambda name: _created(name, home, options)
    found = [*problems, *(f"{key}: make= knows what it makes" for key in options)]
    if home is not None:
        found.append("home: make= knows where")
    if found:
        raise InvalidConfigError(found)
    return make


@asynccontextmanager
async def _created(name: str, home: Home | None, options: Mapping[str, Any]) -> AsyncIterator[Sandbox]:
    async with await Sandbox.create(name, home=home, **{**options, "ephemeral": True}) as sandbox:
        yield sandbox
