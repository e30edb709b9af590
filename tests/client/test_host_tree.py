"""Trees on the host: round trips, and what a hostile guest tries with its records."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from trio_sandbox.client.fs_records import TreeRecord
from trio_sandbox.client.fs_types import FOLDER, REGULAR, SYMLINK, FsCopied
from trio_sandbox.client.host_tree import MAX_DEPTH, Budget, TreeReader, TreeWriter
from trio_sandbox.errors import FilesystemError, RemoteProtocolError

ROOT = TreeRecord(b"", FOLDER | 0o755, 0)


def folder(name: bytes, mode: int = 0o755, mtime_ns: int = 0) -> TreeRecord:
    return TreeRecord(name, FOLDER | mode, mtime_ns)


def file(name: bytes, content: bytes = b"", mode: int = 0o644, mtime_ns: int = 0) -> tuple[TreeRecord, bytes]:
    return TreeRecord(name, REGULAR | mode, mtime_ns, len(content)), content


def link(name: bytes, target: bytes) -> TreeRecord:
    return TreeRecord(name, SYMLINK | 0o777, 0, 0, target)


def receive(
    target: Path, *items: TreeRecord | tuple[TreeRecord, bytes], symlinks: bool = False, budget: Budget | None = None
) -> FsCopied:
    """Write the records to `target` byte by byte, then see that nothing else is left in its folder."""
    pairs = [item if isinstance(item, tuple) else (item, b"") for item in items]
    data = b"".join(record.pack() + content for record, content in pairs)
    before = set(os.listdir(target.parent))
    writer = TreeWriter(target, budget or Budget("/src"), symlinks=symlinks)
    try:
        for place in range(len(data)):
            writer.feed_untrusted(data[place : place + 1])
        return writer.finish_untrusted()
    finally:
        writer.close()
        assert set(os.listdir(target.parent)) - before <= {target.name}


@pytest.fixture(autouse=True)
def umask() -> int:
    """The usual one, whatever the machine's is."""
    os.umask(0o022)
    return 0o022


def test_a_tree_goes_from_host_to_host_unchanged(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "big").write_bytes(os.urandom(700_000))
    (source / "empty").touch(0o600)
    (source / os.fsdecode(b"odd\xff")).write_text("x")
    (source / "link").symlink_to("../nowhere")
    (source / "script").touch(0o755)
    os.mkfifo(source / "fifo")
    for path in (source / "deep" / "er", source / "deep", source / "empty", source / "link", source):
        os.utime(path, ns=(1, 1_600_000_000_123_456_789), follow_symlinks=False)
    reader, writer = TreeReader(source), TreeWriter(target, Budget("/src"), symlinks=True)
    while lot := reader.lot():
        writer.feed_untrusted(lot)
    assert reader.copied == FsCopied(entries=8, size=700_001, skipped=1)
    assert writer.finish_untrusted() == FsCopied(entries=8, size=700_001, skipped=0)
    writer.close()
    reader.close()

    def facts(root: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        for path in (root, *root.rglob("*")):
            status = path.lstat()
            if not stat.S_ISFIFO(status.st_mode):
                content = os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
                mtime = 0 if path.name in ("script", os.fsdecode(b"odd\xff"), "big") else status.st_mtime_ns
                found[str(path.relative_to(root))] = (status.st_mode, mtime, content)
        return found

    assert facts(target) == facts(source)


def test_modes_are_narrowed_and_a_folder_stays_removable(tmp_path: Path) -> None:
    target = tmp_path / "t"
    receive(target, folder(b"", 0o7777), folder(b"shut", 0), file(b"shut/in", b"x"), file(b"suid", mode=0o6777))
    modes = {name: stat.S_IMODE((target / name).stat().st_mode) for name in (".", "shut", "suid")}
    assert modes == {".": 0o755, "shut": 0o700, "suid": 0o755}


def test_links_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    records = (ROOT, link(b"l", b"/etc/passwd"), file(b"f"))
    assert receive(tmp_path / "a", *records) == FsCopied(entries=2, size=0, skipped=1)
    assert os.listdir(tmp_path / "a") == ["f"]
    assert receive(tmp_path / "b", *records, symlinks=True) == FsCopied(entries=3, size=0, skipped=0)
    assert os.readlink(tmp_path / "b" / "l") == "/etc/passwd"


@pytest.mark.parametrize("symlinks", [True, False])
def test_nothing_is_written_through_a_link(tmp_path: Path, symlinks: bool) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    inside: list[TreeRecord | tuple[TreeRecord, bytes]] = [file(b"l/file", b"yours"), folder(b"l/new")]
    for last in [*inside, link(b"l/new", b"x")] if symlinks else inside:
        with pytest.raises(RemoteProtocolError):
            receive(tmp_path / "t", ROOT, link(b"l", os.fsencode(outside)), last, symlinks=symlinks)
    to_file = (ROOT, link(b"l", os.fsencode(outside / "file")), file(b"l", b"yours"))
    if symlinks:
        with pytest.raises(RemoteProtocolError, match="twice"):
            receive(tmp_path / "t", *to_file, symlinks=True)
    else:
        receive(tmp_path / "t", *to_file)
        assert not (tmp_path / "t" / "l").is_symlink()
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("file", "mine")]


