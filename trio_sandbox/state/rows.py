"""What the store knows of a sandbox, and of each time that it ran. Plain values."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from trio_sandbox.lifecycle import State
from trio_sandbox.state.owner import Owner

LIVE = frozenset({State.CREATING, State.RUNNING, State.PAUSED, State.DRAINING, State.STOPPING})
"""States of a sandbox that somebody owns."""
STATUS = {State.STOPPING: "draining"}
"""States that go by another name in the API (API document, types)."""


class Tenure(enum.Enum):
    """What becomes of a sandbox at its end."""

    EPHEMERAL = "ephemeral"
    """It is removed, with all of it; its disk never has a name."""
    NEW = "new"
    """It is created now, and stays."""
    KNOWN = "known"
    """It exists, and is started again."""


@attrs.frozen
class SandboxRow:
    """One sandbox. Times in nanoseconds since the epoch.

    config: its configuration as JSON. chain_id: the layers that it stands on, whatever its image's tag means by now.
    ephemeral: it goes with its end. detached: it outlives its creator. owner: the process that runs it, None for one
    that does not run. socket: where its relay listens.
    """

    name: str
    config: str
    state: State
    created_ns: int
    updated_ns: int
    ephemeral: bool = False
    detached: bool = False
    chain_id: str = ""
    owner: Owner | None = None
    socket: str = ""
    labels: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def status(self) -> str:
        """Its state as the API tells it: creating, running, paused, draining, stopped or crashed."""
        return STATUS.get(self.state, self.state.value)

    @property
    def is_live(self) -> bool:
        """Whether it claims to be running; `is_orphaned` tells whether that is a lie."""
        return self.state in LIVE

    @property
    def is_orphaned(self) -> bool:
        """Whether it claims to be running and its owner is dead."""
        return self.is_live and (self.owner is None or not self.owner.is_alive)

    @property
    def is_going(self) -> bool:
        """Whether it is about to be forgotten: it ends and is ephemeral, or is being removed."""
        return self.ephemeral and self.state is State.STOPPING


@attrs.frozen
class RunRow:
    """One time that a sandbox ran. `ended_ns` 0, `reason` "": it still does."""

    number: int
    name: str
    started_ns: int
    ended_ns: int = 0
    state: str = ""
    reason: str = ""
    exit_code: int = 0
    console_tail: str = attrs.field(default="", repr=False)
