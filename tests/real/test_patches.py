"""Patches and scripts on real machines: an overlay beneath, mounts to be led into, restarts, clones."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from trio_sandbox import Patch, PatchConfig, PatchFailedError, Sandbox, open_sandbox
from trio_sandbox.home import Home

from .traces import leaving_nothing

pytestmark = pytest.mark.anyio


async def test_what_the_first_program_finds(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "tool").write_bytes(os.urandom(3 << 20))
    (tmp_path / "tree" / "deep" / "tool").chmod(0o6755)  # setuid does not travel, unless somebody says so
    patches = [
        Patch.append("/etc/os-release", "PATCHED=yes\n"),  # a link of the image, to a file in a lower layer
        Patch.text("/etc/passwd", "root:x:0:0::/root:/bin/sh\n", replace=True),
        Patch.remove("/usr/share/doc"),
        Patch.copy_dir(tmp_path / "tree", "/opt/tree"),
        Patch.copy_file(tmp_path / "tree" / "deep" / "tool", "/opt/tool", mode=0o4711),
        Patch.text("/opt/large", "ä" * 1_000_000, mode=0o400),
        Patch.symlink("/opt/tool", "/bin/tool"),  # through the image's link /bin
        Patch.mkdir("/opt/sticky", mode=0o1777),
    ]
    script = (
        "tail -1 /usr/lib/os-release; cat /etc/passwd; ls -d /usr/share/doc || :; readlink /usr/bin/tool;"
        "stat -c '%n %s %a %u:%g' /opt/large /opt/sticky /opt/tool /opt/tree /opt/tree/deep/tool; touch /etc/passwd"
    )
    async with open_sandbox("patched", image="local/base", patches=patches) as sandbox:
        assert "spawned" in sandbox.timings, "it booted cold"
        sizes = {"/opt/sticky": None, "/opt/tree": None}
        said = (await sandbox.shell(script)).stdout_text.splitlines()
        assert said[:3] == ["PATCHED=yes", "root:x:0:0::/root:/bin/sh", "/opt/tool"]
        found = [line.split() for line in said[3:]]
        assert [[name, *(["-"] if name in sizes else [size]), *rest] for name, size, *rest in found] == [
            ["/opt/large", "2000000", "400", "0:0"],
            ["/opt/sticky", "-", "1777", "0:0"],
            ["/opt/tool", str(3 << 20), "4711", "0:0"],
            ["/opt/tree", "-", oct((tmp_path / "tree").stat().st_mode & 0o777)[2:], "0:0"],
            ["/opt/tree/deep/tool", str(3 << 20), "755", "0:0"],
        ]
        assert await sandbox.fs.read("/opt/tree/deep/tool") == (tmp_path / "tree" / "deep" / "tool").read_bytes()
    async with open_sandbox("patched", image="local/base") as sandbox:  # the image is as it was
        assert (await sandbox.shell("ls /opt/tree /usr/bin/tool")).exit_code != 0
        assert "daemon" in await sandbox.fs.read_text("/etc/passwd")


@pytest.mark.parametrize(
    ("link", "path", "number"),
    [
        ("/tmp", "/srv/x/file", errno.EXDEV),
        ("../../../../run", "/srv/x/file", errno.EXDEV),
        ("/dev", "/srv/x/null", errno.EXDEV),
        ("/proc", "/srv/x/sysrq-trigger", errno.EXDEV),
        ("/proc/self/root", "/srv/x/file", errno.EXDEV),
        ("/.msb/scripts", "/srv/x/file", errno.EXDEV),
        ("x", "/srv/x/file", errno.ELOOP),
        ("/nowhere", "/srv/x/file", errno.ENOENT),
        ("/nowhere", "/var/run/file", errno.EXDEV),  # a link that the image itself has
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


@pytest.mark.parametrize(
    "patch",
    [
        Patch.mkdir("/srv/x/shm/escaped"),
        Patch.symlink("x", "/srv/x/escaped", replace=True),
        Patch.append("/srv/x/null", "x"),
        Patch.remove("/srv/x/null"),
        Patch.copy_dir("/nothing", "/srv/x/escaped", replace=True),
    ],
    ids=lambda patch: patch.kind,
)
async def test_no_kind_of_patch_follows_a_link_off_the_disk(patch: PatchConfig, tmp_path: Path) -> None:
    if patch.src is not None:
        patch = Patch.copy_dir(tmp_path, patch.guest_path, replace=True)
    with pytest.raises(PatchFailedError, match="off the sandbox's disk") as caught:
        async with open_sandbox("led", image="local/base", patches=[Patch.symlink("/dev", "/srv/x"), patch]):
            raise AssertionError("not reached")
    assert (caught.value.index, caught.value.kind, caught.value.errno) == (1, patch.kind, errno.EXDEV)


async def test_what_patches_wrote_is_on_disk_when_the_machine_is_killed(tmp_path: Path) -> None:
    """And their sources are needed once."""
    name = f"patched-{os.getpid()}"
    (tmp_path / "source").write_text("from the host\n")
    patches = [Patch.copy_file(tmp_path / "source", "/note"), Patch.append("/etc/os-release", "PATCHED=yes\n")]
    async with await Sandbox.create(name, image="local/base", patches=patches) as sandbox:
        await sandbox.kill()
        (tmp_path / "source").unlink()
        async with await Sandbox.start(name) as again:
            assert await again.fs.read_text("/note") == "from the host\n"
            assert (await again.fs.read_text("/etc/os-release")).count("PATCHED") == 1
