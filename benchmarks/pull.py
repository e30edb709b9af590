"""A pull of a three-layer image from a registry on loopback to a root file system, beside what other tools need for the
same: `skopeo copy` to a folder, and `tar2sqfs` of the merged layers, which are given to it for nothing. In turn.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.figures import Figure, Limit, Samples
from tests.image.images import TestImage, make_image
from tests.registries import running_registry
from trio_sandbox.home import Home
from trio_sandbox.image.layers import plain_chunks
from trio_sandbox.image.layout import LayoutStore
from trio_sandbox.image.merge import merge_layers
from trio_sandbox.image.progress import Meter
from trio_sandbox.image.rootfs import PACKER, PACKER_OPTIONS
from trio_sandbox.image.sink import PipeSink

BASE = "local/base"
LIBRARY_BYTES = 60 << 20
"""Of Python's own library, in the second layer."""

BASELINE, PULL = "skopeo copy, then tar2sqfs of the merged layers", "pull to a root file system"
PEAK, LOOK_UP = "peak memory of the pulling process", "look-up of a cached image"


def measure(home: Home, rounds: int) -> tuple[dict[str, list[Figure]], list[Limit]]:
    """Tables by title, the baseline first; and what was promised of them."""
    times, memory, look_ups = Samples("ms"), Samples("MB"), Samples("ms")
    with tempfile.TemporaryDirectory() as name, running_registry(_new(Path(name) / "registry")) as registry:
        folder = Path(name)
        image = _three_layers(home)
        registry.push(image, "three:1", folder / "layout")
        _merge(folder / "layout", folder / "merged.tar")
        for _ in range(rounds):
            times.add(BASELINE, _skopeo(f"docker://{registry.host}/three:1", folder))
            done = _pull(f"{registry.host}/three:1", registry.settings(), _new(folder / "home"))
            times.add(PULL, done["pull_s"] * 1e3)
            memory.add(PEAK, done["peak_mb"])
            look_ups.add(LOOK_UP, done["look_up_ms"])
        stored = sum(len(image.blobs[digest]) for digest in image.layer_digests)
    figures = {figure.name: figure for samples in (times, memory, look_ups) for figure in samples.figures()}
    limits = [
        Limit.at_most(1.5, figures[PULL], figures[BASELINE]),
        Limit(f"{PEAK}, MB", figures[PEAK].median, most=100),
        Limit(f"{LOOK_UP}, ms", figures[LOOK_UP].median, most=5),
    ]
    return {
        f"Pull of {stored / 1e6:.0f} MB in three layers": [figures[BASELINE], figures[PULL]],
        "Memory of a pull": [figures[PEAK]],
        "Look-up": [figures[LOOK_UP]],
    }, limits


def _new(folder: Path) -> Path:
    """An empty folder of this name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _three_layers(home: Home) -> TestImage:
    """The distribution's base image, Python's library, and a layer that deletes and replaces."""
    with closing(LayoutStore.open(home.images / BASE, None)) as store:
        base = b"".join(plain_chunks(store.layer(store.image().layers[0])))
    changes = [("etc/.wh.motd", b""), ("usr/share/doc/.wh..wh..opq", b""), ("etc/issue", b"three layers\n")]
    return make_image([base, _library(), _tar(changes)], compression="gzip")


def _library() -> bytes:
    root = Path(sysconfig.get_paths()["stdlib"])

    def files() -> Iterator[tuple[str, bytes]]:
        taken = 0
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink() and taken < LIBRARY_BYTES:
                data = path.read_bytes()
                taken += len(data)
                yield f"opt/python/{path.relative_to(root)}", data

    return _tar(files())


def _tar(files: Iterator[tuple[str, bytes]] | list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _merge(layout: Path, target: Path) -> None:
    with closing(LayoutStore.open(layout, None)) as store, target.open("wb") as file:
        sink = PipeSink(file.fileno())
        merge_layers(store.image().layers, store.layer, sink, Meter(threaded=False))
        sink.flush()


def _skopeo(source: str, folder: Path) -> float:
    copied = _new(folder / "copied")
    began = time.perf_counter()
    argv = ["skopeo", "copy", "--quiet", "--insecure-policy", "--src-tls-verify=false", source, f"dir:{copied}"]
    subprocess.run(argv, check=True)
    with (folder / "merged.tar").open("rb") as merged:
        subprocess.run([PACKER, *PACKER_OPTIONS, folder / "squashfs"], stdin=merged, check=True)
    return (time.perf_counter() - began) * 1e3


def _pull(reference: str, settings: str, home: Path) -> dict[str, float]:
    (home / "registries.toml").write_text(settings)
    argv = [sys.executable, "-m", "benchmarks.pull_once", reference, str(home)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
    told: dict[str, float] = json.loads(done.stdout)
    return told
