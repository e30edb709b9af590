"""What a program asks of a sandbox process. Plain data, no I/O."""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs

from trio_sandbox.config import SandboxConfig
from trio_sandbox.home import Home
from trio_sandbox.state.rows import Tenure


@attrs.frozen
class Order:
    """What is asked of a sandbox process. `detached`: it need not end with its creator."""

    config: SandboxConfig
    home: Home
    tenure: Tenure
    detached: bool

    def to_json(self) -> str:
        return json.dumps(
            {
                "config": self.config.to_json(),
                "home": os.fspath(self.home.root),
                "tenure": self.tenure.value,
                "detached": self.detached,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Order:
        plain = json.loads(text)
        config = SandboxConfig.from_json(plain["config"])
        return cls(config, Home(Path(plain["home"])), Tenure(plain["tenure"]), plain["detached"])
