"""Docker's config file and its credential helpers."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.registry import credentials
from trio_sandbox.image.registry.credentials import Credentials, DockerConfig, find_credentials
from trio_sandbox.image.registry.failures import Refused
from trio_sandbox.registry_auth import RegistryAuth

pytestmark = pytest.mark.anyio


def config(document: object) -> DockerConfig:
    return DockerConfig.parse(json.dumps(document).encode())


def login(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("a.test", "a.test"),
        ("https://a.test/v1/", "a.test"),
        ("http://a.test:5000", "a.test:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
    ],
)
def test_keys(key: str, registry: str) -> None:
    found = config({"auths": {key: {"auth": login("ann:pass:word")}, "other.test": {"auth": login("x:y")}}})
    assert found.entry(registry) == Credentials("ann", "pass:word")
    assert found.entry("no.test") is None


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"username": "ann", "password": "p"}, Credentials("ann", "p")),
        ({"identitytoken": "t"}, Credentials(identity_token="t")),
        ({"auth": login("ann:"), "identitytoken": "t"}, Credentials("ann", "", "t")),
        ({"registrytoken": "t"}, Credentials(bearer_token="t")),
        ({"auth": login("ann:p\0\0")}, Credentials("ann", "p")),
        ({}, None),
        ({"auth": "%"}, None),
        ({"auth": base64.b64encode(b"\xff:\xff").decode()}, None),
        ({"auth": 5, "username": []}, None),
        ("text", None),
        (None, None),
    ],
)
def test_entries(entry: object, found: Credentials | None) -> None:
    assert config({"auths": {"a.test": entry}}).entry("a.test") == found


def test_nothing_secret_is_shown() -> None:
    secret = "s3cret"
    values = [
        Credentials(secret[:0] + "ann", secret, secret, secret),
        Credentials.of(RegistryAuth("ann", secret)),
        RegistryAuth("ann", secret),
        config({"auths": {"a.test": {"auth": login(f"ann:{secret}"), "password": secret}}}),
    ]
    for value in values:
        assert secret not in repr(value) and secret not in str(value)
        assert login(f"ann:{secret}") not in repr(value)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff"])
def test_a_file_that_is_none(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ImageFault):
        DockerConfig.parse(data)
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(Refused, match=r"config\.json"):
        DockerConfig.load(tmp_path / "config.json")


def test_no_file(tmp_path: Path) -> None:
    assert DockerConfig.load(tmp_path / "config.json") == DockerConfig()
    with pytest.raises(Refused):
        DockerConfig.load(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["auths", "credHelpers", "credsStore"]), JSON))
def test_any_document(document: object) -> None:
    found = config(document)
    found.entry("a.test")
    assert found.store is None or isinstance(found.store, str)


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the text of docker-credential-test goes."""
    path = tmp_path / "docker-credential-test"
    path.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return path


STORE = config({"credsStore": "test", "auths": {"a.test": {"auth": login("file:pw")}}})
FROM_FILE = Credentials("file", "pw")


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ('read -r host\necho \'{"Username":"\'$1-$host\'","Secret":"s"}\'', Credentials("get-a.test", "s")),
        ('echo \'{"Username":"<token>","Secret":"s"}\'', Credentials(identity_token="s")),
        ("cat >/dev/null; echo credentials not found in native keychain; exit 1", FROM_FILE),
        ("echo nonsense", FROM_FILE),
        ('echo \'{"Username":"x"}\'', FROM_FILE),
        ("echo '[]'", FROM_FILE),
        ('exec 0<&-; echo \'{"Username":"a","Secret":"s"}\'; exit 3', FROM_FILE),
        ("yes", FROM_FILE),
        ("echo oops >&2; head -c 100000 /dev/zero", FROM_FILE),
    ],
)
async def test_helpers(helper: Path, script: str, found: Credentials) -> None:
    helper.write_text(f"#!/bin/sh\n{script}\n")
    assert await find_credentials("a.test", STORE) == found


async def test_a_helper_of_one_host(helper: Path) -> None:
    helper.write_text('#!/bin/sh\nread -r host\necho \'{"Username":"\'$host\'","Secret":"s"}\'\n')
    found = config({"credHelpers": {"a.test": "test"}, "auths": {"b.test": {"auth": login("file:pw")}}})
    assert await find_credentials("a.test", found) == Credentials("a.test", "s")
    assert await find_credentials("b.test", found) == FROM_FILE
    hub = config({"credHelpers": {"docker.io": "test"}})
    assert await find_credentials("docker.io", hub) == Credentials("https://index.docker.io/v1/", "s")


@pytest.mark.parametrize("name", ["absent", "../test", "a/b", "", "-x\n"])
async def test_a_helper_that_is_not_there(helper: Path, name: str) -> None:
    helper.write_text('#!/bin/sh\necho \'{"Username":"a","Secret":"s"}\'\n')
    assert await find_credentials("a.test", config({"credsStore": name})) is None


async def test_a_helper_that_hangs(helper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "HELPER_TIMEOUT", 0.05)
    helper.write_text("#!/bin/sh\nsleep 600 & echo half; wait\n")
    began = time.monotonic()
    assert await find_credentials("a.test", STORE) == FROM_FILE
    assert time.monotonic() - began < 60


async def test_a_cancelled_helper_is_gone(helper: Path, tmp_path: Path) -> None:
    helper.write_text(f"#!/bin/sh\necho $$ >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 600\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(find_credentials, "a.test", STORE)
        while not (tmp_path / "pid").exists():
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
