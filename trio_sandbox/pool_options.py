"""What a pool may be asked for. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trio_sandbox.config import SandboxConfig, WebSocketAddress
from trio_sandbox.errors import InvalidConfigError

WARM_POOL_MAX = 256
LAST_NUMBER = 10**9
"""Of the sandboxes that one pool makes: their names must not become too long."""


def pool_config(name: object, warm_pool: object, max_age: object, options: Mapping[str, Any]) -> SandboxConfig:
    """The configuration of a pool's sandboxes, but for the name. Raises InvalidConfigError with every problem,
    UnsupportedError.
    """
    problems = []
    if type(warm_pool) is not int or not 1 <= warm_pool <= WARM_POOL_MAX:
        problems.append(f"warm_pool: must be int, 1 to {WARM_POOL_MAX}")
    if type(max_age) not in (int, float) or not max_age > 0:  # type: ignore[operator]
        problems.append("max_age: must be a number of seconds above 0")
    if options.get("listen") is not None:
        problems.append("listen: the sandboxes of a pool cannot share one socket")
    websocket = options.get("websocket")
    if isinstance(websocket, WebSocketAddress) and websocket.port:
        problems.append("websocket: the sandboxes of a pool cannot share one port; 0 is a free one for each")
    config = SandboxConfig.from_options(f"{name}-{LAST_NUMBER}" if isinstance(name, str) else "", options, problems)
    if config.has_disk_root:
        raise InvalidConfigError(["image: a disk image is the root of one sandbox at a time, so not of a pool"])
    return config
