"""The relay on a WebSocket: for browsers, other languages, other hosts. One frame is one binary message.

It listens on the loopback device unless told otherwise, and lets in whoever brings the bearer token:
`Authorization: Bearer TOKEN`, or, from browsers, which cannot set that header, the subprotocol `bearer.TOKEN` offered
beside `trio-sandbox`. A page of another origin that does not know the token gets nothing.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from functools import partial

import attrs
import trio
import trio_websocket

from trio_sandbox.errors import RemoteProtocolError, StorageError
from trio_sandbox.relay.frames import HEADER, MAX_BODY
from trio_sandbox.relay.relay import Accept
from trio_sandbox.service import service

log = logging.getLogger("trio_sandbox.relay")

SUBPROTOCOL = "trio-sandbox"
HANDSHAKE_TIMEOUT = 10.0
CLOSE_TIMEOUT = 2.0
RECEIVE_SIZE = 65_536
"""The library default of 4 KiB costs two thirds of the speed."""
QUEUED_MESSAGES = 4
"""Messages that the library may hold for one client before we take them."""


@attrs.define(eq=False)
class MessageTransport:
    """One frame in one binary message."""

    socket: trio_websocket.WebSocketConnection
    is_local: bool = False

    async def receive(self) -> bytes:
        try:
            message = await self.socket.get_message()
        except trio_websocket.ConnectionClosed:
            return b""
        if not isinstance(message, bytes) or len(message) < HEADER.size:
            raise RemoteProtocolError("a message must be binary, and one frame")
        if HEADER.unpack_from(message)[0] != len(message) - HEADER.size:
            raise RemoteProtocolError("a message must be one frame, whole")
        return message

    async def send(self, frames: list[bytes]) -> None:
        try:
            for frame in frames:
                await self.socket.send_message(frame)
        except trio_websocket.ConnectionClosed as error:
            raise trio.BrokenResourceError from error

    async def aclose(self) -> None:
        with trio.move_on_after(CLOSE_TIMEOUT):
            await self.socket.aclose()


async def _nursery(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()


@attrs.define(eq=False)
class WebSocketListener:
    """host, port: where to listen; port 0 for a free one, which `address` then names. token: what clients must bring;
    a random one of 256 bits by default.
    """

    host: str = "127.0.0.1"
    port: int = 0
    token: str = attrs.field(factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}"

    async def serve(self, accept: Accept, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept clients until cancelled. Raises StorageError when it cannot listen."""
        try:
            listeners = await trio.open_tcp_listeners(self.port, host=self.host)
        except OSError as error:
            raise StorageError(self.address, error.errno or 0, f"cannot listen: {error.strerror}") from error
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, partial(self._serve_one, accept), listeners)
            task_status.started()

    async def _serve_one(self, accept: Accept, stream: trio.abc.Stream) -> None:
        """One connection, with its tasks in a nursery of their own: what the library raises when its client has gone
        concerns nobody else, and its reader outlives a cancel for as long as the closing handshake needs it.
        """
        try:
            async with service(_nursery, name="WebSocket reader") as nursery:
                request: trio_websocket.WebSocketRequest | None = None
                with trio.move_on_after(HANDSHAKE_TIMEOUT):
                    request = await trio_websocket.wrap_server_stream(
                        nursery,
                        stream,
                        max_message_size=HEADER.size + MAX_BODY,
                        message_queue_size=QUEUED_MESSAGES,
                        receive_buffer_size=RECEIVE_SIZE,
                    )
                if request is not None:
                    await self._admit(accept, request)
        except* (trio_websocket.ConnectionClosed, trio_websocket.HandshakeError) as group:
            log.info("a WebSocket client went away: %s", group.exceptions[0])

    async def _admit(self, accept: Accept, request: trio_websocket.WebSocketRequest) -> None:
        if not self._is_authorized(request):
            log.warning("a WebSocket client without the token was turned away")
            await request.reject(401, extra_headers=[(b"WWW-Authenticate", b"Bearer")])
            return
        offered = SUBPROTOCOL in request.proposed_subprotocols
        connection = await request.accept(subprotocol=SUBPROTOCOL if offered else None)
        await accept(MessageTransport(connection))

    def _is_authorized(self, request: trio_websocket.WebSocketRequest) -> bool:
        given = [value for name, value in request.headers if name.lower() == b"authorization"]
        given += [f"Bearer {word[7:]}".encode() for word in request.proposed_subprotocols if word.startswith("bearer.")]
        wanted = f"Bearer {self.token}".encode()
        return any(hmac.compare_digest(word, wanted) for word in given)
