"""What a Mux makes of the bytes that it is given. Sans-IO."""

from __future__ import annotations

from collections import deque

import attrs

from trio_sandbox.relay.client_messages import (
    Attach,
)
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Emit,
    Exec,
    Fs,
    Message,
    Subscribe,
)

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


JOINED_SIZE = 4096
"""Bytes up to which pieces of a stream are joined while they wait, so that a peer that sends byte by byte does not cost
a hundred times what it sends; copying more than this costs more than a piece does.
"""


def append_joined(waiting: deque[MessageReceived | DataReceived], event: MessageReceived | DataReceived) -> None:
    """Append an event to those that wait, to the last one itself where both are small pieces of one stream."""
    if waiting and isinstance(event, DataReceived):
        last = waiting[-1]
        if (
            isinstance(last, DataReceived)
            and (last.type, last.session) == (event.type, event.session)
            and len(last.data) + len(event.data) <= JOINED_SIZE
        ):
            waiting[-1] = DataReceived(event.type, event.session, last.data + event.data, event.end)
            return
    waiting.append(event)


Event = MessageReceived | DataReceived | WindowOpened | PingReceived
