"""Forks of a sandbox that runs: children that go on from where it is, each in a process of its own. anyio only.

The parent is copied once for all of them, and goes on. Whatever ends the call before its children are handed over ends
them too.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import attrs

from trio_sandbox.client.creation import make_sandbox
from trio_sandbox.client.remote import RemoteControl
from trio_sandbox.client.shielded import shielded
from trio_sandbox.client.transport import SandboxControl
from trio_sandbox.config import NAME_LIMIT, SandboxConfig
from trio_sandbox.errors import InvalidConfigError
from trio_sandbox.home import Home
from trio_sandbox.state.rows import Tenure

CHILDREN_LIMIT = 1024
"""Children of one call."""
CHANGES = frozenset(
    {
        *("env", "workdir", "user", "shell", "entrypoint", "hostname", "labels", "ephemeral", "quiet_logs"),
        *("log_level", "idle_timeout", "max_duration", "boot_timeout", "admission_timeout"),
    }
)
"""Options that a child may have otherwise than its parent: those that do not shape the machine."""


@attrs.frozen
class ForkRequest:
    """What children are wanted, checked: their names, and how they differ from the parent."""

    names: tuple[str, ...]
    detached: bool
    changes: Mapping[str, Any]

    @classmethod
    def checked(
        cls,
        parent: str,
        count: int | None,
        names: str | Sequence[str] | None,
        detached: object,
        changes: Mapping[str, Any],
    ) -> ForkRequest:
        """Raises InvalidConfigError with all that is wrong."""
        problems: list[str] = []
        if count is not None and (type(count) is not int or not 1 <= count <= CHILDREN_LIMIT):
            problems.append(f"n: must be int, 1 to {CHILDREN_LIMIT}")
            count = None
        if not isinstance(detached, bool):
            problems.append(f"detached: must be bool, not {type(detached).__name__}")
        chosen = _names(parent, count or 1, names, problems)
        problems += [f"{key}: a fork has its parent's" for key in sorted(set(changes) - CHANGES)]
        wanted = {key: value for key, value in changes.items() if key in CHANGES}
        for one in chosen or (parent,):
            try:  # before the parent is copied; what its image is does not matter here
                SandboxConfig.from_options(one, {"image": "local/parent", **wanted})
            except InvalidConfigError as error:
                problems += [problem for problem in error.problems if problem not in problems]
        if problems:
            raise InvalidConfigError(problems)
        return cls(chosen, bool(detached), dict(changes))

    async def run(self, control: SandboxControl) -> list[RemoteControl]:
        """Copy the parent and start the children, all of them or none."""
        async with control.fork_source() as source:
            home = Home(Path(source["home"]))
            parent = SandboxConfig.from_json(source["config"])
            configs = [self._config(parent, name, ephemeral=bool(source["ephemeral"])) for name in self.names]
            made: list[RemoteControl | None] = [None] * len(configs)

            async def make(index: int) -> None:
                config = configs[index]
                made[index] = await make_sandbox(config, home, Tenure.NEW, detached=self.detached, source=source)

            try:
                await _together(make, len(configs))
            except BaseException:
                for child in filter(None, made):
                    await shielded(child.leave)  # noqa: ASYNC102 - it is
                raise
        return [child for child in made if child is not None]

    def _config(self, parent: SandboxConfig, name: str, *, ephemeral: bool) -> SandboxConfig:
        """The parent's, without what there can be once only, and what has been done already."""
        options: dict[str, Any] = {"hostname": None, "listen": None, "websocket": None, "patches": ()}
        options |= {"name": name, "ephemeral": parent.ephemeral or ephemeral}
        return attrs.evolve(parent, **(options | dict(self.changes)))


async def _together(make: Any, count: int) -> None:
    """All at once; a lone failure leaves bare."""
    if count == 1:
        await make(0)
        return
    try:
        async with anyio.create_task_group() as group:
            for index in range(count):
                group.start_soon(make, index)
    except BaseExceptionGroup as many:
        if len(many.exceptions) == 1:
            raise many.exceptions[0] from None  # noqa: ASYNC123 - a lone failure is not a matter of the group
        raise


def _names(parent: str, count: int, names: object, problems: list[str]) -> tuple[str, ...]:
    if names is None:
        stem = f"{parent[: NAME_LIMIT - 20]}-fork-{secrets.token_hex(3)}"
        return (stem,) if count == 1 else tuple(f"{stem}-{number}" for number in range(1, count + 1))
    if not isinstance(names, str | Sequence):
        problems.append(f"name: must be str, or a list of them, not {type(names).__name__}")
        return ()
    chosen = (names,) if isinstance(names, str) else tuple(names)
    if len(chosen) != count or len(set(chosen)) != count:
        problems.append(f"name: {count} different ones are needed, not {len(chosen)}")
    return chosen
