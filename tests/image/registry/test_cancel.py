"""A cancelled pull ends at once, wherever it is stuck, and leaves no thread and no socket."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.image.registry.pulling import Pull, access, descriptors, no_sockets_left, one_layer_image, plainly
from tests.image.registry.servers import Fault, faulty
from tests.registries import LoopbackRegistry, make_certificate
from trio_sandbox.image.registry import calls
from trio_sandbox.image.registry.calls import Call, Interrupted, interruptible, open_socket
from trio_sandbox.image.registry.reference import RegistryReference

pytestmark = pytest.mark.anyio

PROMPT = 2.0
"""Seconds. It takes one or two milliseconds on a machine that has nothing else to do, and no limit of time ends it."""
IMAGE = one_layer_image()
LAYER = IMAGE.layer_digests[0]


@pytest.fixture(scope="module")
def pushed(registry: LoopbackRegistry, tmp_path_factory: pytest.TempPathFactory) -> LoopbackRegistry:
    registry.push(IMAGE, "cancel:1", tmp_path_factory.mktemp("layout") / "layout")
    return registry


async def cancel_when(stuck: Callable[[], Awaitable[object]], work: Callable[[], Awaitable[object]]) -> None:
    """Run `work`, cancel it when `stuck` returns, and check that it ends long before any limit of time."""
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            await work()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await stuck()
        began = time.monotonic()
        scope.cancel()
    assert time.monotonic() - began < PROMPT
    assert scope.cancelled_caught


async def event_is_set(event: threading.Event) -> None:
    while not event.is_set():
        await trio.sleep(0.01)


def pull_from(host: str, folder: Path, settings: str) -> Pull:
    return Pull(RegistryReference.parse(f"{host}/cancel:1"), access(folder, settings), folder)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("/manifests/", silent=True),
        Fault("/manifests/", stall=20),
        Fault(IMAGE.config_digest, stall=0),
        Fault(LAYER, silent=True),
        Fault(LAYER, stall=0),
        Fault(LAYER, stall=1_000_000),
        Fault(LAYER, stall=1_000_000, chunked=True),
    ],
)
async def test_while_the_server_stalls(tmp_path: Path, pushed: LoopbackRegistry, fault: Fault) -> None:
    with faulty(pushed.host, fault) as (host, script):
        pull = pull_from(host, tmp_path, plainly(host))
        with no_sockets_left(host):
            await cancel_when(lambda: event_is_set(script.stuck), pull.run)
        if fault.stall and fault.match == LAYER:
            kept = (tmp_path / LAYER.removeprefix("sha256:")).read_bytes()
            assert IMAGE.blobs[LAYER].startswith(kept)
            script.faults.clear()
            assert await pull.run() == IMAGE.blobs[LAYER]


@contextmanager
def listening(backlog: int) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as server:
        yield server


async def test_while_tls_does_not_get_on(tmp_path: Path) -> None:
    with listening(5) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"

        async def shaking_hands() -> None:
            peers.append((await trio.to_thread.run_sync(server.accept))[0])
            assert await trio.to_thread.run_sync(peers[0].recv, 1)

        pull = pull_from(host, tmp_path, f'[registry."{host}"]\nread_timeout = 600\nconnect_timeout = 600')
        peers: list[socket.socket] = []
        with no_sockets_left(host):
            await cancel_when(shaking_hands, pull.run)
        peers[0].close()


async def test_while_a_body_stalls_inside_of_tls(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    with listening(5) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        peers: list[ssl.SSLSocket] = []

        def serve() -> None:
            peers.append(context.wrap_socket(server.accept()[0], server_side=True))
            assert peers[0].recv(1000).startswith(b"GET /v2/cancel/manifests/1 ")
            peers[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")

        settings = f'[registry."{host}"]\nread_timeout = 600\nca = "{certificate.ca}"'
        pull = pull_from(host, tmp_path, settings)
        with no_sockets_left(host):
            await cancel_when(lambda: trio.to_thread.run_sync(serve), pull.run)
        peers[0].close()


async def test_while_connecting(tmp_path: Path) -> None:
    """The queue of the listener is full, so the next one's first packet is not answered."""
    with listening(0) as server:
        address = server.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)

            before = descriptors()

            async def connecting() -> None:
                while descriptors() < before + 2:
                    await trio.sleep(0.01)

            host = f"127.0.0.1:{address[1]}"
            pull = pull_from(host, tmp_path, plainly(host, connect_timeout=600))
            await cancel_when(connecting, pull.run)
            assert descriptors() == before


async def test_while_a_name_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *args: object, **options: object) -> object:
        if host != "slow.test" or options.get("flags"):
            return real(host, *args, **options)  # type: ignore[arg-type]
        asked.set()
        answer.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    pull = pull_from("slow.test:80", tmp_path, plainly("slow.test:80"))
    try:
        await cancel_when(lambda: event_is_set(asked), pull.run)
    finally:
        answer.set()
        for thread in threading.enumerate():
            if thread.name == "look up slow.test":
                thread.join()


async def test_at_any_moment(tmp_path: Path, pushed: LoopbackRegistry) -> None:
    """Wherever it happens to be; what has come is gone on from, and comes out right."""
    with no_sockets_left(pushed.host):
        for step in range(40):
            pull = pull_from(pushed.host, tmp_path, pushed.settings())
            with trio.move_on_after(step * 0.001):
                await pull.run()
            if step % 8 == 0:
                (tmp_path / LAYER.removeprefix("sha256:")).unlink(missing_ok=True)
        assert await pull.run() == IMAGE.blobs[LAYER]


async def test_a_call_that_was_cancelled_takes_no_further_socket() -> None:
    call = Call()
    call.interrupt()
    with socket.socket() as sock:
        before = descriptors()
        with pytest.raises(Interrupted):
            call.attach(sock)
        assert descriptors() == before


async def test_one_that_waits_for_another_is_cancelled_alone() -> None:
    lock = threading.Lock()
    with lock, trio.move_on_after(0.05) as scope:
        await interruptible(lambda: calls.current_call().acquire(lock))
    assert scope.cancelled_caught
    assert lock.acquire(blocking=False)


async def test_what_a_call_returns_and_raises() -> None:
    assert await interruptible(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        await interruptible(lambda: 1 // 0)


async def test_nobody_listens() -> None:
    with listening(1) as server:
        address = server.getsockname()
    before = descriptors()
    with pytest.raises(ConnectionRefusedError):
        await interruptible(lambda: open_socket("127.0.0.1", address[1], 1.0, ()))
    assert descriptors() == before
