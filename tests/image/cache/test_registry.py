"""The cache in front of a registry that nobody here wrote."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.image.cache.remotes import Events
from tests.image.images import Item, TestImage, layer_tar, make_image
from tests.registries import PASSWORD, USER, LoopbackRegistry, running_registry
from trio_sandbox.cli.program import run
from trio_sandbox.config import PullPolicy
from trio_sandbox.errors import ImageNotFoundError, ImagePullError
from trio_sandbox.home import Home
from trio_sandbox.image.cache import work
from trio_sandbox.image.cache.blobs import BlobCache
from trio_sandbox.image.cache.catalog import Catalog
from trio_sandbox.pull_event import PullEvent
from trio_sandbox.registry_auth import RegistryAuth

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]


def demo(text: str) -> TestImage:
    return make_image([layer_tar([Item("noise", os.urandom(300_000))]), layer_tar([Item("a", text.encode())])])


@pytest.fixture
def reached(home: Home, registry: LoopbackRegistry) -> LoopbackRegistry:
    """The registry, which this data folder knows how to reach."""
    home.root.mkdir()
    (home.root / "registries.toml").write_text(registry.settings())
    return registry


async def test_a_moved_tag(home: Home, reached: LoopbackRegistry, tmp_path: Path) -> None:
    name, events = f"{reached.host}/cache/moved:1", Events()
    first, second = demo("first"), demo("second")
    reached.push(first, "cache/moved:1", tmp_path / "first")
    with pytest.raises(ImageNotFoundError, match="pull policy is 'never'"):
        await work.pull(name, home, policy=PullPolicy.NEVER)
    assert await work.pull(name, home, on_pull=events) == [name]
    assert events.all[0].event_type == "resolving"
    assert events.all[1].total_download_bytes == sum(len(first.blobs[digest]) for digest in first.layer_digests)
    assert events.types().count("layer_download_verifying") == 2
    assert events.all[-1].event_type == "complete"
    reached.push(second, "cache/moved:1", tmp_path / "second")
    for policy, means in (
        (PullPolicy.IF_MISSING, first),
        (PullPolicy.NEVER, first),
        (PullPolicy.ALWAYS, second),
        (PullPolicy.NEVER, second),
    ):
        await work.pull(name, home, policy=policy)
        assert Catalog(home).find(name, name).contents.manifest.digest == means.index[0]["digest"]


async def test_by_digest(home: Home, reached: LoopbackRegistry, tmp_path: Path) -> None:
    image = demo("by digest")
    reached.push(image, "cache/digest:1", tmp_path / "image")
    digest = image.index[0]["digest"]
    (reference,) = await work.pull(f"{reached.host}/cache/digest:ignored@{digest}", home)
    assert reference == f"{reached.host}/cache/digest@{digest}"


async def test_what_a_registry_does_not_have(home: Home, reached: LoopbackRegistry) -> None:
    with pytest.raises(ImageNotFoundError):
        await work.pull(f"{reached.host}/cache/none:1", home)
    with (home.root / "registries.toml").open("a") as file:
        file.write('[registry."127.0.0.1:1"]\nretries = 0\n')
    with pytest.raises(ImagePullError):
        await work.pull("127.0.0.1:1/nobody/is:here", home)
    assert list(BlobCache(home).digests()) == []


PULL = """
import sys, trio
from pathlib import Path
from trio_sandbox.home import Home
from trio_sandbox.image.cache import work
trio.run(work.pull, sys.argv[2], Home(Path(sys.argv[1])))
"""


def blobs_sent(log: Path) -> list[str]:
    """The digests of the blobs that a registry has sent, once for each time."""
    return re.findall(r'"GET /v2/\S+/blobs/(sha256:[0-9a-f]{64}) HTTP/1.1" 20[06] ', log.read_text())


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[LoopbackRegistry]:
    folder = tmp_path / "registry"
    folder.mkdir()
    with running_registry(folder) as running:
        yield running


async def test_processes_that_pull_at_once_ask_for_each_layer_once(
    home: Home, logged: LoopbackRegistry, tmp_path: Path
) -> None:
    image = demo("once")
    logged.push(image, "cache/once:1", tmp_path / "image")
    home.root.mkdir()
    (home.root / "registries.toml").write_text(logged.settings())
    log = tmp_path / "registry" / "log"
    before = len(blobs_sent(log))
    argv = [sys.executable, "-c", PULL, str(home.root), f"{logged.host}/cache/once:1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen(argv, env=environment) for _ in range(4)]
    assert [await trio.to_thread.run_sync(process.wait) for process in processes] == [0] * 4
    sent = blobs_sent(log)[before:]
    assert sorted(digest for digest in sent if digest in image.layer_digests) == sorted(image.layer_digests)


async def test_credentials_are_used_and_not_kept(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    with running_registry(folder, basic=True) as locked:
        locked.push(demo("locked"), "cache/locked:1", tmp_path / "image")
        home.root.mkdir()
        (home.root / "registries.toml").write_text(locked.settings())
        name = f"{locked.host}/cache/locked:1"
        with pytest.raises(ImagePullError):
            await work.pull(name, home)
        with pytest.raises(ImagePullError) as caught:
            await work.pull(name, home, auth=RegistryAuth(USER, "wrong-word"))
        assert "wrong-word" not in str(caught.value)
        await work.pull(name, home, auth=RegistryAuth(USER, PASSWORD))
    for path in home.root.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes()


async def test_a_pull_that_is_cancelled_goes_on_later(home: Home, reached: LoopbackRegistry, tmp_path: Path) -> None:
    image = demo("cancelled")
    reached.push(image, "cache/cancelled:1", tmp_path / "image")
    name = f"{reached.host}/cache/cancelled:1"

    def told(event: PullEvent) -> None:
        if event.layer_index is not None:
            scope.cancel()

    with trio.CancelScope() as scope:
        await work.pull(name, home, on_pull=told)
    assert scope.cancelled_caught
    assert Catalog(home).all() == []
    await work.pull(name, home)
    assert Catalog(home).find(name, name).contents.manifest.digest == image.index[0]["digest"]


def test_from_the_command_line(
    home: Home,
    reached: LoopbackRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = demo("command line")
    reached.push(image, "cache/cli:1", tmp_path / "image")
    monkeypatch.setenv("TRIO_SANDBOX_HOME", str(home.root))
    name, digest = f"{reached.host}/cache/cli:1", image.index[0]["digest"]
    assert run(["pull", name]) == 0
    assert capsys.readouterr().out == f"{name} {digest}\n"
    (home.root / "registries.toml").write_text("")  # over TLS, which this registry does not speak, nobody is reached
    assert run(["pull", "--if-missing", "--json", name]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["reference"], told["manifest_digest"]) == (name, digest)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert run(["pull", name, "--username", "ann", "--password-stdin"]) == 1
    assert "password: must be str, not empty" in capsys.readouterr().err
