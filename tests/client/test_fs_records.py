"""The records of list, pack and unpack: any cut, any bytes, no name that leads elsewhere."""

from __future__ import annotations

import itertools
from typing import Any

import attrs
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.client.fs_records import EntryStream, RecordStream, TreeRecord
from trio_sandbox.client.fs_types import FOLDER, REGULAR, SYMLINK, FsEntryKind
from trio_sandbox.convert import MapStream, pack_map
from trio_sandbox.errors import RemoteProtocolError

from .fakes import STATUS

NAMES = st.binary(min_size=1, max_size=8).filter(lambda name: name not in (b".", b"..") and not set(name) & {0, 47})
TIMES = st.integers(-(1 << 63), (1 << 63) - 1)


@st.composite
def items(draw: st.DrawFn) -> tuple[TreeRecord, bytes]:
    """A record and the bytes that follow it."""
    kind = draw(st.sampled_from([REGULAR, FOLDER, SYMLINK]))
    content = draw(st.binary(max_size=40)) if kind == REGULAR else b""
    target = draw(st.binary(min_size=1, max_size=8).filter(lambda text: 0 not in text)) if kind == SYMLINK else b""
    name = b"/".join(draw(st.lists(NAMES, max_size=4)))
    return TreeRecord(name, kind | draw(st.integers(0, 0o7777)), draw(TIMES), len(content), target), content


def feed(stream: RecordStream, chunks: list[bytes]) -> list[tuple[TreeRecord, bytes]]:
    found: list[tuple[TreeRecord, bytes]] = []
    for chunk in chunks:
        for item in stream.feed_untrusted(chunk):
            if isinstance(item, bytes):
                assert item
                found[-1] = (found[-1][0], found[-1][1] + item)
            else:
                found.append((item, b""))
    return found


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.lists(items()), st.lists(st.integers(0)))
def test_what_is_packed_comes_out_however_it_is_cut(sent: list[tuple[TreeRecord, bytes]], places: list[int]) -> None:
    data = b"".join(record.pack() + content for record, content in sent)
    stream = RecordStream()
    assert feed(stream, cut(data, places)) == sent
    stream.finish_untrusted()


@given(items(), st.integers(1))
def test_an_end_in_the_middle_is_noticed(item: tuple[TreeRecord, bytes], place: int) -> None:
    data = item[0].pack() + item[1]
    stream = RecordStream()
    feed(stream, [data[: 1 + place % (len(data) - 1)]])
    with pytest.raises(RemoteProtocolError, match="middle"):
        stream.finish_untrusted()


VALUES = (
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.binary(max_size=9) | st.text(max_size=9)
)
RECORD_LIKE = st.fixed_dictionaries(
    {
        "name": VALUES | st.just(b"a/b"),
        "mode": VALUES | st.just(REGULAR | 0o644),
        "mtime_ns": VALUES | st.just(0),
        "size": VALUES | st.just(3),
        "target": VALUES | st.just(b""),
    }
).map(pack_map)
STATUS_LIKE = st.fixed_dictionaries({"name": VALUES | st.just(b"a")}, optional={"target": VALUES, "more": VALUES}).map(
    lambda found: pack_map({**attrs.asdict(STATUS), **found})
)
HOSTILE = st.lists(
    st.binary(max_size=30) | RECORD_LIKE | STATUS_LIKE | st.dictionaries(VALUES, VALUES).map(msgpack.packb)
)


@given(HOSTILE, st.lists(st.integers(0)))
def test_wrong_bytes_are_a_protocol_error_and_nothing_else(pieces: list[bytes], places: list[int]) -> None:
    for stream in (RecordStream(), EntryStream(b"/x")):
        try:
            for chunk in cut(b"".join(pieces), places):
                for item in stream.feed_untrusted(chunk):
                    assert item
            stream.finish_untrusted()
        except RemoteProtocolError:
            pass


def record(**fields: Any) -> bytes:
    return pack_map({"name": b"a", "mode": REGULAR, "mtime_ns": 0, "size": 0, "target": b"", **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"name": b"/etc/passwd"},
        {"name": b".."},
        {"name": b"a/../b"},
        {"name": b"./a"},
        {"name": b"a//b"},
        {"name": b"a/"},
        {"name": b"a\0b"},
        {"name": b"x" * 256},
        {"name": b"x/" * 2100 + b"x"},
        {"name": "text"},
        {"mode": 0o020644},
        {"mode": 0o010644},
        {"mode": 0o644},
        {"mode": REGULAR | 1 << 20},
        {"mode": -1},
        {"mode": True},
        {"size": -1},
        {"size": 1 << 63},
        {"mtime_ns": 1 << 63},
        {"mode": SYMLINK, "target": b""},
        {"mode": SYMLINK, "target": b"a\0"},
        {"mode": SYMLINK, "target": b"x" * 4097},
        {"surprise": 1},
    ],
    ids=str,
)
def test_records_that_no_tree_has(fields: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        feed(RecordStream(), [record(**fields)])


NESTED = b"\x81\xa1k"
WIDE = b"\xde\x00\x20" + b"".join(b"\xa1%c\xc5\x10\x00" % key + bytes(4096) for key in range(65, 96)) + b"\xa1k"


@pytest.mark.parametrize(("piece", "words"), [(NESTED * 1000, "StackError"), (WIDE, "a map of more than")])
def test_a_map_that_never_ends_is_not_waited_for(piece: bytes, words: str) -> None:
    stream = MapStream()
    with pytest.raises(ValueError, match=words):
        for _ in range(1000):
            stream.feed(piece)
            assert stream.next_untrusted() is None


@pytest.mark.parametrize(
    "head", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x81\xa1a\xdd\xff\xff\xff\xff", b"\xc1"]
)
def test_what_claims_to_be_huge_is_refused_before_it_is_allocated(head: bytes) -> None:
    stream = MapStream()
    stream.feed(head)
    with pytest.raises(ValueError, match=r"exceeds|FormatError"):
        stream.next_untrusted()


def entry(name: object, **fields: object) -> bytes:
    return pack_map({"name": name, **attrs.asdict(STATUS), **fields})


def test_entries() -> None:
    stream = EntryStream(b"/some/where/")
    found = stream.feed_untrusted(entry(b"a\xff") + entry(b"l", mode=SYMLINK | 0o777, target=b"/t"))
    stream.finish_untrusted()
    assert [(e.path, e.name, e.kind, e.target) for e in found] == [
        ("/some/where/a\udcff", "a\udcff", FsEntryKind.FILE, None),
        ("/some/where/l", "l", FsEntryKind.SYMLINK, "/t"),
    ]
    assert (found[0].size, found[0].mode, found[0].modified) == (5, 0o644, 2.5)
    assert EntryStream(b"/").feed_untrusted(entry(b"etc"))[0].path == "/etc"


@pytest.mark.parametrize(
    "raw",
    [
        entry(b"a/b"),
        entry(b".."),
        entry(b""),
        entry("text"),
        entry(b"a", target="text"),
        entry(b"a", extra=1),
        entry(b"a", size=1.5),
        pack_map({"name": b"a"}),
        b"\x01",
    ],
)
def test_entries_that_no_folder_has(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        EntryStream(b"/x").feed_untrusted(raw)
