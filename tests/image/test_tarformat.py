"""The tar reader: what real tools write, and damage of every kind."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.image.images import Item, contents, folder, hardlink, layer_tar, listing, merge, symlink
from trio_sandbox.image.faults import ImageFault
from trio_sandbox.image.layers import ChunkSource
from trio_sandbox.image.tarfields import BLOCK
from trio_sandbox.image.tarformat import Entry, Kind, read_entries
from trio_sandbox.image.tarwriter import padding, write_header

EVERYTHING = layer_tar(
    [
        folder("d", uid=70_000_000),
        Item("d/f", b"x" * 1000, mtime=5, xattrs=(("user.a", "b"),)),
        symlink("s", "t" * 200),
        hardlink("h", "d/f"),
        Item("n" * 300, b"long"),
        Item("c", kind=tarfile.CHRTYPE, device=(1, 3)),
    ]
)


def read(data: bytes, *, need_end: bool = True, chunk: int = 1 << 20) -> list[Entry]:
    chunks = (data[at : at + chunk] for at in range(0, len(data), chunk))
    return list(read_entries(ChunkSource(chunks), need_end=need_end))


def test_entries_as_tarfile_writes_them() -> None:
    entries = {entry.name: entry for entry in read(EVERYTHING)}
    assert list(entries) == [b"d/", b"d/f", b"s", b"h", b"n" * 300, b"c"]
    assert entries[b"d/"].uid == 70_000_000
    assert entries[b"d/f"].xattrs == ((b"user.a", b"b"),)
    assert EVERYTHING[entries[b"d/f"].offset :][:1000] == b"x" * 1000
    assert entries[b"s"].link == b"t" * 200
    assert entries[b"c"].device == (1, 3)


@pytest.mark.parametrize("chunk", [1, 7, 511, 512, 513, 4096])
def test_the_size_of_the_chunks_does_not_matter(chunk: int) -> None:
    assert [entry.name for entry in read(EVERYTHING, chunk=chunk)] == [entry.name for entry in read(EVERYTHING)]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_formats(form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        info = tarfile.TarInfo("p" * 90 + "/" + "n" * 90)
        info.size, info.uid, info.mtime = 3, 1234, 1_700_000_000
        archive.addfile(info, io.BytesIO(b"abc"))
        if form != tarfile.USTAR_FORMAT:
            info = tarfile.TarInfo("q" * 300)
            info.type, info.linkname, info.uid, info.mtime = tarfile.SYMTYPE, "l" * 300, 1 << 31, -5
            archive.addfile(info)
    entries = read(out.getvalue())
    assert (entries[0].name, entries[0].uid, entries[0].mtime) == (b"p" * 90 + b"/" + b"n" * 90, 1234, 1_700_000_000)
    if form != tarfile.USTAR_FORMAT:
        last = entries[1]
        assert (last.name, last.link, last.uid, last.mtime) == (b"q" * 300, b"l" * 300, 1 << 31, -5)


def test_v7_folders_and_old_signed_checksums() -> None:
    header = bytearray(write_header(b"f\xfcr/", Kind.FILE))
    header[257:265] = bytes(8)
    header[148:156] = b" " * 8
    signed = sum(byte - 256 if byte > 127 else byte for byte in header)
    header[148:156] = b"%06o\0 " % signed
    assert [entry.kind for entry in read(bytes(header) + bytes(1024))] == [Kind.DIRECTORY]


@pytest.mark.skipif(shutil.which("tar") is None, reason="GNU tar is not installed")
@pytest.mark.parametrize(
    "options", [["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))]
)
@pytest.mark.parametrize("regions", [1, 3, 40])
def test_sparse_files_of_gnu_tar(tmp_path: Path, options: list[str], regions: int) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as out:
        for number in range(regions):
            out.seek(number * 300_000 + 100_000)
            out.write(b"%08d" % number * 1000)
        out.truncate(regions * 300_000 + 200_000)
    argv = ["tar", "-C", str(tmp_path), "--sparse", *options, "-cf", "-", "sparse"]
    data = subprocess.run(argv, capture_output=True, check=True).stdout
    assert len(data) < file.stat().st_size / 4
    (entry,) = read(data)
    assert entry.extents is not None
    assert contents(merge(tmp_path, [data])) == {"sparse": file.read_bytes()}


@given(st.binary(max_size=3000))
def test_arbitrary_bytes_raise_only_image_faults(data: bytes) -> None:
    try:
        read(data, need_end=False)
    except ImageFault:
        pass


FIELDS = st.sampled_from(
    [(0, 100), (100, 8), (108, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (329, 16)]
)


@settings(max_examples=300)
@given(st.integers(0, len(EVERYTHING) // BLOCK - 1), FIELDS, st.binary(min_size=16, max_size=16))
def test_damaged_fields_with_right_checksums_raise_only_image_faults(
    number: int, field: tuple[int, int], junk: bytes
) -> None:
    data = bytearray(EVERYTHING)
    block = data[number * BLOCK : (number + 1) * BLOCK]
    start, length = field
    block[start : start + min(length, 16)] = junk[:length]
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    data[number * BLOCK : (number + 1) * BLOCK] = block
    try:
        read(bytes(data), need_end=False)
    except ImageFault:
        pass


@pytest.mark.parametrize("cut", [*range(0, len(EVERYTHING) - 20 * BLOCK, 97), BLOCK, 2 * BLOCK])
def test_a_cut_archive_is_noticed(cut: int) -> None:
    end = len(EVERYTHING.rstrip(b"\0")) + BLOCK
    with pytest.raises(ImageFault, match=r"cut off|damaged"):
        read(EVERYTHING[: min(cut, end)])


@pytest.mark.parametrize(
    "records",
    [
        b"5 a=b\n",
        b"99 a=b\n",
        b"7 path\n",
        b"x path=b\n",
        b"",
        b"17 size=99999999\n",
        b"10 size=-5\n",
        b"12 uid=1.5\n\n",
        b"9 path=\0\n",
    ],
)
def test_damaged_pax_records(records: bytes) -> None:
    extension = write_header(b"pax", Kind.FILE, size=max(len(records), 1))
    extension = extension[:156] + b"x" + extension[157:]
    body = bytearray(extension)
    body[148:156] = b" " * 8
    body[148:156] = b"%06o\0 " % sum(body)
    data = (
        bytes(body) + (records or b"\0") + padding(max(len(records), 1)) + write_header(b"f", Kind.FILE) + bytes(1024)
    )
    with pytest.raises(ImageFault):
        read(data)


def test_extensions_are_bounded() -> None:
    huge = bytearray(write_header(b"pax", Kind.FILE, size=2 << 20))
    huge[156] = ord("x")
    huge[148:156] = b" " * 8
    huge[148:156] = b"%06o\0 " % sum(huge)
    with pytest.raises(ImageFault, match="are allowed"):
        read(bytes(huge) + bytes(3 << 20))


@given(
    st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name and not name.endswith(b"/")),
    st.integers(0, 0o7777),
    st.integers(0, (1 << 32) - 1),
    st.lists(st.tuples(st.sampled_from([b"user.a", b"user.b"]), st.binary(max_size=1200)), unique_by=lambda x: x[0]),
)
def test_what_is_written_is_read_again(name: bytes, mode: int, uid: int, xattrs: list[tuple[bytes, bytes]]) -> None:
    data = write_header(name, Kind.FILE, mode=mode, uid=uid, gid=uid, size=5, xattrs=tuple(xattrs)) + b"hello"
    data += padding(5) + bytes(1024)
    (entry,) = read(data)
    assert (entry.name, entry.mode, entry.uid, entry.gid, entry.size) == (name, mode, uid, uid, 5)
    assert sorted(entry.xattrs) == sorted(xattrs)
    member = next(iter(listing(data).values()))
    assert (member.mode, member.uid, member.size) == (mode, uid, 5)
