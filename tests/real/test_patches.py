"""Patches, scripts and what an image says of its programs, on real machines."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from trio_sandbox import ExecFailedError, Patch, PatchConfig, PatchFailedError, Sandbox, open_sandbox
from trio_sandbox.home import Home

from .traces import leaving_nothing

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("link", "path", "number"),
    [
        ("/tmp", "/srv/x/file", errno.EXDEV),
        ("../../../../run", "/srv/x/file", errno.EXDEV),
        ("/dev", "/srv/x/null", errno.EXDEV),
        ("/proc", "/srv/x/sysrq-trigger", errno.EXDEV),
        ("/proc/self/root", "/srv/x/file", errno.EXDEV),
        ("x", "/srv/x/file", errno.ELOOP),
    ],
)
async def test_no_link_of_an_image_leads_off_its_disk(home: Home, link: str, path: str, number: int) -> None:
    """A link that an earlier patch made is as good as one of the image."""
    with leaving_nothing(home), pytest.raises(PatchFailedError) as caught:
        async with open_sandbox(
            "led", image="local/base", patches=[Patch.symlink(link, "/srv/x"), Patch.text(path, "x")]
        ):
            raise AssertionError("not reached")
    assert (caught.value.index, caught.value.path, caught.value.errno) == (1, path, number)


@pytest.mark.parametrize("patch", [Patch.text("/srv/l", "x"), Patch.mkdir("/srv/l/a"), Patch.append("/srv/l", "x")])
async def test_a_link_that_leads_out_of_the_root_stays_in_it(patch: PatchConfig) -> None:
    """`..` above the root is the root, as in any root."""
    before = [Patch.text("/srv/t", "t"), Patch.symlink("../../../../../srv/t", "/srv/l")]
    if patch.kind == "append":
        async with open_sandbox("stays", image="local/base", patches=[*before, patch]) as sandbox:
            assert await sandbox.fs.read("/srv/t") == b"tx"
    else:
        with pytest.raises(PatchFailedError):
            async with open_sandbox("stays", image="local/base", patches=[*before, patch]):
                raise AssertionError("not reached")


async def test_what_a_failing_patch_leaves(home: Home) -> None:
    with leaving_nothing(home):
        with pytest.raises(PatchFailedError, match="replace=True") as caught:
            await Sandbox.create("failing", image="local/base", patches=[Patch.text("/etc/passwd", "x")])
    assert (caught.value.index, caught.value.kind, caught.value.path) == (0, "text", "/etc/passwd")
    assert "failing" not in [handle.name for handle in await Sandbox.list()]


async def test_patches_are_applied_once_and_scripts_at_every_start() -> None:
    sb = await Sandbox.create(
        "patched",
        image="local/base",
        patches=[Patch.text("/etc/patched", "by us\n"), Patch.append("/etc/patched", "twice?\n")],
        scripts={"whoami-here": "id -un; echo $1", "py": "#!/usr/bin/python3\nprint(6 * 7)"},
    )
    async with sb:
        assert (await sb.exec("whoami-here", ["arg"])).stdout_text == "root\narg\n"
        assert (await sb.exec("py", user="nobody")).stdout_text == "42\n"
        await sb.shell("rm /.msb/scripts/py")  # of this start alone
        await sb.stop()
        async with await Sandbox.start("patched") as again:
            assert await again.fs.read_text("/etc/patched") == "by us\ntwice?\n"
            assert (await again.shell("py; whoami-here | head -1")).stdout_text == "42\nroot\n"
            assert (await again.shell("echo $PATH")).stdout_text.startswith("/.msb/scripts:")


async def test_scripts_as_large_as_they_may_be() -> None:
    scripts = {f"s{number}": "true #" + "x" * 8000 for number in range(500)}
    async with open_sandbox("scripts", image="local/base", scripts=scripts) as sandbox:
        found = await sandbox.shell(
            "ls /.msb/scripts | wc -l; s499 && echo ran; df --output=avail /.msb/scripts | tail -1"
        )
        assert found.stdout_text.splitlines()[:2] == ["500", "ran"]


def derived(home: Home, path: Path, **config: Any) -> str:
    """A layout folder with the layer of local/base and a configuration of its own."""
    shutil.copytree(home.images / "local" / "base", path, copy_function=shutil.copyfile)
    blobs = path / "blobs" / "sha256"

    def load(digest: str) -> Any:
        return json.loads((blobs / digest.removeprefix("sha256:")).read_bytes())

    def store(document: Any) -> dict[str, Any]:
        data = json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    index = json.loads((path / "index.json").read_text())
    manifest = load(index["manifests"][0]["digest"])
    image = load(manifest["config"]["digest"])
    image["config"] = config
    manifest["config"] |= store(image)
    index["manifests"][0] |= store(manifest)
    (path / "index.json").write_text(json.dumps(index))
    return str(path)


async def test_an_image_is_run_as_it_says(home: Home, tmp_path: Path) -> None:
    image = derived(
        home,
        tmp_path / "image",
        Env=["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "GREETING=hello"],
        Entrypoint=["sh", "-c", 'echo "$GREETING $(id -un) $(pwd) $*"', "sh"],
        Cmd=["from", "the image"],
        WorkingDir="/usr/share",
        User="nobody",
    )
    async with open_sandbox("image", image=image) as sandbox:
        assert (await sandbox.exec_default()).stdout_text == "hello nobody /usr/share from the image\n"
        assert (await sandbox.exec_default(["mine"])).stdout_text == "hello nobody /usr/share mine\n"
        assert (await sandbox.exec_default([], cwd="/", user="root")).stdout_text == "hello root / \n"
        async with await sandbox.exec_default_stream(env={"GREETING": "bye"}) as running:
            assert (await running.collect()).stdout_text.startswith("bye ")
    async with open_sandbox("own", image=image, entrypoint=["echo"], workdir="/", user="root") as sandbox:
        assert (await sandbox.exec_default()).stdout_text == "\n"
        assert (await sandbox.exec_default(["a"])).stdout_text == "a\n"
        assert (await sandbox.shell("pwd; id -un; echo $GREETING")).stdout_text == "/\nroot\nhello\n"
    async with open_sandbox("none", image=image, entrypoint=[]) as sandbox:
        with pytest.raises(ExecFailedError, match="names no command"):
            await sandbox.exec_default()


async def test_programs_end_by_the_images_stop_signal(home: Home, tmp_path: Path) -> None:
    image = derived(home, tmp_path / "image", Env=["PATH=/usr/bin:/bin"], StopSignal="SIGUSR1")
    sb = await Sandbox.create("stopping", image=image)
    script = (
        "trap 'echo usr1 > /root/how; exit' USR1; trap 'echo term > /root/how; exit' TERM; echo up; sleep 1000 & wait"
    )
    handle = await sb.shell_stream(script)
    while (event := await handle.recv()) is not None and event.data != b"up\n":
        pass
    await sb.stop()
    async with await Sandbox.start("stopping") as again:
        assert await again.fs.read_text("/root/how") == "usr1\n"
