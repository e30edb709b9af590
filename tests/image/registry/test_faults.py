"""What a bad line and a busy registry do to a pull."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.image.registry.pulling import (
    BLOB_BYTES,
    Pull,
    access,
    everything_said,
    no_sockets_left,
    one_layer_image,
    plainly,
)
from tests.image.registry.servers import Fault, faulty
from tests.registries import LoopbackRegistry
from trio_sandbox.errors import ImageNotFoundError, ImagePullError, InvalidImageError, StorageError
from trio_sandbox.image.oci import Descriptor
from trio_sandbox.image.registry.reference import RegistryReference
from trio_sandbox.image.registry.resolve import resolve_image

pytestmark = pytest.mark.anyio

IMAGE = one_layer_image()
LAYER = Descriptor(
    "application/vnd.oci.image.layer.v1.tar+gzip",
    IMAGE.layer_digests[0],
    len(IMAGE.blobs[IMAGE.layer_digests[0]]),
)
BYTES = IMAGE.blobs[LAYER.digest]


@pytest.fixture(scope="module")
def pushed(registry: LoopbackRegistry, tmp_path_factory: pytest.TempPathFactory) -> LoopbackRegistry:
    registry.push(IMAGE, "faults:1", tmp_path_factory.mktemp("layout") / "layout")
    return registry


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits between two tries; how long they would have waited."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        waited.append(seconds)

    monkeypatch.setattr(trio, "sleep", sleep)
    return waited


def through(host: str, folder: Path, **settings: Any) -> Pull:
    reference = RegistryReference.parse(f"{host}/faults:1")
    return Pull(reference, access(folder, plainly(host, **settings)), folder)


def on_layer(**options: Any) -> Fault:
    return Fault(LAYER.digest, **options)


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("/manifests/", status=429), Fault("/", status=503), on_layer(status=502), on_layer(status=504)],
        [Fault("/manifests/", cut=10), Fault(IMAGE.config_digest, cut=0), on_layer(cut=0)],
        [on_layer(cut=1_000_000), on_layer(cut=100), on_layer(cut=1_500_000), on_layer(cut=100)],
        [on_layer(cut=1000, chunked=True), on_layer(chunked=True)],
        [Fault("/manifests/", corrupt=True), Fault(IMAGE.config_digest, extra=b" "), on_layer(corrupt=True)],
        [on_layer(extra=b"more", chunked=True)],
        [on_layer(cut=BLOB_BYTES // 2), on_layer(ignore_range=True)],
        [on_layer(cut=BLOB_BYTES // 2), on_layer(headers={"Content-Range": f"bytes 0-5/{LAYER.size}"})],
        [on_layer(cut=BLOB_BYTES // 2), on_layer(status=416)],
    ],
    ids=["statuses", "nothing", "resumed", "chunked", "corrupt", "extra", "no ranges", "wrong range", "416"],
)
async def test_it_comes_all_the_same(
    tmp_path: Path, pushed: LoopbackRegistry, delays: list[float], faults: list[Fault]
) -> None:
    with faulty(pushed.host, *faults) as (host, script):
        pull = through(host, tmp_path)
        with no_sockets_left(host):
            assert await pull.run() == BYTES
        assert all(fault.times == 0 for fault in script.faults)
        assert sum(pull.counts) == LAYER.size


async def test_nothing_is_unpacked_on_the_way(tmp_path: Path, pushed: LoopbackRegistry) -> None:
    """Some stores call a layer's own compression an encoding of the answer."""
    with faulty(pushed.host, on_layer(headers={"Content-Encoding": "gzip"}, times=9)) as (host, script):
        assert await through(host, tmp_path, retries=0).run() == BYTES
        assert {request.headers["accept-encoding"] for request in script.seen} == {"identity"}


async def test_nothing_is_fetched_twice(tmp_path: Path, pushed: LoopbackRegistry, delays: list[float]) -> None:
    with faulty(pushed.host, on_layer(cut=1_000_000), on_layer(cut=500_000)) as (host, script):
        await through(host, tmp_path).run()
        assert [request.headers.get("range") for request in script.paths(LAYER.digest)] == [
            None,
            "bytes=1000000-",
            "bytes=1500000-",
        ]


async def test_a_later_call_goes_on(tmp_path: Path, pushed: LoopbackRegistry) -> None:
    with faulty(pushed.host) as (host, script):
        pull = through(host, tmp_path)
        pull.part(LAYER).write_bytes(BYTES[:1234])
        assert await pull.fetch(LAYER) == BYTES
        assert sum(pull.counts) == LAYER.size - 1234
        assert await pull.fetch(LAYER) == BYTES
        assert [request.headers.get("range") for request in script.paths(LAYER.digest)] == ["bytes=1234-"]


