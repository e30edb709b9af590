"""What is missing is found, listed and installed; every look at the machine is faked."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from trio_sandbox.host import packages
from trio_sandbox.host.packages import PackagesError, Requirement, ensure, install, missing, requirements

QEMU = Requirement("qemu-system-x86_64", "monitor", ("qemu-system-x86",), ("qemu-system-x86_64",))
MKE2FS = Requirement("mke2fs", "disks", ("e2fsprogs",), ("mke2fs",))
COMPILER = Requirement("C compiler", "agent", ("musl-tools",), ("musl-gcc", "cc"))
VENV = Requirement("venv", "environment", ("python3.11-venv",), module="ensurepip")


class FakeMachine:
    """A machine on which apt-get installs what a package is known to bring."""

    def __init__(self, *programs: str, modules: Sequence[str] = (), lists: bool = True) -> None:
        self.programs = set(programs)
        self.modules = set(modules)
        self.lists = lists
        self.ran: list[list[str]] = []
        self.said: list[str] = []
        self.brings: dict[str, str] = {}
        self.failures = 0

    def which(self, name: str) -> str | None:
        return f"/bin/{name}" if name in self.programs else None

    def importable(self, module: str) -> bool:
        return module in self.modules

    def run(self, argv: Sequence[str]) -> int:
        self.ran.append(list(argv))
        if "install" in argv:
            if self.failures:
                self.failures -= 1
                return 100
            self.programs |= {self.brings[package] for package in argv if package in self.brings}
        return 0

    def ensure(
        self, *needed: Requirement, root: bool = True, confirm: Callable[[str], bool] = lambda _: True
    ) -> list[str]:
        done = ensure(
            needed,
            which=self.which,
            importable=self.importable,
            run=self.run,
            root=root,
            have_lists=lambda: self.lists,
            say=self.said.append,
            confirm=confirm,
        )
        return [need.name for need in done]


@pytest.mark.parametrize(
    ("machine", "emulator", "package"),
    [
        ("x86_64", "qemu-system-x86_64", "qemu-system-x86"),
        ("aarch64", "qemu-system-aarch64", "qemu-system-arm"),
        ("arm64", "qemu-system-aarch64", "qemu-system-arm"),
    ],
)
def test_emulator_by_machine(machine: str, emulator: str, package: str) -> None:
    need = requirements(machine)[0]
    assert (need.programs, need.packages) == ((emulator,), (package,))


def test_every_requirement_can_be_checked_and_installed() -> None:
    for need in requirements("x86_64"):
        assert bool(need.programs) != bool(need.module), need
        assert need.packages
        assert need.purpose


def test_venv_package_carries_the_version_of_the_python() -> None:
    assert requirements("x86_64", (3, 12))[-1].packages == ("python3.12-venv",)


@pytest.mark.parametrize("root", [True, False])
def test_only_users_other_than_root_map_user_ids(root: bool) -> None:
    needed = [need.name for need in requirements("x86_64", root=root)]
    assert ("newuidmap" in needed) is not root


def test_missing_keeps_order_and_accepts_any_program() -> None:
    machine = FakeMachine("cc")
    found = missing([VENV, QEMU, COMPILER, MKE2FS], which=machine.which, importable=machine.importable)
    assert [need.name for need in found] == ["venv", "qemu-system-x86_64", "mke2fs"]


def test_nothing_missing_runs_and_says_nothing() -> None:
    machine = FakeMachine("mke2fs")
    assert machine.ensure(MKE2FS) == []
    assert (machine.ran, machine.said) == ([], [])


def test_listed_before_installed_with_one_command() -> None:
    machine = FakeMachine("apt-get")
    machine.brings = {"e2fsprogs": "mke2fs", "qemu-system-x86": "qemu-system-x86_64"}
    said_at_run: list[list[str]] = []
    run = machine.run

    def watched(argv: Sequence[str]) -> int:
        said_at_run.append(list(machine.said))
        return run(argv)

    machine.run = watched  # type: ignore[method-assign]
    assert machine.ensure(QEMU, MKE2FS) == ["qemu-system-x86_64", "mke2fs"]
    assert len(machine.ran) == 1
    assert machine.ran[0][:2] == ["env", "DEBIAN_FRONTEND=noninteractive"]
    assert machine.ran[0][-5:] == ["install", "-y", "--no-install-recommends", "qemu-system-x86", "e2fsprogs"]
    assert "qemu-system-x86" in said_at_run[0][0]
    assert "e2fsprogs" in said_at_run[0][0]


def test_lists_are_fetched_first_where_there_are_none() -> None:
    machine = FakeMachine("apt-get", lists=False)
    machine.brings = {"e2fsprogs": "mke2fs"}
    machine.ensure(MKE2FS)
    assert [next(word for word in argv if word in ("update", "install")) for argv in machine.ran] == [
        "update",
        "install",
    ]


def test_old_lists_are_fetched_again_after_one_failure() -> None:
    machine = FakeMachine("apt-get")
    machine.brings = {"e2fsprogs": "mke2fs"}
    machine.failures = 1
    machine.ensure(MKE2FS)
    words = [next(word for word in argv if word in ("update", "install")) for argv in machine.ran]
    assert words == ["install", "update", "install"]


def test_two_failures_end_with_the_command_to_try() -> None:
    machine = FakeMachine("apt-get")
    machine.failures = 2
    with pytest.raises(PackagesError, match=r"apt-get failed with 100; run this by hand.*e2fsprogs"):
        machine.ensure(MKE2FS)


def test_through_sudo_when_not_root() -> None:
    machine = FakeMachine("apt-get", "sudo")
    machine.brings = {"e2fsprogs": "mke2fs"}
    machine.ensure(MKE2FS, root=False)
    assert machine.ran[0][0] == "/bin/sudo"


def test_neither_root_nor_sudo_names_the_command() -> None:
    machine = FakeMachine("apt-get")
    with pytest.raises(PackagesError, match=r"run this as root: apt-get .*install .*e2fsprogs") as caught:
        machine.ensure(MKE2FS, root=False)
    assert caught.value.missing == (MKE2FS,)
    assert machine.ran == []


@pytest.mark.parametrize(
    ("manager", "told"), [("dnf", "with dnf"), ("pacman", "with pacman"), (None, "own package manager")]
)
def test_another_package_manager_is_told_the_programs(manager: str | None, told: str) -> None:
    machine = FakeMachine(*([manager] if manager else []))
    with pytest.raises(PackagesError) as caught:
        machine.ensure(QEMU, COMPILER)
    assert told in str(caught.value)
    assert "qemu-system-x86_64, musl-gcc, cc" in str(caught.value)
    assert machine.ran == []


def test_a_refusal_installs_nothing() -> None:
    machine = FakeMachine("apt-get")
    with pytest.raises(PackagesError, match="nothing was installed"):
        machine.ensure(MKE2FS, confirm=lambda question: False)
    assert machine.ran == []


def test_packages_that_do_not_bring_the_program() -> None:
    machine = FakeMachine("apt-get")
    with pytest.raises(PackagesError, match="still missing: mke2fs"):
        machine.ensure(MKE2FS)


def test_install_of_nothing_needs_no_package_manager() -> None:
    install([], which=lambda name: None)


def test_programs_are_found_in_system_folders_that_path_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mke2fs"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(packages, "SYSTEM_FOLDERS", (str(tmp_path),))
    assert packages.find_program("mke2fs", path="/nonexistent") == str(program)


@pytest.mark.parametrize(
    ("names", "present"), [(["lock", "partial"], False), (["deb.example_dists_x_main_binary-amd64_Packages.lz4"], True)]
)
def test_lists_present(names: list[str], present: bool, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert packages.lists_present(tmp_path) is present
    assert packages.lists_present(tmp_path / "nowhere") is False


@pytest.mark.parametrize("status", [0, 7])
def test_run_to_end_returns_the_exit_status(status: int) -> None:
    assert packages.run_to_end([sys.executable, "-c", f"raise SystemExit({status})"]) == status


@pytest.mark.parametrize("name", ["packages", "stamp"])
def test_loadable_before_anything_is_installed(name: str) -> None:
    """The bootstrap script loads these by path: the standard library only."""
    source = Path(packages.__file__).with_name(f"{name}.py").read_text()
    for node in ast.walk(ast.parse(source)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules.append(node.module or "")
        for module in modules:
            assert module.partition(".")[0] in sys.stdlib_module_names, module
