"""What a program asks of a sandbox process, and what the two say to each other. Plain data, no I/O.

Over the *report* pipe the process says lines of JSON, each an object with one key: `pull` (a PullEvent) any number of
times, then `ready` or `error`, and nothing after that; the end of the pipe is the end of the process. Over the *leash*
its creator says single bytes, KEEP first. A leash that ends before that means that the creation is off, and nothing of
the sandbox stays; one that ends later, that the creator is gone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from trio_sandbox.config import SandboxConfig, WebSocketAddress
from trio_sandbox.home import Home
from trio_sandbox.state.rows import Tenure

KEEP = b"k"
"""The creator has the sandbox. If it is not detached, it stops when the creator goes."""
FREE = b"f"
"""The sandbox goes on without its creator, which says nothing more."""
DISCARD = b"d"
"""Kill the sandbox, and forget it."""


@attrs.frozen
class Order:
    """What is asked of a sandbox process. `detached`: it goes on when its creator is gone. `source`: what it is forked
    from, if it is.
    """

    config: SandboxConfig
    home: Home
    tenure: Tenure
    detached: bool
    source: Mapping[str, Any] | None = None

    def to_json(self) -> str:
        """Whole, with what is secret and a configuration leaves out. Paths are absolute."""
        folder = os.getcwd()
        websocket, auth = self.config.websocket, self.config.registry_auth
        return json.dumps(
            {
                "config": self.config.in_folder(folder).to_json(),
                "token": websocket.token if websocket is not None else None,
                "registry_auth": attrs.asdict(auth) if auth is not None else None,
                "home": os.path.join(folder, self.home.root),
                "tenure": self.tenure.value,
                "detached": self.detached,
                "source": self.source,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Order:
        """What `to_json` wrote."""
        plain = json.loads(text)
        config = attrs.evolve(SandboxConfig.from_json(plain["config"]), registry_auth=plain["registry_auth"])
        if config.websocket is not None:
            websocket: WebSocketAddress = attrs.evolve(config.websocket, token=plain["token"])
            config = attrs.evolve(config, websocket=websocket)
        return cls(config, Home(Path(plain["home"])), Tenure(plain["tenure"]), plain["detached"], plain["source"])


@attrs.frozen
class Ready:
    """What the creator is told of a sandbox that is ready. identity: its creation and its run, which tell it from what
    has its name later. timings: see `Sandbox.timings`.
    """

    addresses: tuple[str, ...]
    token: str | None
    timings: dict[str, float]
    identity: tuple[int, int]

    def to_plain(self) -> dict[str, Any]:
        return attrs.asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Ready:
        return cls(tuple(plain["addresses"]), plain["token"], plain["timings"], tuple(plain["identity"]))
