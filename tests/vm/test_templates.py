"""The template store: believed only while it is what it says, bounded, and clean after a builder that was killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trio_sandbox.files import anonymous_file
from trio_sandbox.vm import templates
from trio_sandbox.vm.templates import TemplateStore


def publish(store: TemplateStore, folder: Path, key: str, *parts: str, size: int = 100_000) -> None:
    files = {part: anonymous_file(folder) for part in parts or ("ram", "state", "upper")}
    for part, descriptor in files.items():
        os.write(descriptor, part.encode() * (size // len(part)))
    store.publish(key, files)
    for descriptor in files.values():
        os.close(descriptor)


def test_a_ready_and_a_blank_template(tmp_path: Path) -> None:
    store = TemplateStore(tmp_path)
    publish(store, tmp_path, "ready")
    publish(store, tmp_path, "blank", "ram", "state")
    with store.opened("ready") as ready, store.opened("blank") as blank, store.opened("none") as none:
        assert ready is not None
        assert ready.upper is not None
        assert os.pread(ready.state, 5, 0) == b"state"
        assert blank is not None
        assert blank.upper is None
        assert none is None
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())


@pytest.mark.parametrize("part", ["ram", "state", "upper", "json"])
@pytest.mark.parametrize("harm", ["cut", "overwritten", "gone", "replaced"])
def test_a_damaged_template_is_none(tmp_path: Path, part: str, harm: str) -> None:
    store = TemplateStore(tmp_path)
    publish(store, tmp_path, "key")
    path = tmp_path / f"key.{part}"
    match harm:
        case "cut":
            os.truncate(path, path.stat().st_size // 2)
        case "overwritten":
            path.write_bytes(b"\0" * path.stat().st_size)
        case "gone":
            path.unlink()
        case "replaced":
            (tmp_path / "other").write_bytes(path.read_bytes()[:-1] + b"?")
            (tmp_path / "other").rename(path)
    with store.opened("key") as found:
        assert found is None


def test_a_template_of_another_start_of_the_host_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TemplateStore(tmp_path)
    publish(store, tmp_path, "key")
    monkeypatch.setattr(templates, "host_start", lambda: "another")
    with store.opened("key") as found:
        assert found is None
    publish(store, tmp_path, "new")
    store.trim(keep="new")
    assert {path.stem for path in tmp_path.iterdir()} == {"new"}


def test_what_a_killed_builder_left_is_removed(tmp_path: Path) -> None:
    store = TemplateStore(tmp_path)
    publish(store, tmp_path, "whole")
    (tmp_path / "torn.ram").write_bytes(b"x")
    (tmp_path / "torn.upper").write_bytes(b"x")
    publish(store, tmp_path, "new")
    store.trim(keep="new")
    assert store.keys() == {"whole", "new"}
    assert not list(tmp_path.glob("torn.*"))


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    store = TemplateStore(tmp_path)
    for number in range(5):
        publish(store, tmp_path, f"t{number}")
        os.utime(tmp_path / f"t{number}.json", (number, number))
    with store.opened("t0") as found:  # used now
        assert found is not None
        store.trim(keep="t4", most=3)
        assert os.pread(found.ram, 3, 0) == b"ram"  # an open one stays usable whatever happens
    assert store.keys() == {"t0", "t3", "t4"}
    store.trim(keep="t4", most=10, most_bytes=store.size("t4") + store.size("t0") + 1)
    assert store.keys() == {"t0", "t4"}


def test_a_new_template_replaces_the_old_of_its_key(tmp_path: Path) -> None:
    store = TemplateStore(tmp_path)
    publish(store, tmp_path, "key")
    publish(store, tmp_path, "key", size=200_000)
    with store.opened("key") as found:
        assert found is not None
        assert os.fstat(found.ram).st_size == 199_998
