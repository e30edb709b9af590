"""Where the relay of a sandbox listens. Trio only."""

from __future__ import annotations

import os
from pathlib import Path

from trio_sandbox.config import SandboxConfig
from trio_sandbox.relay.relay import Listener
from trio_sandbox.relay.unix_listener import UnixListener


def listeners_of(config: SandboxConfig, socket: Path | None) -> tuple[Listener, ...]:
    """The listeners that `config` asks for. socket: one more."""
    listeners: list[Listener] = [] if socket is None else [UnixListener(socket)]
    if config.listen is not None:
        listeners.append(UnixListener(Path(os.path.abspath(config.listen))))
    if (asked := config.websocket) is not None:
        from trio_sandbox.relay.websocket_listener import WebSocketListener  # 60 ms that only its users pay

        given = {} if asked.token is None else {"token": asked.token}
        listeners.append(WebSocketListener(asked.host, asked.port, **given))
    return tuple(listeners)