@pytest.mark.parametrize(
    "items",
    [
        [],
        [file(b"f")],
        [ROOT, ROOT],
        [ROOT, file(b"d/f")],
        [ROOT, file(b"f"), file(b"f/g")],
        [ROOT, folder(b"d"), folder(b"d")],
        [ROOT, file(b"f"), file(b"f")],
        [ROOT, folder(b"d"), file(b"f"), file(b"d/g")],  # it was left already
        [ROOT, folder(b"a"), folder(b"a/b"), file(b"b/f")],
    ],
)
def test_trees_that_do_not_hold_together(tmp_path: Path, items: list[TreeRecord | tuple[TreeRecord, bytes]]) -> None:
    with pytest.raises(RemoteProtocolError):
        receive(tmp_path / "t", *items)
    assert os.listdir(tmp_path) == []


def test_a_file_that_ends_too_soon_leaves_nothing(tmp_path: Path) -> None:
    record, _ = file(b"f", bytes(10))
    with pytest.raises(RemoteProtocolError, match="middle"):
        receive(tmp_path / "t", ROOT, (record, bytes(9)))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("budget", "words"),
    [(Budget("/src", max_bytes=9), "max_bytes=9"), (Budget("/src", max_entries=2), "max_entries=2")],
)
def test_limits(tmp_path: Path, budget: Budget, words: str) -> None:
    with pytest.raises(FilesystemError, match=words) as caught:
        receive(tmp_path / "t", ROOT, file(b"f", bytes(5)), file(b"g", bytes(5)), budget=budget)
    assert caught.value.path == "/src"
    assert os.listdir(tmp_path) == []


def test_the_depth_is_bounded_and_what_is_as_deep_as_that_can_be_removed(tmp_path: Path) -> None:
    def deep(levels: int) -> list[TreeRecord]:
        return [ROOT, *(folder(b"/".join([b"d"] * depth)) for depth in range(1, levels))]

    receive(tmp_path / "t", *deep(MAX_DEPTH))
    with pytest.raises(FilesystemError, match="within each other"):
        receive(tmp_path / "u", *deep(MAX_DEPTH + 1))
    assert os.listdir(tmp_path) == ["t"]


def test_a_target_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("t", "dangling", ".", ".."):
        with pytest.raises(FileExistsError):
            TreeWriter(tmp_path / name, Budget("/src"), symlinks=True)


def test_a_root_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FilesystemError, match="Not a directory"):
        receive(tmp_path / "t", file(b"", b"x"))


def test_no_descriptor_is_left_open_in_the_middle(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    writer = TreeWriter(tmp_path / "t", Budget("/src"), symlinks=False)
    record, _ = file(b"a/b/f", bytes(10))
    writer.feed_untrusted(ROOT.pack() + folder(b"a").pack() + folder(b"a/b").pack() + record.pack() + b"12")
    writer.close()
    (tmp_path / "source" / "a").mkdir(parents=True)
    (tmp_path / "source" / "a" / "f").write_bytes(bytes(1_000_000))
    reader = TreeReader(tmp_path / "source")
    reader.lot()
    reader.close()
    assert os.listdir("/proc/self/fd") == before


def test_what_cannot_be_read_on_the_host_is_named(tmp_path: Path) -> None:
    for path, name in ((tmp_path / "gone", "gone"), (tmp_path / "file", "file")):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match=name):
            TreeReader(path).lot()
    (tmp_path / "d" / "inner").mkdir(parents=True)
    big = tmp_path / "d" / "inner" / "big"
    big.write_bytes(bytes(1_000_000))
    reader = TreeReader(tmp_path / "d")
    reader.lot()
    os.truncate(big, 10)
    with pytest.raises(OSError, match="shorter") as caught:
        while reader.lot():
            pass
    assert caught.value.filename == str(big)
