"""Debian's docker-registry on loopback, filled by skopeo: plain, with TLS, and behind either kind of authentication."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from tests.image.images import TestImage, write_layout

USER, PASSWORD = "ann", "s3cret"
HTPASSWD = f"{USER}:$2y$05$aVOOoQ79WOmbFvnPb2czR.G75WC7XqzGPHwlWYONF5CNdWKBU.rGi\n"
"""The password, hashed by bcrypt."""

PROGRAMS = ("docker-registry", "skopeo", "openssl")
HAS_REGISTRY = all(shutil.which(program) for program in PROGRAMS)


@attrs.frozen
class Certificate:
    """A certificate for 127.0.0.1 and localhost, with its key, and the authority that signed it."""

    ca: Path
    certificate: Path
    key: Path


@attrs.frozen
class TokenAuth:
    """Where a registry sends those who have no token. certificate: of the key that signs tokens."""

    realm: str
    certificate: Path
    service: str = "registry.test"
    issuer: str = "issuer.test"


@attrs.frozen
class LoopbackRegistry:
    """A registry that runs."""

    host: str
    """127.0.0.1:PORT"""
    storage: Path
    tls: Certificate | None = None
    login: bool = False

    def push(self, image: TestImage, name: str, folder: Path, *options: str, multi_arch: bool = False) -> None:
        """Put an image there as `name` ("demo:1"). folder: an empty place for the layout that skopeo reads."""
        write_layout(folder, image)
        self.push_from(f"oci:{folder}", name, *options, *(("--all",) if multi_arch else ()))

    def push_from(self, source: str, name: str, *options: str) -> None:
        """Put there what skopeo finds at `source`, a transport with a name."""
        kept = [] if "--format" in options else ["--preserve-digests"]
        words = ["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", *kept, *options]
        if self.login:
            words.append(f"--dest-creds={USER}:{PASSWORD}")
        done = subprocess.run([*words, source, f"docker://{self.host}/{name}"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def settings(self, **more: Any) -> str:
        """The lines of registries.toml that make it reachable."""
        lines = [f'[registry."{self.host}"]']
        lines.append("insecure = true" if self.tls is None else f"ca = {json.dumps(str(self.tls.ca))}")
        return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in more.items()), ""])


@contextmanager
def running_registry(
    folder: Path, *, tls: Certificate | None = None, basic: bool = False, token: TokenAuth | None = None
) -> Iterator[LoopbackRegistry]:
    """A registry of its own, which ends with the block. folder: exists, for its files."""
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "info", "formatter": "json"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": "127.0.0.1:0"},
    }
    if tls is not None:
        config["http"]["tls"] = {"certificate": str(tls.certificate), "key": str(tls.key)}
    if basic:
        (folder / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    if token is not None:
        config["auth"] = {
            "token": {
                "realm": token.realm,
                "service": token.service,
                "issuer": token.issuer,
                "rootcertbundle": str(token.certificate),
            }
        }
    (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", folder / "config.yml"],
            stdout=log,
            stderr=subprocess.PIPE,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )
    assert process.stderr is not None
    reader = threading.Thread(target=lambda: None)
    try:
        host = _address(process.stderr)
        # What it goes on to say must not fill the pipe.
        reader = threading.Thread(target=process.stderr.read)
        reader.start()
        yield LoopbackRegistry(host, folder / "storage", tls, basic or token is not None)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if reader.ident is not None:
            reader.join()
        process.stderr.close()


def _address(log: Any) -> str:
    said = b""
    for line in log:
        said += line
        try:
            message = json.loads(line)["msg"]
        except ValueError:
            continue
        if message.startswith("listening on "):
            return str(message).removeprefix("listening on ").partition(",")[0]
    raise AssertionError(f"docker-registry did not start: {said.decode()}")


def make_certificate(folder: Path) -> Certificate:
    """An authority of our own, and what it vouches for."""
    folder.mkdir(parents=True, exist_ok=True)
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    certificate, key, request = folder / "server.pem", folder / "server.key", folder / "server.csr"
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(
        "req", "-x509", *new_key, "-keyout", ca_key, "-out", ca, "-days", "30", "-subj", "/CN=Test authority",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign",
    )  # fmt: skip
    _openssl("req", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=localhost")
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n")
    _openssl(
        "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-set_serial", "2", "-days", "30",
        "-extfile", folder / "extensions", "-out", certificate,
    )  # fmt: skip
    return Certificate(ca, certificate, key)


def sign_token(certificate: Certificate, claims: dict[str, Any]) -> str:
    """A JSON web token that a registry believes whose `TokenAuth` names the certificate's file."""
    pem = certificate.certificate.read_text().partition("-----BEGIN CERTIFICATE-----")[2]
    der = "".join(pem.partition("-----END CERTIFICATE-----")[0].split())
    head = _base64({"typ": "JWT", "alg": "ES256", "x5c": [der]})
    signed = f"{head}.{_base64(claims)}"
    signature = _openssl("dgst", "-sha256", "-sign", certificate.key, input=signed.encode())
    return f"{signed}.{_url64(_plain_signature(signature))}"


def _plain_signature(der: bytes) -> bytes:
    """ECDSA's two numbers, 32 bytes each, out of their DER."""
    numbers, position = b"", 2
    for _ in range(2):
        length = der[position + 1]
        numbers += der[position + 2 : position + 2 + length].lstrip(b"\0").rjust(32, b"\0")
        position += 2 + length
    return numbers


def _base64(value: Any) -> str:
    return _url64(json.dumps(value).encode())


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _openssl(*words: str | Path, input: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *words], input=input, capture_output=True, check=True).stdout
