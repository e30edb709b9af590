"""The archive writer against GNU cpio, and against its own rules."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.host import cpio

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40
)
FILES = st.dictionaries(
    NAMES.filter(lambda name: name not in (".", "..", cpio.TRAILER)), st.binary(max_size=600), max_size=8
)


def unpack(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """A reader of our own: name to mode, data and device."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    offset = 0
    while True:
        assert archive[offset : offset + 6] == cpio.MAGIC
        field = [int(archive[offset + 6 + 8 * n : offset + 14 + 8 * n], 16) for n in range(13)]
        name_at = offset + 110
        name = archive[name_at : name_at + field[11] - 1].decode()
        assert archive[name_at + field[11] - 1] == 0
        data_at = -(-(name_at + field[11]) // 4) * 4
        if name == cpio.TRAILER:
            assert not archive[data_at:].strip(b"\0")
            return found
        found[name] = (field[1], archive[data_at : data_at + field[6]], (field[9], field[10]))
        offset = -(-(data_at + field[6]) // 4) * 4


@given(FILES)
def test_what_goes_in_comes_out(files: dict[str, bytes]) -> None:
    archive = cpio.archive(cpio.file(name, data) for name, data in files.items())
    assert {name: data for name, (_, data, _) in unpack(archive).items()} == files
    assert len(archive) % cpio.BLOCK == 0


def test_types_modes_and_devices() -> None:
    archive = cpio.archive(
        [cpio.folder("dev"), cpio.character_device("dev/console", 5, 1), cpio.file("init", b"\x7fELF", 0o755)]
    )
    assert unpack(archive) == {
        "dev": (stat.S_IFDIR | 0o755, b"", (0, 0)),
        "dev/console": (stat.S_IFCHR | 0o600, b"", (5, 1)),
        "init": (stat.S_IFREG | 0o755, b"\x7fELF", (0, 0)),
    }


def test_same_entries_give_same_bytes() -> None:
    entries = [cpio.folder("a"), cpio.file("a/b", b"c")]
    assert cpio.archive(entries) == cpio.archive(entries)


@pytest.mark.skipif(shutil.which("cpio") is None, reason="GNU cpio is not installed")
def test_cpio_reads_it(tmp_path: Path) -> None:
    entries = [
        cpio.folder("dev"),
        cpio.folder("modules"),
        cpio.file("init", b"x" * 1001, 0o755),
        cpio.file("modules/a", b""),
    ]
    archive = cpio.archive(entries)
    listed = subprocess.run(["cpio", "-t", "--quiet"], input=archive, capture_output=True, check=True)
    assert listed.stdout.decode().split() == ["dev", "modules", "init", "modules/a"]
    assert listed.stderr == b""
    subprocess.run(["cpio", "-i", "--quiet"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "init").read_bytes() == b"x" * 1001
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", ["", "/init", "a//b", "../x", "a/../b", "a\0b", "a/", cpio.TRAILER, "x" * 5000])
def test_refused_names(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        cpio.file(name, b"")


def test_a_name_that_comes_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        cpio.archive([cpio.folder("a"), cpio.file("a", b"")])
