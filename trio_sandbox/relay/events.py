"""What a Mux makes of the bytes that it is given. Sans-IO."""

from __future__ import annotations

import attrs

from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import Attach, Emit, Exec, Fs, Message, Subscribe

Opener = Exec | Fs | Emit | Subscribe | Attach
"""What a session can be opened with."""


@attrs.frozen
class MessageReceived:
    """A control message; `message` is None for the types whose body is empty."""

    type: FrameType
    session: int
    slot: int
    message: Message | None


@attrs.frozen
class DataReceived:
    """Bytes of a stream (STDIN, STDOUT or STDERR); acknowledge them when consumed. `end`: the stream is over."""

    type: FrameType
    session: int
    data: bytes
    end: bool = False


@attrs.frozen
class WindowOpened:
    """The peer took `size` bytes: as many more may be sent."""

    session: int
    size: int


@attrs.frozen
class PingReceived:
    """A PING or its PONG, with its bytes."""

    type: FrameType
    body: bytes


Event = MessageReceived | DataReceived | WindowOpened | PingReceived
