"""A stamp holds while the files and facts that it names are as they were."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trio_sandbox.home import Home
from trio_sandbox.host import stamp


@pytest.fixture
def made(tmp_path: Path) -> Path:
    (tmp_path / "kernel").write_bytes(b"kernel")
    path = stamp.stamp_path(tmp_path)
    path.parent.mkdir()
    path.write_bytes(stamp.make([tmp_path / "kernel"]))
    return tmp_path


def test_holds_while_nothing_changes(made: Path) -> None:
    assert stamp.holds(made)


def test_no_stamp(tmp_path: Path) -> None:
    assert not stamp.holds(tmp_path)


def test_a_file_that_is_gone(made: Path) -> None:
    (made / "kernel").unlink()
    assert not stamp.holds(made)


def test_a_file_that_changed(made: Path) -> None:
    os.utime(made / "kernel", ns=(1, 1))
    assert not stamp.holds(made)


def test_a_file_that_was_missing_from_the_start(made: Path) -> None:
    stamp.stamp_path(made).write_bytes(stamp.make([made / "kernel", made / "absent"]))
    assert not stamp.holds(made)


def test_a_stamp_over_nothing(made: Path) -> None:
    stamp.stamp_path(made).write_bytes(stamp.make([]))
    assert not stamp.holds(made)


def test_another_kernel_is_named(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_SANDBOX_KERNEL", "/elsewhere/vmlinuz")
    assert not stamp.holds(made)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'{"files": 3, "facts": {}}', b"\xff\xfe"])
def test_a_damaged_stamp_is_no_stamp(damage: bytes, made: Path) -> None:
    stamp.stamp_path(made).write_bytes(damage)
    assert not stamp.holds(made)


@pytest.mark.parametrize("value", [None, "", "/somewhere", "relative", "~/data"])
def test_same_data_folder_as_the_package(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv("TRIO_SANDBOX_HOME", raising=False)
    else:
        monkeypatch.setenv("TRIO_SANDBOX_HOME", value)
    assert stamp.home_folder() == Home.default().root
