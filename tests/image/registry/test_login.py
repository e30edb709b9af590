"""Who we are: basic and token authentication, the certificates of registries, and what is said when it does not do."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio

from tests.image.registry.pulling import Pull, access, everything_said, no_sockets_left, one_layer_image, plainly
from tests.image.registry.servers import Fault, Script, faulty, token_server
from tests.registries import (
    HAS_REGISTRY,
    PASSWORD,
    USER,
    Certificate,
    LoopbackRegistry,
    make_certificate,
    running_registry,
    sign_token,
)
from trio_sandbox.errors import ImagePullError
from trio_sandbox.image.oci import Descriptor
from trio_sandbox.image.registry import client
from trio_sandbox.image.registry.reference import RegistryReference
from trio_sandbox.image.registry.resolve import resolve_image
from trio_sandbox.registry_auth import RegistryAuth

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not HAS_REGISTRY, reason="docker-registry is not installed")]

IMAGE = one_layer_image()
BYTES = IMAGE.blobs[IMAGE.layer_digests[0]]
LAYER = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", IMAGE.layer_digests[0], len(BYTES))
ANN = RegistryAuth(USER, PASSWORD)
WRONG = RegistryAuth(USER, "not-the-one")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def basic(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackRegistry]:
    """Behind TLS and basic authentication."""
    folder = tmp_path_factory.mktemp("basic")
    with running_registry(folder, tls=certificate, basic=True) as registry:
        registry.push(IMAGE, "secret/image:1", folder / "layout")
        yield registry


@attrs.frozen
class WithTokens:
    registry: LoopbackRegistry
    script: Script
    """Of the token server."""


@pytest.fixture(scope="module")
def tokens(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WithTokens]:
    """Behind a token server, by plain http."""
    folder = tmp_path_factory.mktemp("tokens")
    with token_server(certificate) as (auth, script), running_registry(folder, token=auth) as registry:
        registry.push(IMAGE, "secret/image:1", folder / "layout")
        registry.push(IMAGE, "secret/other:1", folder / "other")
        yield WithTokens(registry, script)


@pytest.fixture(autouse=True)
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Docker's config file would be."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker" / "config.json"


def pull(host: str, settings: str, folder: Path, auth: RegistryAuth | None = None, name: str = "image") -> Pull:
    return Pull(RegistryReference.parse(f"{host}/secret/{name}:1"), access(folder, settings, auth), folder)


async def test_basic_authentication_behind_a_private_authority(tmp_path: Path, basic: LoopbackRegistry) -> None:
    with no_sockets_left(basic.host):
        assert await pull(basic.host, basic.settings(), tmp_path, ANN).run() == BYTES


async def test_a_login_of_docker_is_used(tmp_path: Path, basic: LoopbackRegistry, docker_config: Path) -> None:
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    docker_config.write_text(json.dumps({"auths": {basic.host: {"auth": login}}}))
    assert await pull(basic.host, basic.settings(), tmp_path).run() == BYTES
    with pytest.raises(ImagePullError, match="refuses these credentials"):  # what the caller gives comes first
        await pull(basic.host, basic.settings(), tmp_path, WRONG).run()


@pytest.mark.parametrize(
    ("auth", "words"),
    [(None, "log in with `docker login 127"), (WRONG, "refuses these credentials")],
)
async def test_basic_authentication_fails(
    tmp_path: Path, basic: LoopbackRegistry, auth: RegistryAuth | None, words: str
) -> None:
    with no_sockets_left(basic.host), pytest.raises(ImagePullError, match=words) as caught:
        await pull(basic.host, basic.settings(), tmp_path, auth).run()
    assert (caught.value.status, caught.value.registry) == (401, basic.host)
    said = everything_said(caught.value)
    assert WRONG.password not in said
    assert base64.b64encode(f"{USER}:{WRONG.password}".encode()).decode() not in said


async def test_an_authority_that_nobody_told_us_of(tmp_path: Path, basic: LoopbackRegistry) -> None:
    with no_sockets_left(basic.host), pytest.raises(ImagePullError, match=r"is not trusted.*`ca = ") as caught:
        await pull(basic.host, "", tmp_path, ANN).run()
    assert caught.value.status is None


async def test_https_where_plain_http_is(tmp_path: Path, registry: LoopbackRegistry) -> None:
    with pytest.raises(ImagePullError, match=r"does not speak https.*`insecure = true`"):
        await pull(registry.host, "", tmp_path).run()


async def test_plain_http_where_https_is(tmp_path: Path, basic: LoopbackRegistry) -> None:
    with pytest.raises(ImagePullError, match=r"speaks https.*remove `insecure = true`"):
        await pull(basic.host, plainly(basic.host), tmp_path, ANN).run()


async def test_a_file_that_holds_no_certificate(tmp_path: Path, basic: LoopbackRegistry) -> None:
    (tmp_path / "ca.pem").write_text("none")
    with pytest.raises(ImagePullError, match=r"ca\.pem: no certificates"):
        await pull(basic.host, f'[registry."{basic.host}"]\nca = "ca.pem"', tmp_path).run()


async def test_a_token_is_bought_once_for_each_repository(tmp_path: Path, tokens: WithTokens) -> None:
    host, seen = tokens.registry.host, tokens.script.seen
    one = pull(host, tokens.registry.settings(), tmp_path, ANN)
    other = Pull(RegistryReference.parse(f"{host}/secret/other:1"), one.access, tmp_path)
    before = len(seen)
    with no_sockets_left(host):
        assert await one.run() == await other.run() == BYTES
        one.part(LAYER).unlink()
        assert await one.run() == BYTES
    assert [request.path.partition("scope=")[2].partition("&")[0] for request in seen[before:]] == [
        f"repository%3Asecret%2F{name}%3Apull" for name in ("image", "other")
    ]


async def test_many_that_log_in_at_once_log_in_once(tmp_path: Path, tokens: WithTokens) -> None:
    one = pull(tokens.registry.host, tokens.registry.settings(), tmp_path, ANN)
    before = len(tokens.script.seen)
    with no_sockets_left(tokens.registry.host):
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(resolve_image, one.reference, one.access)
    assert len(tokens.script.seen) == before + 1


async def test_an_identity_token_buys_tokens(tmp_path: Path, tokens: WithTokens, docker_config: Path) -> None:
    docker_config.write_text(json.dumps({"auths": {tokens.registry.host: {"identitytoken": PASSWORD}}}))
    assert await pull(tokens.registry.host, tokens.registry.settings(), tmp_path).run() == BYTES
    assert b"grant_type=refresh_token" in tokens.script.seen[-1].body
    assert PASSWORD not in tokens.script.seen[-1].path


async def test_a_bearer_token_is_sent_as_it_is(tmp_path: Path, tokens: WithTokens, certificate: Certificate) -> None:
    now, host = int(time.time()), tokens.registry.host
    access_list = [{"type": "repository", "name": "secret/image", "actions": ["pull"]}]
    claims = {"iss": "issuer.test", "sub": USER, "aud": "registry.test", "access": access_list}
    token = sign_token(certificate, {**claims, "exp": now + 300, "nbf": now - 10, "iat": now, "jti": "1"})
    before = len(tokens.script.seen)
    assert await pull(host, tokens.registry.settings(), tmp_path, RegistryAuth.bearer(token)).run() == BYTES
    assert len(tokens.script.seen) == before


@pytest.mark.parametrize("auth", [None, WRONG])
async def test_a_token_that_opens_nothing(tmp_path: Path, tokens: WithTokens, auth: RegistryAuth | None) -> None:
    with pytest.raises(ImagePullError, match="docker login") as caught:
        await pull(tokens.registry.host, tokens.registry.settings(), tmp_path, auth).run()
    assert caught.value.status == 401
    assert WRONG.password not in everything_said(caught.value)


async def test_a_refused_token_is_bought_anew(tmp_path: Path, tokens: WithTokens) -> None:
    challenge = f'Bearer realm="{_realm(tokens)}",service="registry.test",scope="repository:secret/image:pull"'
    refusal = Fault("/blobs/", status=401, headers={"WWW-Authenticate": challenge})
    with faulty(tokens.registry.host, refusal) as (host, script):
        before = len(tokens.script.seen)
        assert await pull(host, plainly(host), tmp_path, ANN).run() == BYTES
        assert len(tokens.script.seen) == before + 2
        refused = script.paths("/blobs/")
        assert refused[0].headers["authorization"] != refused[1].headers["authorization"]


def _realm(tokens: WithTokens) -> str:
    return f"http://{tokens.script.seen[-1].headers['host']}/token"


async def test_a_token_is_bought_anew_before_it_expires(
    tmp_path: Path, tokens: WithTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that is a quarter of a token's life on at every look: no request is refused but the first of each."""

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            self.now += 75
            return self.now

    monkeypatch.setattr(client, "time", Clock())
    with faulty(tokens.registry.host) as (host, script):
        before = len(tokens.script.seen)
        assert await pull(host, plainly(host), tmp_path, ANN).run() == BYTES
        assert len(tokens.script.seen) > before + 1
        with_tokens = [request for request in script.seen if "authorization" in request.headers]
        assert len(with_tokens) == 3  # manifest, configuration, layer


