"""Images as another tool writes them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.image.images import Item, folder, hardlink, layer_tar, make_image, write_layout
from trio_sandbox.home import Home
from trio_sandbox.image.rootfs import prepare_rootfs

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed"),
    pytest.mark.skipif(shutil.which("tar2sqfs") is None, reason="tar2sqfs is not installed"),
]

LAYERS = [
    layer_tar([folder("d"), Item("d/a", b"1" * 5000), hardlink("l", "d/a")]),
    layer_tar([Item("d/.wh.a"), Item("b", b"2")]),
]


@pytest.fixture
def source(tmp_path: Path) -> str:
    image = make_image(LAYERS, compression="gzip", config={"Env": ["A=1"]}, tag="one")
    return f"oci:{write_layout(tmp_path / 'source', image)}:one"


def copy(source: str, target: str, *options: str) -> None:
    argv = ["skopeo", "copy", "--insecure-policy", *options, source, target]
    subprocess.run(argv, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("transport", "options"),
    [
        ("oci", []),
        ("oci", ["--dest-oci-accept-uncompressed-layers", "--dest-decompress"]),
        ("oci-archive", []),
        ("oci-archive", ["--dest-compress-format=zstd"]),
        ("docker-archive", []),
    ],
)
async def test_what_skopeo_writes(tmp_path: Path, source: str, transport: str, options: list[str]) -> None:
    target = tmp_path / "target"
    copy(
        source,
        f"{transport}:{target}:demo:latest" if transport == "docker-archive" else f"{transport}:{target}:demo",
        *options,
    )
    home = Home(tmp_path / "home")
    root = await prepare_rootfs(f"{target}:demo" if transport != "docker-archive" else target, home)
    assert root.config.env == ("A=1",)
    assert root.path == (await prepare_rootfs(tmp_path / "source", home)).path
