"""Layouts to build root file systems from, a packer that tells of its runs, and a registry."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.images import Item, folder, hardlink, layer_tar, make_image, symlink, write_layout
from tests.registries import HAS_REGISTRY, LoopbackRegistry, running_registry
from trio_sandbox.home import Home

PACKER = shutil.which("tar2sqfs")

LAYERS = [
    layer_tar([folder("d"), Item("d/a", b"old"), Item("b", b"old"), hardlink("l", "b"), symlink("s", "d/a")]),
    layer_tar([Item("d/a", b"new" * 1000), Item("big", bytes(range(256)) * 4000)]),
]
RANDOM = random.Random(1).randbytes(12 << 20)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "layout", make_image(LAYERS, config={"Env": ["A=1"]}))


@pytest.fixture
def big_layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "big", make_image([layer_tar([Item("r", RANDOM)])], compression="gzip"))


@pytest.fixture
def packings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets the process id of every packer that runs, one a line."""
    path = tmp_path / "packings"
    path.touch()
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "tar2sqfs").write_text(f'#!/bin/sh\necho $$ >> {path}\nexec {PACKER} "$@"\n')
    (fake / "tar2sqfs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}:{os.environ['PATH']}")
    return path


def left_in(home: Home) -> list[str]:
    """The files below the home, but for the lock."""
    files = (path for path in home.root.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(home.root)) for path in files if path.name != "locks")


@pytest.fixture(autouse=True)
def unknown_to_registries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests is nobody in particular to a registry, and needs no proxy."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackRegistry]:
    """A registry by plain http that lets everybody in. Each test takes repositories of its own."""
    if not HAS_REGISTRY:
        pytest.skip("docker-registry, skopeo and openssl are not installed")
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running
