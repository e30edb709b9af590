"""The relay's WebSocket: who may come in, one frame in one message, and a client that stops stops itself alone."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio_websocket
from trio_websocket import ConnectionClosed, wrap_client_stream

from trio_sandbox.errors import StorageError
from trio_sandbox.relay.client_messages import (
    Join,
)
from trio_sandbox.relay.frames import HEADER, MAX_BODY, Frame, FrameType, Role, encode
from trio_sandbox.relay.messages import (
    Exec,
    encode_body,
)
from trio_sandbox.relay.websocket_listener import CLOSE_TIMEOUT, SUBPROTOCOL, WebSocketListener
from trio_sandbox.service import service

from .crowd import Client, World, settle, world

pytestmark = pytest.mark.anyio
TOKEN = "secret-token"
JOIN = encode(Frame(FrameType.JOIN, 0, encode_body(Join((1,)))), Role.CLIENT)
TOO_LARGE = 1009
HOST = "localhost"
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


class SocketStream(trio.abc.Stream):
    """A WebSocket as a stream, each send one frame."""

    def __init__(self, ws: trio_websocket.WebSocketConnection, stream: trio.abc.Stream) -> None:
        self.ws, self.stream = ws, stream

    async def send_all(self, data: Any) -> None:
        data = bytes(data)
        while data:
            size = HEADER.size + HEADER.unpack_from(data)[0]
            await self.ws.send_message(data[:size])
            data = data[size:]

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            message = await self.ws.get_message()
        except ConnectionClosed:
            return b""
        assert isinstance(message, bytes)
        assert len(message) == HEADER.size + HEADER.unpack_from(message)[0], "a message that is not one frame"
        return message

    async def aclose(self) -> None:
        try:
            await self.ws.aclose()
        finally:
            await self.stream.aclose()


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[World, WebSocketListener]]:
    listener = WebSocketListener(token=TOKEN)
    async with world() as w, service(listener.serve, w.relay._accept, name="listener"):
        yield w, listener


@asynccontextmanager
async def websocket(listener: WebSocketListener, **options: Any) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    """A client; its library leaves a socket open that the server closes or rejects, so it is owned here."""
    async with await trio.open_tcp_stream(listener.host, listener.port) as stream, trio.open_nursery() as nursery:
        yield await wrap_client_stream(nursery, stream, HOST, "/", **options)
        nursery.cancel_scope.cancel()


def bearer(token: str) -> dict[str, Any]:
    return {"extra_headers": [(b"Authorization", b"Bearer " + token.encode())]}


async def connect(world: World, listener: WebSocketListener) -> Client:
    stream = await trio.open_tcp_stream(listener.host, listener.port)
    ws = await wrap_client_stream(world.nursery, stream, HOST, "/", **bearer(TOKEN))
    client = Client(SocketStream(ws, stream), world.seen)
    world.nursery.start_soon(client.run)
    await client.join()
    await until(lambda: client.welcome is not None)
    assert client.welcome is not None and client.welcome.logs == ""  # nothing that says where things are here
    return client


async def until(fact: Any) -> None:
    with trio.fail_after(10):
        while not fact():
            await trio.sleep(0.002)  # real sockets: there is no telling when


@pytest.mark.parametrize(
    "options",
    [bearer(TOKEN), {"subprotocols": [SUBPROTOCOL, "bearer." + TOKEN]}, {"subprotocols": ["bearer." + TOKEN]}],
    ids=["header", "subprotocol", "subprotocol-alone"],
)
async def test_the_token_opens(options: dict[str, Any]) -> None:
    async with listening() as (_, listener):
        async with websocket(listener, **options) as ws:
            await ws.send_message(JOIN)
            answer = await ws.get_message()
            assert isinstance(answer, bytes) and HEADER.unpack_from(answer)[1] == FrameType.WELCOME
            assert ws.subprotocol == (SUBPROTOCOL if SUBPROTOCOL in options.get("subprotocols", ()) else None)


@pytest.mark.parametrize(
    "header",
    [
        "X-None: x",
        "Authorization: Bearer wrong",
        "Authorization: Bearer " + TOKEN[:-1],
        "Authorization: Bearer " + TOKEN + "x",
        "Authorization: " + TOKEN,
        "Cookie: Bearer " + TOKEN,
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}, bearer.wrong",
        f"Sec-WebSocket-Protocol: {TOKEN}",
    ],
)
async def test_anything_else_does_not(header: str) -> None:
    async with listening() as (w, listener):
        async with await trio.open_tcp_stream(listener.host, listener.port) as stream:
            await stream.send_all(HANDSHAKE + header.encode() + b"\r\n\r\n")
            answer = b"".join([piece async for piece in stream])
        assert answer.startswith(b"HTTP/1.1 401 ") and b"WWW-Authenticate: Bearer" in answer
        assert not w.relay._connections


async def test_tokens_are_made_at_random_and_not_shown() -> None:
    first, second = WebSocketListener(), WebSocketListener()
    assert first.token != second.token and len(first.token) >= 40
    assert first.token not in repr(first)


@pytest.mark.parametrize(
    "message",
    ["text", JOIN.decode("latin-1"), b"short", JOIN + JOIN, JOIN[:-1], JOIN + b"x"],
    ids=["text", "frame-as-text", "short", "two-frames", "cut", "surplus"],
)
async def test_a_message_that_is_not_one_frame_ends_the_connection(message: str | bytes) -> None:
    async with listening() as (w, listener):
        async with websocket(listener, **bearer(TOKEN)) as ws:
            await ws.send_message(message)
            with trio.fail_after(5), pytest.raises(ConnectionClosed):
                await ws.get_message()
        assert (await connect(w, listener)).welcome is not None


async def test_a_message_larger_than_a_frame_is_refused_before_it_is_held() -> None:
    async with listening() as (w, listener):
        async with websocket(listener, **bearer(TOKEN)) as ws:
            with trio.fail_after(5), pytest.raises(ConnectionClosed) as caught:
                await ws.send_message(bytes(HEADER.size + MAX_BODY + 1))
                await ws.get_message()
            assert caught.value.reason is not None and caught.value.reason.code == TOO_LARGE
        assert (await connect(w, listener)).welcome is not None


async def test_a_program_from_its_start_to_its_end() -> None:
    async with listening() as (w, listener):
        client = await connect(w, listener)
        local = client.open(Exec((b"prog",), (), stdin=True))
        await client.flush()
        await until(lambda: client.sessions[local].started)
        number = client.sessions[local].number
        client.mux.send_data(FrameType.STDIN, local, bytes(100_000), end=True)
        await client.flush()
        await until(lambda: w.agent.sessions[number].stdin_ended)
        assert len(w.agent.sessions[number].stdin) == 100_000
        for _ in range(10):
            await until(lambda: w.agent.mux.sendable(number) >= 100_000)
            w.agent.output(number, 100_000)
            await w.agent.flush()
        w.agent.end(number)
        await w.agent.flush()
        await until(lambda: client.sessions[local].end is not None)
        assert client.sessions[local].got == 1_000_000
        await client.hang_up()
        await until(lambda: w.relay.admission.clients.used == 1)


async def test_a_client_that_does_not_read_stops_itself_alone() -> None:
    async with listening() as (w, listener):
        stalled, lively = await connect(w, listener), await connect(w, listener)
        for client in (stalled, lively):
            for _ in range(16):
                client.open(Exec((b"prog",), ()))
            await client.flush()
        await until(lambda: len(w.agent.sessions) == 32)
        await until(lambda: all(session.number for it in (stalled, lively) for session in it.sessions.values()))
        stalled.stop_reading()
        stalled.consuming = False
        numbers = [session.number for session in stalled.sessions.values()]
        while sum(w.agent.output(number, 50_000) for number in numbers):
            await w.agent.flush()
            await settle()
        mine = lively.sessions[1]
        for _ in range(20):
            await until(lambda: w.agent.mux.sendable(mine.number) >= 50_000)
            w.agent.output(mine.number, 50_000)
            await w.agent.flush()
        await until(lambda: mine.got == 1_000_000)


async def test_one_that_goes_away_in_the_handshake_takes_nobody_along() -> None:
    authorized = HANDSHAKE + b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
    async with listening() as (w, listener):
        for said in (b"", b"\x00\xff garbage\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", HANDSHAKE + b"\r\n", authorized):
            for _ in range(5):
                with socket.create_connection((listener.host, listener.port)) as rude:
                    rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close by RST
                    rude.sendall(said)
                await trio.sleep(0.005)
        assert (await connect(w, listener)).welcome is not None
        await until(lambda: len(w.relay._connections) == 1)


async def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listener = WebSocketListener(port=taken.getsockname()[1])

        async def nobody(_: object) -> None:
            raise AssertionError

        with pytest.raises(StorageError, match="cannot listen"):
            async with service(listener.serve, nobody):
                pass


async def test_the_end_of_the_listener_does_not_wait_for_a_client_that_answers() -> None:
    with trio.fail_after(CLOSE_TIMEOUT * 0.9):
        async with listening() as (w, listener):
            await connect(w, listener)