async def test_a_token_server_that_is_busy(tmp_path: Path, tokens: WithTokens) -> None:
    fault = Fault("/token", status=503)
    tokens.script.faults.append(fault)
    assert await pull(tokens.registry.host, tokens.registry.settings(), tmp_path, ANN).run() == BYTES
    assert fault.times == 0


@pytest.mark.parametrize("realm", ["", "ftp://host/", "http://user@host/", "//host/", "http://"])
async def test_a_token_server_that_is_none(tmp_path: Path, registry: LoopbackRegistry, realm: str) -> None:
    fault = Fault(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'}, times=9)
    with faulty(registry.host, fault) as (host, _), pytest.raises(ImagePullError, match="token server"):
        await pull(host, plainly(host), tmp_path, ANN).run()


async def test_credentials_do_not_follow_a_redirect(
    tmp_path: Path, tokens: WithTokens, registry: LoopbackRegistry
) -> None:
    registry.push(IMAGE, "elsewhere:1", tmp_path / "layout")
    with faulty(registry.host) as (other, elsewhere):
        place = f"http://{other}/v2/elsewhere/blobs/{IMAGE.layer_digests[0]}"
        fault = Fault(IMAGE.layer_digests[0], status=307, headers={"Location": place})
        with faulty(tokens.registry.host, fault) as (host, script):
            assert await pull(host, plainly(host), tmp_path, ANN).run() == BYTES
        assert "authorization" in script.paths(IMAGE.layer_digests[0])[0].headers
        assert [("authorization" in request.headers) for request in elsewhere.seen] == [False]


async def test_netrc_is_not_read(tmp_path: Path, registry: LoopbackRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """requests would send what it finds there, whatever we say."""
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    registry.push(IMAGE, "secret/image:1", tmp_path / "layout")
    with faulty(registry.host) as (host, script):
        assert await pull(host, plainly(host), tmp_path).run() == BYTES
        assert not any("authorization" in request.headers for request in script.seen)


async def test_mirrors_are_asked_first(tmp_path: Path, registry: LoopbackRegistry, basic: LoopbackRegistry) -> None:
    """A dead one, one that has nothing, one that lies, one that has it; and the registry itself is not asked."""
    registry.push(IMAGE, "hub/secret/image:1", tmp_path / "layout")
    lie = Fault("/manifests/", body=b"{}", times=9)
    with faulty(registry.host, lie) as (liar, lies), faulty(registry.host) as (good, script):
        mirrors = ["127.0.0.1:1", f"{good}/nothing", f"{liar}/hub", f"{good}/hub"]
        settings = [plainly(host, retries=0) for host in ("127.0.0.1:1", good, liar)]
        origin = "origin.test"
        text = "\n".join([*settings, f'[registry."{origin}"]', f"mirrors = {json.dumps(mirrors)}"])
        started = time.monotonic()
        found = pull(origin, text, tmp_path, ANN)
        assert await found.run() == BYTES
        assert time.monotonic() - started < 60
        assert (len(script.seen), len(lies.seen)) == (1 + 3, 2)
        assert not any("authorization" in request.headers for request in (*script.seen, *lies.seen))


async def test_what_the_caller_gives_is_not_for_mirrors(tmp_path: Path, basic: LoopbackRegistry) -> None:
    text = basic.settings() + '[registry."127.0.0.1:1"]\nretries = 0\n' + f'mirrors = ["{basic.host}"]'
    with pytest.raises(ImagePullError, match="nothing listens") as caught:
        await pull("127.0.0.1:1", text, tmp_path, ANN).run()
    assert caught.value.registry == "127.0.0.1:1"


async def test_a_redirect_out_of_https(tmp_path: Path, certificate: Certificate) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            with context.wrap_socket(server.accept()[0], server_side=True) as peer:
                assert peer.recv(1000)
                peer.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, serve)
            with pytest.raises(ImagePullError, match="from https to plain http"):
                await pull(host, f'[registry."{host}"]\nca = "{certificate.ca}"', tmp_path).run()


async def test_the_registry_itself_comes_last(tmp_path: Path, registry: LoopbackRegistry) -> None:
    registry.push(IMAGE, "secret/image:1", tmp_path / "layout")
    with faulty("", Fault(status=404, times=99)) as (mirror, script):
        text = plainly(mirror) + registry.settings(mirrors=[mirror])
        assert await pull(registry.host, text, tmp_path).run() == BYTES
        assert len(script.seen) == 1  # one that failed is not asked again
