"""remove_dir and copy: whole trees, deep ones, hostile ones, and where they end."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.agent_client import Client
from tests.guest.fs_client import fs

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="changing the owner, or mounting, needs root")
DEEP = 10_000


def make_deep(root: Path, levels: int) -> None:
    """Folders within folders, far beyond what fits into one path, with a file in each hundredth and in the last."""
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    for level in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        if level % 100 == 99 or level == levels - 1:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def depth(root: Path) -> int:
    """How many folders are below each other."""
    here, levels = os.open(root, os.O_RDONLY), 0
    while True:
        try:
            below = os.open("d", os.O_RDONLY, dir_fd=here)
        except FileNotFoundError:
            os.close(here)
            return levels
        os.close(here)
        here, levels = below, levels + 1


def picture(root: Path) -> dict[str, object]:
    """All of a tree that a copy keeps."""
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(root):
        for name in [".", *folders, *files]:
            path = Path(folder, name)
            status = path.lstat()
            kind = stat.S_IFMT(status.st_mode)
            content = os.readlink(path) if kind == stat.S_IFLNK else path.read_bytes() if kind == stat.S_IFREG else None
            found[str(path.relative_to(root))] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                status.st_rdev,
                content,
            )
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with files, folders and links of many kinds."""
    root = tmp_path / "tree"
    (root / "a" / "b" / "c").mkdir(parents=True)
    (root / "empty").mkdir(mode=0o700)
    (root / "a" / "file").write_bytes(b"1" * 100_000)
    (root / "a" / "b" / "run").write_bytes(b"#!/bin/sh\n")
    (root / "a" / "b" / "run").chmod(0o6755)
    (root / "nothing").write_bytes(b"")
    (root / os.fsdecode(b"\xff bytes")).write_bytes(b"x")
    (root / "link").symlink_to("a/file")
    (root / "dangling").symlink_to("/no/where")
    (root / "outside").symlink_to(tmp_path)
    os.mkfifo(root / "a" / "fifo", 0o640)
    for number, (folder, _, files) in enumerate(list(os.walk(root, topdown=False))):
        for name in files:
            os.utime(Path(folder, name), ns=(10**18 + number, 10**18 + 7 * number + 1), follow_symlinks=False)
        os.utime(folder, ns=(10**18, 10**18 + 13 * number + 3))
    (root / "empty").chmod(0o500)
    return root


def test_remove_dir(agent: Client, tree: Path) -> None:
    assert fs(agent, "remove_dir", tree).error == (errno.ENOTEMPTY, str(tree))
    assert fs(agent, "remove_dir", tree / "empty").count == 1
    for recursive in (False, True):
        for name in ("nothing", "link", "outside", "outside/tree/nothing"):
            assert fs(agent, "remove_dir", tree / name, recursive=recursive).error == (errno.ENOTDIR, str(tree / name))
        missing = tree / "missing"
        assert fs(agent, "remove_dir", missing, recursive=recursive).error == (errno.ENOENT, str(missing))


