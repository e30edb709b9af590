"""Files that are set aside when they are full, and disks that refuse."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from trio_sandbox.logs.entry import LogSource, decode_after, decode_line, encode_line
from trio_sandbox.logs.rotation import Line, RotatingFile


def line(us: int, text: str = "x" * 20) -> Line:
    return Line(us, encode_line(us, LogSource.STDOUT, 1, text.encode()))


def times(path: Path) -> list[int]:
    entries = [decode_line(text) for text in path.read_bytes().splitlines()]
    return [int(entry.cursor) for entry in entries if entry is not None]


class FullDisk:
    """os.write for a disk that has room for so many bytes more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        data = bytes(data)
        if not self.room:
            raise OSError(errno.ENOSPC, "no room")
        done = self._write(descriptor, data[: self.room])
        self.room -= done
        return done


def test_a_full_file_is_set_aside_and_the_oldest_is_removed(tmp_path: Path) -> None:
    size = len(line(100).text)
    file = RotatingFile(tmp_path, "exec.log", limit=3 * size, kept=2)
    for us in range(100, 112):
        assert file.append([line(us)]) == 1
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exec.log", "exec.log.1", "exec.log.2"]
    parts = [tmp_path / name for name in ("exec.log.2", "exec.log.1", "exec.log")]
    assert [us for path in parts for us in times(path)] == list(range(107, 112))
    for path in parts:
        assert path.stat().st_size <= 3 * size
        assert decode_after(path.read_bytes().splitlines()[0]) == times(path)[0] - 1
        assert path.stat().st_mode & 0o777 == 0o600


def test_many_lines_at_once_fill_one_file_after_the_other(tmp_path: Path) -> None:
    size = len(line(100).text)
    file = RotatingFile(tmp_path, "exec.log", limit=4 * size, kept=3)
    assert file.append([line(us) for us in range(100, 110)]) == 10
    file.close()
    names = ("exec.log.3", "exec.log.2", "exec.log.1", "exec.log")
    assert [us for name in names if (tmp_path / name).exists() for us in times(tmp_path / name)] == list(
        range(100, 110)
    )


def test_a_line_larger_than_a_file_gets_one_of_its_own(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path, "exec.log", limit=50, kept=3)
    assert file.append([line(1), line(2, "y" * 500), line(3)]) == 3
    file.close()
    assert [times(tmp_path / name) for name in ("exec.log.2", "exec.log.1", "exec.log")] == [[1], [2], [3]]


def test_it_goes_on_where_the_last_process_stopped_whatever_that_left(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path, "exec.log")
    file.append([line(1), line(2)])
    file.close()
    with (tmp_path / "exec.log").open("ab") as torn:
        torn.write(line(3).text[:-1])
    file = RotatingFile(tmp_path, "exec.log")
    assert file.last == 2
    file.append([line(4)])
    file.close()
    assert times(tmp_path / "exec.log") == [1, 2, 4]
    assert (tmp_path / "exec.log").read_bytes().count(b"\n") == 3


def test_a_file_that_is_all_damage_is_cleared_of_it(tmp_path: Path) -> None:
    (tmp_path / "exec.log").write_bytes(b"z" * 200_000)
    file = RotatingFile(tmp_path, "exec.log")
    assert file.append([line(1)]) == 1
    file.close()
    assert (tmp_path / "exec.log").read_bytes() == line(1).text


@pytest.mark.parametrize("missing", [0, 1, 30, 80])
def test_a_disk_that_fills_up_takes_whole_lines_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    lines = [line(us) for us in range(10, 14)]
    size = sum(len(one.text) for one in lines)
    disk = FullDisk(monkeypatch, size - missing)
    file = RotatingFile(tmp_path, "exec.log")
    written = file.append(lines)
    assert written == {0: 4, 1: 3, 30: 3, 80: 2}[missing]
    disk.room = 1 << 20
    assert file.append([line(20)]) == 1
    file.close()
    assert times(tmp_path / "exec.log") == [*range(10, 10 + written), 20]
    assert file.last == 20


def test_a_disk_without_room_for_the_first_line_of_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RotatingFile(tmp_path, "exec.log", limit=100, kept=3)
    assert file.append([line(1)]) == 1
    disk = FullDisk(monkeypatch, 5)
    assert file.append([line(2)]) == 0
    disk.room = 1 << 20
    assert file.append([line(3)]) == 1
    file.close()
    assert times(tmp_path / "exec.log.1") == [1] and times(tmp_path / "exec.log") == [3]
    assert decode_after((tmp_path / "exec.log").read_bytes().splitlines()[0]) == 1


def test_a_folder_that_is_gone_costs_the_lines(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "gone", "exec.log")
    assert file.append([line(1)]) == 0
    (tmp_path / "gone").mkdir()
    assert file.append([line(1)]) == 1
    file.close()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept\n")
    (tmp_path / "exec.log").symlink_to(target)
    file = RotatingFile(tmp_path, "exec.log")
    assert file.append([line(1)]) == 0
    assert target.read_text() == "kept\n"