async def test_another_part_than_was_asked_for(tmp_path: Path, pushed: LoopbackRegistry, delays: list[float]) -> None:
    wrong = on_layer(headers={"Content-Range": f"bytes 0-{LAYER.size - 1}/{LAYER.size}"})
    with faulty(pushed.host, wrong) as (host, script):
        pull = through(host, tmp_path)
        pull.part(LAYER).write_bytes(BYTES[:1234])
        assert await pull.fetch(LAYER) == BYTES
        assert [request.headers.get("range") for request in script.seen] == ["bytes=1234-", None]


async def test_a_blob_of_another_size(tmp_path: Path, pushed: LoopbackRegistry) -> None:
    wrong = on_layer(headers={"Content-Range": f"bytes 1234-{LAYER.size - 1}/{LAYER.size + 1}"}, times=9)
    with faulty(pushed.host, wrong) as (host, _):
        pull = through(host, tmp_path)
        pull.part(LAYER).write_bytes(BYTES[:1234])
        with pytest.raises(InvalidImageError, match="instead of"):
            await pull.fetch(LAYER)


@pytest.mark.parametrize("held", [BYTES[:-1] + b"x", BYTES + b"x", b"x" * 100])
async def test_a_part_that_is_none(tmp_path: Path, pushed: LoopbackRegistry, held: bytes) -> None:
    with faulty(pushed.host) as (host, _):
        pull = through(host, tmp_path)
        pull.part(LAYER).write_bytes(held)
        assert await pull.fetch(LAYER) == BYTES
        assert len(held) + sum(pull.counts) == LAYER.size


async def test_retry_after_is_honoured(tmp_path: Path, pushed: LoopbackRegistry, delays: list[float]) -> None:
    with faulty(pushed.host, Fault(status=429, headers={"Retry-After": "7"}), Fault(status=503)) as (host, _):
        await through(host, tmp_path).run()
    assert len(delays) == 2
    assert delays[0] == 7 and delays[1] < 1


@pytest.mark.parametrize(
    ("fault", "settings", "status", "waits", "words"),
    [
        (Fault(status=429, times=9), {}, 429, 2, "answered 429"),
        (Fault(status=503, times=9), {"retries": 0}, 503, 0, "try again later"),
        (Fault(status=429, times=9, headers={"Retry-After": "3600"}), {}, 429, 0, "answered 429"),
        (Fault(status=500, times=9, body=b'{"errors":[{"code":"UNKNOWN"}]}'), {}, 500, 0, "500 (UNKNOWN)"),
        (Fault(silent=True, times=9), {"read_timeout": 0.05}, None, 2, "sent nothing for too long"),
        (Fault(cut=3, times=9), {}, None, 2, "broke"),
        (Fault(status=301, times=9, headers={"Location": "/again"}), {}, None, 0, "redirects"),
        (Fault(status=302, headers={"Location": "file:///etc/passwd"}), {}, 302, 0, "redirects"),
        (Fault(status=302), {}, 302, 0, "redirects"),
    ],
)
async def test_it_is_given_up(
    tmp_path: Path,
    pushed: LoopbackRegistry,
    delays: list[float],
    fault: Fault,
    settings: dict[str, Any],
    status: int | None,
    waits: int,
    words: str,
) -> None:
    with faulty(pushed.host, fault) as (host, _):
        pull = through(host, tmp_path, **settings)
        with no_sockets_left(host), pytest.raises(ImagePullError) as caught:
            await pull.run()
    assert (caught.value.registry, caught.value.status, len(delays)) == (host, status, waits)
    assert caught.value.reference == f"{host}/faults:1"
    assert words in str(caught.value)


async def test_a_long_download_over_a_bad_line(tmp_path: Path, pushed: LoopbackRegistry, delays: list[float]) -> None:
    """Many failures, each after another megabyte, are not the same as many failures."""
    with faulty(pushed.host, *(on_layer(cut=1 << 20) for _ in range(2))) as (host, _):
        assert await through(host, tmp_path, retries=1).run() == BYTES
    with faulty(pushed.host, *(on_layer(cut=1000) for _ in range(2))) as (host, _):
        pull = through(host, tmp_path / "..", retries=1)
        pull.part(LAYER).unlink(missing_ok=True)
        with pytest.raises(ImagePullError, match="broke"):
            await pull.fetch(LAYER)
        assert pull.part(LAYER).read_bytes() == BYTES[:2000]
        pull.part(LAYER).unlink()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (on_layer(corrupt=True, times=9), "is damaged"),
        (on_layer(extra=b"x", times=9), "instead of"),
        (on_layer(extra=b"x", chunked=True, times=9), "more than its"),
        (on_layer(body=b"short", times=9), "5 bytes there"),
        (Fault("/manifests/", headers={"Docker-Content-Digest": LAYER.digest}, times=2), "but the bytes hash to"),
        (Fault("/manifests/", body=b"{" * (5 << 20), times=2), "more than 4194304 bytes"),
        (Fault("/manifests/", body=b"not json", headers={"Docker-Content-Digest": ""}, times=2), "is not JSON"),
        (Fault(IMAGE.config_digest, corrupt=True, times=2), "is damaged"),
        (Fault(IMAGE.config_digest, extra=b" ", times=2), "more than"),
    ],
)
async def test_a_registry_that_lies(tmp_path: Path, pushed: LoopbackRegistry, fault: Fault, words: str) -> None:
    with faulty(pushed.host, fault) as (host, _):
        pull = through(host, tmp_path)
        with no_sockets_left(host), pytest.raises(InvalidImageError, match=words):
            await pull.run()
        assert not pull.part(LAYER).exists() or pull.part(LAYER).stat().st_size == 0