def test_remove_tree(agent: Client, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    assert fs(agent, "remove_dir", tree, recursive=True).count == 13
    assert not tree.exists()
    assert (tmp_path / "kept").read_text() == "kept"  # the tree had a link to where this is


def test_what_cannot_be_removed_keeps_its_content(agent: Client, tree: Path) -> None:
    before = picture(tree)
    for path, code in {f"{tree}/.": errno.EINVAL, f"{tree}/a/..": errno.ENOTEMPTY, "/": errno.EBUSY}.items():
        assert fs(agent, "remove_dir", path, recursive=True).error == (code, path)
    outside = f"{tree}/outside/"  # the slash follows a link for rmdir(2)'s lookup, and yet it is none of a folder
    assert fs(agent, "remove_dir", outside, recursive=True).error == (errno.ENOTDIR, outside)
    assert picture(tree) == before


def test_remove_deep_tree(agent: Client, memory_folder: Path) -> None:
    make_deep(memory_folder / "deep", DEEP)
    assert fs(agent, "remove_dir", memory_folder / "deep", recursive=True).count == DEEP + 1 + DEEP // 100
    assert not (memory_folder / "deep").exists()


@pytest.fixture
def mounted(small_disk: Path) -> Path:
    (small_disk / "precious").write_text("precious")
    return small_disk


def test_other_file_systems_are_not_entered(agent: Client, mounted: Path) -> None:
    assert fs(agent, "remove_dir", mounted, recursive=True).error == (errno.EBUSY, str(mounted))
    assert fs(agent, "remove_dir", mounted.parent, recursive=True).error == (errno.EBUSY, str(mounted))
    assert (mounted / "precious").read_text() == "precious"


def test_bind_mounts_are_not_entered(agent: Client, mounted: Path) -> None:
    """They have the device number of the tree around them."""
    tree = mounted / "tree"
    (tree / "hole").mkdir(parents=True)
    (mounted / "elsewhere").mkdir()
    (mounted / "elsewhere" / "precious").write_text("precious")
    subprocess.run(["mount", "--bind", mounted / "elsewhere", tree / "hole"], check=True)
    try:
        assert fs(agent, "remove_dir", tree, recursive=True).error == (errno.EBUSY, str(tree / "hole"))
        assert (tree / "hole" / "precious").exists()
    finally:
        subprocess.run(["umount", tree / "hole"], check=True)
    assert fs(agent, "remove_dir", tree, recursive=True).count == 2


@pytest.fixture
def swapper(tmp_path: Path) -> Iterator[Path]:
    """A tree in which, all the time, a folder and a link to somewhere precious change their names."""
    root, precious = tmp_path / "tree", tmp_path / "precious"
    precious.mkdir()
    for number in range(50):
        (precious / f"{number}").write_text("precious")
    (root / "a").mkdir(parents=True)
    (root / "b").symlink_to(precious)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            try:
                os.rename(root / "a", root / "c")
                os.rename(root / "b", root / "a")
                os.rename(root / "c", root / "b")
            except OSError:  # it is being removed: make it anew
                with contextlib.suppress(OSError):
                    (root / "a").mkdir(parents=True)
                with contextlib.suppress(OSError):
                    (root / "b").symlink_to(precious)

    thread = threading.Thread(target=swap)
    thread.start()
    yield root
    stop.set()
    thread.join()


def test_race_with_links_leads_nowhere(agent: Client, swapper: Path) -> None:
    for _ in range(100):
        outcome = fs(agent, "remove_dir", swapper, recursive=True)
        if outcome.end.body["errno"]:
            assert outcome.error[0] in (errno.ENOTDIR, errno.ENOTEMPTY, errno.ELOOP, errno.ENOENT, errno.EISDIR)
    assert len(os.listdir(swapper.parent / "precious")) == 50


def test_copy_file(agent: Client, tree: Path, tmp_path: Path) -> None:
    source, target = tree / "a" / "b" / "run", tmp_path / "copy"
    assert fs(agent, "copy", source, to=target).count == 1
    assert picture_of(source) == picture_of(target)
    target.write_text("something else")
    os.link(target, tmp_path / "hard")
    fs(agent, "copy", tree / "a" / "file", to=target).check()
    assert target.read_bytes() == b"1" * 100_000
    assert (tmp_path / "hard").read_text() == "something else"


def picture_of(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    return status.st_mode, status.st_mtime_ns, status.st_uid, status.st_gid, path.read_bytes()


def test_copy_of_links(agent: Client, tree: Path, tmp_path: Path) -> None:
    link, target = tree / "link", tmp_path / "copy"
    fs(agent, "copy", link, to=target).check()
    assert os.readlink(target) == "a/file"
    assert target.lstat().st_mtime_ns == link.lstat().st_mtime_ns
    fs(agent, "copy", link, to=target, follow=True).check()  # over the link that is there: it is not followed
    assert not target.is_symlink()
    assert target.read_bytes() == b"1" * 100_000
    fs(agent, "copy", tree / "dangling", to=target).check()
    assert os.readlink(target) == "/no/where"
    missing = fs(agent, "copy", tree / "dangling", to=target, follow=True)
    assert missing.error == (errno.ENOENT, str(tree / "dangling"))


def test_copy_of_what_is_no_file(agent: Client, tree: Path, tmp_path: Path) -> None:
    assert fs(agent, "copy", tree, to=tmp_path / "copy").error == (errno.EISDIR, str(tree))
    fs(agent, "copy", tree / "a" / "fifo", to=tmp_path / "fifo").check()  # does not wait for a writer
    status = (tmp_path / "fifo").lstat()
    assert stat.S_ISFIFO(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o640
    fs(agent, "copy", "/proc/self/status", to=tmp_path / "status").check()
    assert (tmp_path / "status").read_bytes().startswith(b"Name:\t")


def test_copy_errors_name_their_file(agent: Client, tree: Path, tmp_path: Path) -> None:
    here, gone = tree / "nothing", tmp_path / "gone" / "x"
    assert fs(agent, "copy", gone, to=tmp_path / "y").error == (errno.ENOENT, str(gone))
    assert fs(agent, "copy", here, to=gone).error == (errno.ENOENT, str(gone))
    assert fs(agent, "copy", tree, to=gone, recursive=True).error == (errno.ENOENT, str(gone))
    assert fs(agent, "copy", here, to=tree / "a").error == (errno.EISDIR, str(tree / "a"))
    assert fs(agent, "copy", tree / "a", to=here, recursive=True).error == (errno.ENOTDIR, str(here))
    (tmp_path / "other" / "b" / "run").mkdir(parents=True)
    outcome = fs(agent, "copy", tree / "a", to=tmp_path / "other", recursive=True)
    assert outcome.error == (errno.EISDIR, str(tmp_path / "other" / "b" / "run"))


def test_copy_tree(agent: Client, tree: Path, tmp_path: Path) -> None:
    before = picture(tree)
    assert fs(agent, "copy", tree, to=tmp_path / "copy", recursive=True).count == 13
    assert picture(tmp_path / "copy") == before == picture(tree)


@needs_root
def test_copy_keeps_owners_where_that_is_allowed(agent: Client, open_folder: Path) -> None:
    source = open_folder / "source"
    source.mkdir()
    (source / "file").write_text("x")
    (source / "link").symlink_to("file")
    for name in (".", "file", "link"):
        os.chown(source / name, 1234, 4321, follow_symlinks=False)
    (source / "file").chmod(0o4755)
    fs(agent, "copy", source, to=open_folder / "roots", recursive=True).check()
    assert picture(open_folder / "roots") == picture(source)
    fs(agent, "copy", source, to=open_folder / "nobodys", recursive=True, user="nobody").check()
    status = (open_folder / "nobodys" / "file").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (65534, 0o755)  # not set-user-id for somebody else


def test_copy_merges_into_what_is_there(agent: Client, tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "a").mkdir(parents=True, mode=0o700)
    (target / "a" / "kept").write_text("kept")
    (target / "a" / "file").symlink_to(tmp_path / "victim")
    (tmp_path / "victim").write_text("victim")
    (tmp_path / "way").symlink_to("target")
    fs(agent, "copy", tree, to=tmp_path / "way", recursive=True).check()
    assert (target / "a" / "kept").read_text() == "kept"
    assert (target / "a" / "file").read_bytes() == b"1" * 100_000
    assert (tmp_path / "victim").read_text() == "victim"
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o700  # a folder that was there stays as it is


def test_copy_does_not_follow_links_of_the_target(agent: Client, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "target" / "a").symlink_to(tmp_path / "elsewhere")
    outcome = fs(agent, "copy", tree, to=tmp_path / "target", recursive=True)
    assert outcome.error == (errno.ENOTDIR, str(tmp_path / "target" / "a"))
    assert os.listdir(tmp_path / "elsewhere") == []


def test_no_copy_into_itself(agent: Client, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to("tree/a")
    before = picture(tree)
    for target in (tree, tree / "new", tree / "a" / "b", tree / "a" / "b" / "new", tmp_path / "way" / "x"):
        assert fs(agent, "copy", tree, to=target, recursive=True).error == (errno.EINVAL, str(target))
    assert fs(agent, "copy", "/", to=tmp_path / "x", recursive=True).error == (errno.EINVAL, str(tmp_path / "x"))
    assert picture(tree) == before
    fs(agent, "copy", tree / "a", to=f"{tree}/aa", recursive=True).check()


def test_copy_deep_tree(agent: Client, memory_folder: Path) -> None:
    make_deep(memory_folder / "deep", DEEP)
    count = DEEP + 1 + DEEP // 100
    assert fs(agent, "copy", memory_folder / "deep", to=memory_folder / "copy", recursive=True).count == count
    assert depth(memory_folder / "copy") == DEEP
    for name in ("deep", "copy"):
        assert fs(agent, "remove_dir", memory_folder / name, recursive=True).count == count


def test_copy_keeps_holes(agent: Client, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(10 << 20)
        file.write(b"middle")
        file.truncate(50 << 20)
    if (tmp_path / "sparse").stat().st_blocks > 1000:
        pytest.skip("no holes on this file system")
    fs(agent, "copy", tmp_path / "sparse", to=tmp_path / "copy").check()
    assert (tmp_path / "copy").stat().st_size == 50 << 20
    assert (tmp_path / "copy").stat().st_blocks < 1000
    with (tmp_path / "copy").open("rb") as file:
        file.seek((10 << 20) - 1)
        assert file.read(8) == b"\0middle\0"


def test_copy_between_file_systems(agent: Client, tree: Path, memory_folder: Path) -> None:
    fs(agent, "copy", tree, to=memory_folder / "copy", recursive=True).check()
    assert picture(memory_folder / "copy") == picture(tree)


def test_copy_without_room(agent: Client, small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "file").write_bytes(bytes(range(256)) * 10_000)
    outcome = fs(agent, "copy", tmp_path / "large", to=small_disk / "copy", recursive=True)
    assert outcome.error == (errno.ENOSPC, str(small_disk / "copy" / "file"))
    assert os.listdir(small_disk / "copy") == []
