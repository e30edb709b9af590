"""Building `local/base`, with a stand-in for mmdebstrap; the real one runs in set-up and in `make run`."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import trio

from tests.image.images import Item, folder, layer_tar
from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.home import Home
from trio_sandbox.image import apt_sources, base, bootstrap
from trio_sandbox.image.apt_sources import AptSources, host_sources, release_codename, source_lines
from trio_sandbox.image.base import base_image_present, build_base_image
from trio_sandbox.image.oci import digest_of
from trio_sandbox.image.reference import locate_image
from trio_sandbox.tools import ToolError

pytestmark = pytest.mark.anyio

TAR = layer_tar([folder("bin"), Item("bin/sh", b"shell")])
SOURCES = AptSources("bookworm", ("deb http://mirror.example/debian bookworm main",), {"http_proxy": "http://p:1"})


@attrs.frozen
class FakeBootstrap:
    """A program in the place of mmdebstrap: says what it does, takes its input, writes TAR; `also` runs before that."""

    folder: Path

    def write(self, also: str = "") -> None:
        (self.folder / "layer.tar").write_bytes(TAR)
        program = self.folder / "mmdebstrap"
        program.write_text(
            "#!/bin/sh\n"
            f'echo "$@" >{self.folder}/arguments; cat >{self.folder}/input; env >{self.folder}/environment\n'
            'mkdir "$TMPDIR/mmdebstrap.fake"; touch "$TMPDIR/mmdebstrap.fake/file"\n'
            'echo "I: running apt-get update..." >&2\necho "I: done" >&2\n'
            f'{also}\ncat {self.folder}/layer.tar; rm -r "$TMPDIR/mmdebstrap.fake"\n'
        )
        program.chmod(0o755)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBootstrap:
    async def sources() -> AptSources:
        return SOURCES

    monkeypatch.setattr(base, "host_sources", sources)
    monkeypatch.setattr(bootstrap, "SEARCH_PATH", f"{tmp_path}:{bootstrap.SEARCH_PATH}")
    fake = FakeBootstrap(tmp_path)
    fake.write()
    return fake


@pytest.fixture(params=["tmpfs", "disk", "bare"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The places in which mmdebstrap may work; without namespaces it is bare."""
    if request.param == "bare":
        monkeypatch.setattr(bootstrap, "_NAMESPACES", ("false",))
    elif os.geteuid() != 0:
        pytest.skip("without root, namespaces need mapped user ids")
    if request.param == "disk":
        monkeypatch.setattr(bootstrap, "TMPFS_NEEDS_BYTES", 1 << 60)
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def files_in(home: Home) -> list[str]:
    files = (path.relative_to(home.root) for path in home.root.rglob("*") if path.is_file())
    return sorted(str(path) for path in files if path.name != "locks")


async def test_it_is_built(home: Home, fake: FakeBootstrap, place: str) -> None:
    assert not base_image_present(home)
    reports = []
    await build_base_image(home, progress=lambda *report: reports.append(report))
    assert reports == [
        ("building local/base: running apt-get update", 1, None),
        ("building local/base: storing the layer", 2, None),
    ]
    assert base_image_present(home)
    assert locate_image("local/base", home).is_folder
    assert locate_image("local/base:latest", home).is_folder
    assert len(files_in(home)) == 5
    assert list(home.scratch.iterdir()) == []
    assert list(bootstrap.TMPFS.glob("mmdebstrap*")) == []
    arguments = (fake.folder / "arguments").read_text()
    assert "--variant=minbase" in arguments
    assert arguments.endswith(" bookworm - -\n")
    assert (fake.folder / "input").read_text() == SOURCES.lines[0] + "\n"
    environment = (fake.folder / "environment").read_text().splitlines()
    assert {"http_proxy=http://p:1", f"SOURCE_DATE_EPOCH={bootstrap.EPOCH}"} <= set(environment)


async def test_building_again_keeps_only_the_new_image(home: Home, fake: FakeBootstrap) -> None:
    await build_base_image(home)
    before = files_in(home)
    await build_base_image(home)
    assert files_in(home) == before
    (home.images / "local" / "base" / ".index.json.0123abcd").touch()
    fake.write(also=f"printf x >>{fake.folder}/layer.tar")
    await build_base_image(home)
    assert len(files_in(home)) == 5
    assert files_in(home) != before
    assert base_image_present(home)


async def test_a_damaged_image_is_not_present_and_is_repaired(home: Home, fake: FakeBootstrap) -> None:
    await build_base_image(home)
    layer = home.images / "local" / "base" / "blobs" / "sha256" / digest_of(TAR)[7:]
    for damage in (b"short", None):
        if damage is None:
            layer.unlink()
        else:
            layer.write_bytes(damage)
        assert not base_image_present(home)
        await build_base_image(home)
        assert base_image_present(home)


async def test_a_failure_leaves_the_old_image(home: Home, fake: FakeBootstrap, place: str) -> None:
    await build_base_image(home)
    before = files_in(home)
    fake.write(also="echo 'E: no mirror' >&2; exit 7")
    with pytest.raises(ToolError, match="no mirror") as caught:
        await build_base_image(home)
    assert caught.value.returncode == 7
    assert files_in(home) == before
    assert base_image_present(home)


