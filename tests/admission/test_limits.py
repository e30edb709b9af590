"""The file of limits, and what the host suggests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.admission.host_size import memory_mib
from trio_sandbox.admission.limits import MAXIMA, Limits
from trio_sandbox.errors import InvalidConfigError
from trio_sandbox.home import Home

from .conftest import set_limits

SUGGESTED = Limits(10_000, 4)


def test_without_a_file_the_host_decides(tmp_path: Path) -> None:
    limits = Limits.load(Home(tmp_path))
    assert limits == Limits.of_host()
    assert 0 < limits.memory < memory_mib()
    assert limits.boots >= 2


def test_what_the_file_does_not_say_is_as_suggested(tmp_path: Path) -> None:
    home = Home(tmp_path)
    set_limits(home, boots=1)
    assert Limits.load(home) == Limits(Limits.of_host().memory, 1)


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        Limits.from_document({"memory": "1 GB", "boots": 0, "sandboxes": True, "disks": 3}, SUGGESTED)
    assert [problem.split(": ")[1] for problem in caught.value.problems] == ["memory", "boots", "sandboxes", "disks"]


@pytest.mark.parametrize("content", [b"memory = ", b"\xff", b"#" * 70_000])
def test_a_file_that_is_no_such_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "limits.toml").write_bytes(content)
    with pytest.raises(InvalidConfigError, match=r"limits\.toml"):
        Limits.load(Home(tmp_path))


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "limits.toml").mkdir()
    with pytest.raises(InvalidConfigError, match="directory"):
        Limits.load(Home(tmp_path))


VALUES = st.one_of(st.integers(), st.booleans(), st.floats(), st.none(), st.just("1 GB"))


@given(st.dictionaries(st.sampled_from(["memory", "boots", "sandboxes", "else"]), VALUES))
def test_any_document_is_taken_as_it_is_or_refused(document: dict[str, object]) -> None:
    right = all(key in MAXIMA and type(value) is int and 1 <= value <= MAXIMA[key] for key, value in document.items())
    try:
        limits = Limits.from_document(document, SUGGESTED)
    except InvalidConfigError:
        assert not right
    else:
        assert right
        assert all(getattr(limits, key) == value for key, value in document.items())


# -- the host


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "meminfo").write_text("MemTotal:        8388608 kB\nMemFree: 1 kB\n")
    return tmp_path


def memory_of(proc: Path, membership: str) -> int:
    (proc / "cgroup").write_text(membership)
    return memory_mib(proc / "meminfo", proc / "cgroup", proc)


def test_a_control_group_that_allows_less_counts(proc: Path) -> None:
    folder = proc / "outer" / "inner"
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text("max\n")
    (folder.parent / "memory.max").write_text(f"{1 << 30}\n")
    assert memory_of(proc, "0::/outer/inner\n") == 1024


def test_control_groups_of_the_first_version(proc: Path) -> None:
    folder = proc / "memory" / "group"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{2 << 30}\n")
    (folder.parent / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # no limit, as that version says it
    assert memory_of(proc, "4:cpu,memory:/group\n1:name=systemd:/\n0::/\n") == 2048


def test_without_control_groups_the_host_counts(proc: Path) -> None:
    assert memory_of(proc, "0::/nowhere\n") == 8192
    (proc / "cgroup").unlink()
    assert memory_mib(proc / "meminfo", proc / "cgroup", proc) == 8192
