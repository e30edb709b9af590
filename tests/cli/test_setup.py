"""`trio-sandbox setup`: what it does in which order, when it does nothing, and what an interrupt leaves."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trio_sandbox.cli.program import run
from trio_sandbox.cli.setup import setup, stages
from trio_sandbox.errors import HostNotReadyError
from trio_sandbox.home import Home
from trio_sandbox.host import packages, stamp
from trio_sandbox.host.acceleration import Acceleration
from trio_sandbox.host.kernel import Kernel
from trio_sandbox.host.qemu import Qemu
from trio_sandbox.image.reference import local_image_folder


class FakeHost:
    """A machine on which each step leaves a file; `fail` names the step that is interrupted."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.did: list[str] = []
        self.fail: str | None = None

    def _do(self, step: str) -> None:
        if self.fail == step:
            raise KeyboardInterrupt
        self.did.append(step)

    def find_kernel(self, home: Home) -> Kernel | None:
        image = home.kernels / "vmlinuz"
        return Kernel(image, home.kernels, "6.1", "test 1.0") if image.exists() else None

    async def fetch_kernel(self, home: Home, progress: Callable[[str], None]) -> Kernel:
        self._do("kernel")
        progress("downloading")
        (home.kernels / "modules.dep").touch()
        (home.kernels / "vmlinuz").touch()
        kernel = self.find_kernel(home)
        assert kernel is not None
        return kernel

    async def build_initramfs(self, kernel: Kernel, home: Home) -> Path:
        path = home.initramfs / "a.cpio"
        if not path.exists():
            self._do("initramfs")
            path.write_bytes(b"cpio")
        return path

    def base_image_present(self, home: Home) -> bool:
        return (local_image_folder("base", home) / "index.json").exists()

    async def build_base_image(self, home: Home, *, progress: Callable[[str, int, int | None], None]) -> None:
        self._do("image")
        for done in range(3):
            progress("unpacking", done, 3)
        local_image_folder("base", home).mkdir(parents=True)
        (local_image_folder("base", home) / "index.json").touch()

    async def find_qemu(self, home: Home) -> Qemu:
        return Qemu(Path("/usr/bin/qemu"), "7.2")

    async def probe_acceleration(self, kernel: Kernel, initramfs: Path, home: Home, *, qemu: Qemu) -> Acceleration:
        self._do("probe")
        return Acceleration("tcg", "absent", "there is no /dev/kvm", 1)

    async def _first_sandbox(self, home: Home) -> str:
        self._do("sandbox")
        return "started"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    home = Home(tmp_path / "home")
    host = FakeHost(home)
    monkeypatch.setenv("TRIO_SANDBOX_HOME", str(home.root))
    monkeypatch.delenv("TRIO_SANDBOX_KERNEL", raising=False)
    monkeypatch.delenv("TRIO_SANDBOX_MODULES", raising=False)
    monkeypatch.setattr(packages, "requirements", lambda: ())
    for target in (
        "host.kernel.find_kernel",
        "host.kernel.fetch_kernel",
        "host.initramfs.build_initramfs",
        "host.acceleration.probe_acceleration",
        "host.qemu.find_qemu",
        "image.base.base_image_present",
        "image.base.build_base_image",
        "cli.setup._first_sandbox",
    ):
        monkeypatch.setattr(f"trio_sandbox.{target}", getattr(host, target.rpartition(".")[2]))
    return host


def call(*arguments: str) -> Result:
    return CliRunner().invoke(setup, arguments, standalone_mode=False)


def test_all_steps_with_their_times(host: FakeHost) -> None:
    result = call()
    assert result.return_value == 0
    assert host.did == ["kernel", "initramfs", "image", "probe", "sandbox"]
    lines = [re.sub(r"\d+\.\d s", "N s", line) for line in result.output.splitlines()]
    assert lines == [
        "system packages …",
        "system packages: all there (N s)",
        "kernel …",
        "  kernel: downloading",
        "kernel: 6.1 from test 1.0 (N s)",
        "initramfs …",
        "initramfs: 0.0 MB (N s)",
        "default image …",
        "  default image: unpacking",
        "default image: local/base (N s)",
        "acceleration …",
        "acceleration: tcg: there is no /dev/kvm (N s)",
        "first sandbox …",
        "first sandbox: started (N s)",
        "Ready after N s. See `trio-sandbox doctor`.",
    ]


def test_the_second_time_does_nothing(host: FakeHost) -> None:
    call()
    host.did.clear()
    result = call()
    assert (result.return_value, host.did) == (0, [])
    assert result.output == f"Ready: everything is in {host.home.root}.\n"


def test_what_went_missing_is_made_again(host: FakeHost) -> None:
    call()
    host.did.clear()
    (host.home.initramfs / "a.cpio").unlink()
    call()
    assert host.did == ["initramfs", "probe", "sandbox"]


@pytest.mark.parametrize("step", ["kernel", "initramfs", "image", "probe"])
def test_an_interrupt_is_told_and_the_next_run_goes_on(
    step: str, host: FakeHost, capsys: pytest.CaptureFixture[str]
) -> None:
    host.fail = step
    assert run(["setup"]) == 130
    assert capsys.readouterr().err.strip() == "trio-sandbox: interrupted"
    assert not stamp.holds(host.home.root)
    before = list(host.did)
    host.fail = None
    assert run(["setup"]) == 0
    assert [*before, *host.did[len(before) :]] == ["kernel", "initramfs", "image", "probe", "sandbox"]
    assert stamp.holds(host.home.root)


ABSENT = packages.Requirement("tar2sqfs", "images", ("squashfs-tools-ng",), ("no-such-program",))


def test_missing_packages_with_nobody_to_ask(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "requirements", lambda: (ABSENT,))
    monkeypatch.setattr(packages, "install", lambda *_, **__: pytest.fail("nothing may be installed"))
    result = call()
    assert isinstance(result.exception, HostNotReadyError)
    assert "squashfs-tools-ng" in result.output, "listed first"
    assert host.did == []


def test_missing_packages_are_installed_with_yes(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[packages.Requirement] = []

    def ensure(needed: list[packages.Requirement], **options: object) -> list[packages.Requirement]:
        confirm = options["confirm"]
        assert callable(confirm)
        assert confirm("?") is True
        installed.extend(needed)
        return needed

    monkeypatch.setattr(packages, "requirements", lambda: (ABSENT,))
    monkeypatch.setattr(packages, "ensure", ensure)
    assert "system packages: installed tar2sqfs" in call("--yes").output
    assert installed == [ABSENT]


def test_stages_are_told_once_each() -> None:
    told: list[str] = []
    progress = stages(told.append)
    for stage, done in (("reading", 0), ("reading", 5), ("writing", 0), ("writing", 9)):
        progress(stage, done, None)
    assert told == ["reading", "writing"]