async def test_cancellation_leaves_nothing(home: Home, fake: FakeBootstrap, place: str) -> None:
    fake.write(also="sleep 1000")
    descriptors = len(os.listdir("/proc/self/fd"))
    with trio.CancelScope() as scope:
        await build_base_image(home, progress=lambda *report: scope.cancel())
    assert scope.cancelled_caught
    assert files_in(home) == []
    assert list(home.scratch.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # Trio's own wake-up pipe may come late
    fake.write()
    await build_base_image(home)


@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0,
    reason="mounting needs root",
)
def test_a_remainder_with_mounts_in_it_is_not_removed(tmp_path: Path) -> None:
    """It would be the host's own /dev that is removed."""
    script = """
import sys, trio
from pathlib import Path
from trio_sandbox.image import bootstrap
left = Path(sys.argv[1])
print(bootstrap._remove(left), (left / "dev" / "file").exists())
"""
    (tmp_path / "link").symlink_to(tmp_path / "a\\ b")
    device = Home(tmp_path / "a\\ b").scratch / "mmdebstrap" / "dev"
    device.mkdir(parents=True)
    mount = 'mount -t tmpfs tmpfs "$0" && touch "$0/file" && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", mount, str(device), sys.executable, "-c", script]
    argv.append(str(tmp_path / "link" / "scratch" / "mmdebstrap"))
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "False True\n"
    assert bootstrap._remove(device.parent)
    assert not device.parent.exists()


CHILD = """
import sys, trio
from pathlib import Path
from trio_sandbox.home import Home
from trio_sandbox.image import base, bootstrap
from trio_sandbox.image.apt_sources import AptSources

async def sources():
    return AptSources("bookworm", ("deb http://mirror.example/debian bookworm main",))

base.host_sources = sources
bootstrap.SEARCH_PATH = sys.argv[2] + ":" + bootstrap.SEARCH_PATH
if sys.argv[3] == "bare":
    bootstrap._NAMESPACES = ("false",)
if sys.argv[3] == "disk":
    bootstrap.TMPFS_NEEDS_BYTES = 1 << 60

def progress(*report):
    print("progress", flush=True)

trio.run(lambda: base.build_base_image(Home(Path(sys.argv[1])), progress=progress))
"""


async def test_a_build_that_is_killed_leaves_nothing(home: Home, fake: FakeBootstrap, place: str) -> None:
    fake.write(also="exec sleep 1000")
    argv = [sys.executable, "-c", CHILD, str(home.root), str(fake.folder), place]
    child = subprocess.Popen(  # noqa: ASYNC220
        argv, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()}
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "progress\n"
    below = [os.pidfd_open(pid) for pid in descendants(child.pid)]
    assert below
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    for pidfd in below:
        assert select.select([pidfd], [], [], 10)[0], "a process of the build outlived its owner"
        os.close(pidfd)
    # On disk there is a remainder, until the next build; a real mmdebstrap that gets SIGTERM (bare) removes its own.
    assert files_in(home) == ([] if place == "tmpfs" else ["scratch/mmdebstrap/mmdebstrap.fake/file"])
    fake.write()
    await build_base_image(home)
    assert list(home.scratch.iterdir()) == []


def descendants(pid: int) -> list[int]:
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(grandchild for child in children for grandchild in descendants(child))]


# --- the host's own sources


def test_sources_of_the_host_are_chosen() -> None:
    targets = [
        "http://m/debian/|oldstable|bookworm|main|Debian|Packages",
        "http://m/debian/|oldstable|bookworm|main|Debian|Packages",
        "http://m/debian/|oldstable|bookworm|non-free|Debian|Packages",
        "http://m/sec/|oldstable-security|bookworm-security|main|Debian|Packages",
        "http://m/debian/|oldstable-updates|bookworm-updates|main|Debian|Packages",
        "http://m/debian/|testing|trixie|main|Debian|Packages",
        "https://third.example/|bookworm|bookworm|main|Third|Packages",
        "nonsense",
    ]
    assert source_lines(targets, "bookworm") == (
        "deb http://m/debian/ bookworm main",
        "deb http://m/debian/ bookworm-updates main",
        "deb http://m/sec/ bookworm-security main",
    )
    bare = [
        "http://u/ubuntu/|noble|$(CODENAME)|main|$(ORIGIN)|Packages",
        "http://t/|stable|$(CODENAME)|main|$(ORIGIN)|P",
    ]
    assert source_lines(bare, "noble") == ("deb http://u/ubuntu/ noble main",)


@pytest.mark.parametrize(
    ("text", "codename"),
    [
        ("ID=debian\nVERSION_CODENAME=bookworm\n", "bookworm"),
        ('ID=linuxmint\nVERSION_CODENAME="wilma"\nUBUNTU_CODENAME=noble\n', "noble"),
    ],
)
def test_codenames(tmp_path: Path, text: str, codename: str) -> None:
    (tmp_path / "os-release").write_text(text)
    assert release_codename(tmp_path / "os-release") == codename


async def test_a_host_that_is_something_else(
    tmp_path: Path, home: Home, fake: FakeBootstrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt_sources, "OS_RELEASE", tmp_path / "none")
    with pytest.raises(HostNotReadyError, match="Debian or Ubuntu"):
        await host_sources()
    (tmp_path / "none").write_text("VERSION_CODENAME=forty\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostNotReadyError, match="no apt"):
        await host_sources()
    monkeypatch.setattr(bootstrap, "SEARCH_PATH", "/nonexistent")
    with pytest.raises(HostNotReadyError, match="setpriv"):
        await build_base_image(home)
    assert files_in(home) == []
