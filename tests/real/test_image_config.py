"""What images say about their programs, on real machines: the layers of local/base under words of our own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trio_sandbox import Sandbox, open_sandbox
from trio_sandbox.home import Home

from ..processes import ended
from .traces import leaving_nothing

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
RUN = [sys.executable, "-m", "trio_sandbox", "run"]
WORDS = {
    "Env": ["COLOUR=image", "SHAPE=image", "PATH=/opt/image:/usr/bin:/bin"],
    "WorkingDir": "/srv/made/by/need",
    "User": "nobody:daemon",
    "Entrypoint": ["/bin/sh", "-c", 'echo "$0" "$@"; exit 3', "entry"],
    "Cmd": ["one", "two"],
    "Labels": {"tier": "image", "kind": "web", "not a label's name": "x", "surrogate": "\ud800"},
    "StopSignal": "SIGUSR1",
}
Build = Callable[..., str]


def link_or_copy(source: str, target: str) -> None:
    """The layers are large; but a temporary folder may be on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@pytest.fixture
def build(tmp_path: Path, home: Home) -> Build:
    """Makes a layout with the layers of local/base and another configuration; where it is."""
    base = home.root / "images" / "local" / "base"

    def blob(value: object, blobs: Path) -> dict[str, Any]:
        data = json.dumps(value).encode()
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"digest": f"sha256:{name}", "size": len(data)}

    def build(**words: Any) -> str:
        folder = tmp_path / "layout"
        shutil.copytree(base, folder, copy_function=link_or_copy)
        blobs = folder / "blobs" / "sha256"
        index = json.loads((folder / "index.json").read_text())
        manifest = json.loads((blobs / index["manifests"][0]["digest"].partition(":")[2]).read_text())
        config = json.loads((blobs / manifest["config"]["digest"].partition(":")[2]).read_text())
        manifest["config"].update(blob({**config, "config": words}, blobs))
        index["manifests"][0].update(blob(manifest, blobs))
        (folder / "index.json").unlink()
        (folder / "index.json").write_text(json.dumps(index))
        return str(folder)

    return build


async def test_all_that_an_image_says_is_heeded(build: Build) -> None:
    name = f"config-{os.getpid()}"
    async with await Sandbox.create(name, image=build(**WORDS), memory=256, labels={"tier": "own"}) as sandbox:
        said = await sandbox.shell("echo $COLOUR $SHAPE $PATH; pwd; id -un; id -gn; stat -c '%U %a' .")
        assert said.stdout_text.splitlines() == [
            "image image /opt/image:/usr/bin:/bin:/.msb/bin",
            *("/srv/made/by/need", "nobody", "daemon", "root 755"),
        ]
        output = await sandbox.exec_default()
        assert (output.exit_code, output.stdout_text) == (3, "entry one two\n")
        assert (await sandbox.exec_default(["three"])).stdout_text == "entry three\n"
        assert (await sandbox.exec_default([], user="root", cwd="/")).stdout_text == "entry\n"
        async with await sandbox.exec_default_stream(["four"]) as running:
            assert (await running.collect()).stdout_text == "entry four\n"
        (handle,) = [handle for handle in await Sandbox.list({"kind": "web"}) if handle.name == name]
        assert handle.labels == {"tier": "own", "kind": "web"}


async def test_the_options_of_the_sandbox_count_more_and_those_of_the_call_most(build: Build) -> None:
    options: dict[str, Any] = {"workdir": "/usr", "user": "root", "env": {"COLOUR": "sandbox"}, "memory": 256}
    async with open_sandbox("config", image=build(**WORDS), entrypoint=["echo", "own"], **options) as sandbox:
        said = await sandbox.shell("echo $COLOUR $SHAPE; pwd; id -un")
        assert said.stdout_text == "sandbox image\n/usr\nroot\n"
        said = await sandbox.shell("echo $COLOUR; pwd; id -un", env={"COLOUR": "call"}, cwd="/bin", user="daemon")
        assert said.stdout_text == "call\n/usr/bin\ndaemon\n"
        assert (await sandbox.exec_default()).stdout_text == "own\n"
        assert (await sandbox.exec_default(["x"])).stdout_text == "own x\n"


@pytest.mark.parametrize(("word", "caught"), [("SIGRTMIN+3", "37"), ("", "TERM")])
async def test_a_stop_begins_with_the_images_signal(build: Build, word: str, caught: str) -> None:
    script = f"trap 'echo caught > /root/caught; exit' {caught}; echo up; while :; do sleep 0.05; done"
    name = f"config-stop-{os.getpid()}"
    async with await Sandbox.create(name, image=build(StopSignal=word), memory=256) as sandbox:
        async with await sandbox.shell_stream(script) as program:
            while (event := await program.recv()) is not None and event.data != b"up\n":
                pass
            await sandbox.stop()
        async with await Sandbox.start(name) as sandbox:
            assert await sandbox.fs.read_text("/root/caught") == "caught\n"


def run(*words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*RUN, *words], capture_output=True, cwd=ROOT, stdin=subprocess.DEVNULL, **options)


def test_an_image_is_run_by_its_name_alone(build: Build, home: Home) -> None:
    image = build(**WORDS)
    with leaving_nothing(home):
        done = run(image)
        assert (done.returncode, done.stdout) == (3, b"entry one two\n"), done.stderr
        assert run(image, "three", "-x").stdout == b"entry three -x\n"
        assert run("--entrypoint", "id", image).stdout.startswith(b"uid=65534(nobody)")
        done = run("--entrypoint", "", image)
        assert done.returncode == 125 and b"names no command" in done.stderr


def test_signals_and_a_terminal_reach_what_the_image_runs(build: Build, home: Home) -> None:
    image = build(Entrypoint=["/bin/sh", "-c"], Cmd=["echo up; [ -t 0 ] && exit 7; sleep 1000"])
    with leaving_nothing(home):
        with ended(subprocess.Popen([*RUN, image], stdout=subprocess.PIPE, cwd=ROOT)) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            process.send_signal(signal.SIGINT)
        assert process.returncode == 128 + signal.SIGINT
        done = run("-t", image)
        assert (done.returncode, done.stdout) == (7, b"up\r\n"), done.stderr