async def test_no_such_tag(tmp_path: Path, pushed: LoopbackRegistry) -> None:
    for name in (f"{pushed.host}/faults:2", f"{pushed.host}/faults@sha256:{'0' * 64}"):
        with pytest.raises(ImageNotFoundError, match="no such image or tag"):
            await resolve_image(RegistryReference.parse(name), access(tmp_path, pushed.settings()))


async def test_by_digest(tmp_path: Path, pushed: LoopbackRegistry) -> None:
    digest = IMAGE.index[0]["digest"]
    reference = RegistryReference.parse(f"{pushed.host}/faults:other@{digest}")
    assert (await resolve_image(reference, access(tmp_path, pushed.settings()))).manifest.digest == digest


async def test_another_manifest_than_the_digest_says(tmp_path: Path, pushed: LoopbackRegistry) -> None:
    body = IMAGE.blobs[IMAGE.index[0]["digest"]] + b"\n"
    with faulty(pushed.host, Fault("/manifests/", body=body, times=2)) as (host, _):
        reference = RegistryReference.parse(f"{host}/faults@{IMAGE.index[0]['digest']}")
        with pytest.raises(InvalidImageError, match="asked for"):
            await resolve_image(reference, access(tmp_path, plainly(host)))


async def test_a_redirect_is_followed(
    tmp_path: Path, pushed: LoopbackRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with faulty(pushed.host) as (other, elsewhere):
        place = f"http://{other}/v2/faults/blobs/{LAYER.digest}?signature=secret"
        with faulty(pushed.host, on_layer(status=307, headers={"Location": place})) as (host, _):
            assert await through(host, tmp_path).run() == BYTES
        assert [request.path for request in elsewhere.seen] == [f"/v2/faults/blobs/{LAYER.digest}?signature=secret"]
    assert "signature" not in caplog.text


async def test_where_a_redirect_leads_is_not_told(
    tmp_path: Path, pushed: LoopbackRegistry, delays: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for place in ("http://127.0.0.1:1/blob?signature=secret", "ftp://signature@host/", "http://signature@host/x"):
        with faulty(pushed.host, on_layer(status=307, headers={"Location": place}, times=9)) as (host, _):
            with pytest.raises(ImagePullError) as caught:
                await through(host, tmp_path).run()
        assert "signature" not in everything_said(caught.value)
    assert "signature" not in caplog.text


async def test_a_proxy_of_the_environment(
    tmp_path: Path, pushed: LoopbackRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with faulty(pushed.host) as (host, script):
        monkeypatch.setenv("http_proxy", f"http://{host}")
        with no_sockets_left(host):
            assert await through(pushed.host, tmp_path).run() == BYTES
        assert [request.path.startswith(f"http://{pushed.host}/v2/") for request in script.seen] == [True] * 3


@pytest.mark.parametrize(
    ("number", "words", "waits"),
    [
        (socket.EAI_NONAME, "there is no host no.test; check", 0),
        (socket.EAI_AGAIN, "no.test cannot be looked up", 2),
    ],
)
async def test_a_name_without_an_address(
    tmp_path: Path, delays: list[float], monkeypatch: pytest.MonkeyPatch, number: int, words: str, waits: int
) -> None:
    def getaddrinfo(*args: object, **options: object) -> None:
        raise socket.gaierror(number, "no")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ImagePullError, match=words):
        await through("no.test", tmp_path).run()
    assert len(delays) == waits


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
async def test_a_full_disk(
    tmp_path: Path, pushed: LoopbackRegistry, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    write: Callable[..., int] = os.pwrite

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        if offset + len(data) > 1_000_000:
            raise OSError(code, os.strerror(code))
        return write(descriptor, data, offset)

    pull = through(pushed.host, tmp_path)
    monkeypatch.setattr(os, "pwrite", pwrite)
    with no_sockets_left(pushed.host), pytest.raises(StorageError):
        await pull.run()
    monkeypatch.undo()
    assert 0 < pull.part(LAYER).stat().st_size <= 1_000_000
    assert await pull.fetch(LAYER) == BYTES
