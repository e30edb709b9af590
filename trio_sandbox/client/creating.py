"""What `Sandbox.create` was asked for, checked whole before anything is begun. anyio only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs

from trio_sandbox.client.creation import Creation, in_thread, make_sandbox
from trio_sandbox.client.handle import SandboxHandle
from trio_sandbox.client.remote import RemoteControl
from trio_sandbox.config import SandboxConfig, flag_problem, grace_problem
from trio_sandbox.errors import InvalidConfigError, SandboxNotFoundError
from trio_sandbox.home import Home
from trio_sandbox.patch_sources import require_sources
from trio_sandbox.snapshot.store import find as find_snapshot
from trio_sandbox.state.places import store_of
from trio_sandbox.state.rows import Tenure

STOP_TIMEOUT = 10.0
"""Seconds that a sandbox whose name is wanted has to write its data and power off."""


@attrs.frozen
class Creating:
    """What `create` was asked for, checked. grace: seconds for a sandbox that has the name; None leaves it alone."""

    config: SandboxConfig
    home: Home
    detached: bool
    grace: float | None

    @classmethod
    def checked(
        cls,
        name: str | SandboxConfig,
        options: Mapping[str, Any],
        detached: object,
        replace: object,
        replace_with_timeout: object,
        home: object,
    ) -> Creating:
        """Raises InvalidConfigError with all that is wrong, or UnsupportedError."""
        problems = [
            f"{key}: {problem}"
            for key, problem in (
                ("detached", flag_problem(detached)),
                ("replace", flag_problem(replace)),
                ("replace_with_timeout", None if replace_with_timeout is None else grace_problem(replace_with_timeout)),
                (
                    "home",
                    None if home is None or isinstance(home, Home) else f"must be Home, not {type(home).__name__}",
                ),
            )
            if problem
        ]
        if isinstance(name, SandboxConfig):
            problems += [f"{key}: a SandboxConfig has it already" for key in options]
            if problems:
                raise InvalidConfigError(problems)
            config = name
        else:
            config = SandboxConfig.from_options(name, options, problems)
        grace = replace_with_timeout if isinstance(replace_with_timeout, int | float) else None
        if grace is None and replace:
            grace = STOP_TIMEOUT
        return cls(config, home if isinstance(home, Home) else Home.default(), bool(detached), grace)

    async def run(self) -> RemoteControl:
        """Make it."""
        await self._make_room()
        return await make_sandbox(self.config, self.home, Tenure.NEW, detached=self.detached)

    async def begin(self) -> Creation:
        """Begin to make it."""
        await self._make_room()
        return await Creation.begin(self.config, self.home, Tenure.NEW, detached=self.detached)

    async def _make_room(self) -> None:
        """End what has the name, when what is asked for could be made as far as one can see."""
        await in_thread(require_sources, self.config.patches)
        if self.config.snapshot is not None:
            await in_thread(find_snapshot, self.home, os.fspath(self.config.snapshot))
        if self.grace is not None:
            await _make_room(self.config.name, self.home, self.grace)


async def _make_room(name: str, home: Home, timeout: float) -> None:
    """End and remove the sandbox that has the name, if any."""
    try:
        old = SandboxHandle(await in_thread(store_of(home).get, name), home)
    except SandboxNotFoundError:
        return
    await old.stop(timeout)
    try:
        await old.remove()
    except SandboxNotFoundError:  # it was ephemeral
        pass
