"""Files: what each operation does, and with which errno it refuses."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from trio_sandbox import FilesystemError, PathNotFoundError, Sandbox

pytestmark = pytest.mark.anyio
BLOB = bytes(range(256)) * 4000
ROOT = "/tmp/files"


@pytest.fixture
async def folder(sandbox: Sandbox) -> str:
    """An empty folder."""
    if await sandbox.fs.exists(ROOT):
        await sandbox.fs.remove_dir(ROOT)
    await sandbox.fs.mkdir(ROOT)
    return ROOT


async def test_write_and_read(sandbox: Sandbox, folder: str) -> None:
    for content in (b"", b"some", BLOB):
        await sandbox.fs.write(f"{folder}/file", content)
        assert await sandbox.fs.read(f"{folder}/file") == content
    assert await sandbox.fs.read(f"{folder}/file", offset=10, length=5) == BLOB[10:15]
    assert await sandbox.fs.read(f"{folder}/file", offset=len(BLOB)) == b""
    await sandbox.fs.write(f"{folder}/file", "grüß", atomic=False)
    assert await sandbox.fs.read_text(f"{folder}/file") == "grüß"


async def test_streams(sandbox: Sandbox, folder: str) -> None:
    async with await sandbox.fs.write_stream(f"{folder}/file") as sink:
        await sink.write(BLOB)
        await sink.write(BLOB)
    async with await sandbox.fs.read_stream(f"{folder}/file") as stream:
        assert b"".join([piece async for piece in stream]) == BLOB * 2


async def test_a_write_that_is_given_up_changes_nothing(sandbox: Sandbox, folder: str) -> None:
    await sandbox.fs.write(f"{folder}/file", b"old")
    sink = await sandbox.fs.write_stream(f"{folder}/file")
    await sink.write(b"new")
    await sink.abort()
    assert await sandbox.fs.read(f"{folder}/file") == b"old"
    assert [entry.name for entry in await sandbox.fs.list(folder)] == ["file"]


async def test_an_atomic_write_keeps_mode_and_owner_and_follows_links(sandbox: Sandbox, folder: str) -> None:
    await sandbox.fs.write(f"{folder}/file", b"old", mode=0o600)
    await sandbox.fs.chown(f"{folder}/file", "7:8")
    await sandbox.fs.symlink("file", f"{folder}/link")
    await sandbox.fs.write(f"{folder}/link", b"new", mode=0o777)
    found = await sandbox.fs.stat(f"{folder}/file")
    assert (found.mode, found.uid, found.gid, found.size) == (0o600, 7, 8, 3)
    assert await sandbox.fs.readlink(f"{folder}/link") == "file"


async def test_folders(sandbox: Sandbox, folder: str) -> None:
    await sandbox.fs.mkdir(f"{folder}/a/b/c")
    await sandbox.fs.mkdir(f"{folder}/a/b/c")
    await sandbox.fs.write(f"{folder}/a/file", b"12345")
    await sandbox.fs.symlink("nowhere", f"{folder}/a/link")
    entries = {entry.name: entry for entry in await sandbox.fs.list(f"{folder}/a")}
    assert {name: entry.kind.value for name, entry in entries.items()} == {
        "b": "directory",
        "file": "file",
        "link": "symlink",
    }
    assert (entries["file"].size, entries["link"].target, entries["file"].path) == (5, "nowhere", f"{folder}/a/file")
    async with sandbox.fs.iterdir(f"{folder}/a") as stream:
        assert {entry.name async for entry in stream} == set(entries)
    await sandbox.fs.remove_dir(f"{folder}/a")
    assert not await sandbox.fs.exists(f"{folder}/a")


async def test_status(sandbox: Sandbox, folder: str) -> None:
    await sandbox.fs.write(f"{folder}/file", b"12345", mode=0o640)
    await sandbox.fs.chmod(f"{folder}/file", 0o4711)
    await sandbox.fs.symlink(f"{folder}/file", f"{folder}/link")
    found, link = await sandbox.fs.stat(f"{folder}/link"), await sandbox.fs.stat(f"{folder}/link", follow=False)
    assert (found.kind.value, found.size, found.mode, found.uid) == ("file", 5, 0o4711, 0)
    assert (link.kind.value, link.size) == ("symlink", len(f"{folder}/file"))
    assert found.modified_ns > 1_500_000_000_000_000_000


async def test_rename_and_copy(sandbox: Sandbox, folder: str) -> None:
    await sandbox.fs.mkdir(f"{folder}/tree/deep")
    await sandbox.fs.write(f"{folder}/tree/deep/file", b"x", mode=0o600)
    await sandbox.fs.symlink("deep/file", f"{folder}/tree/link")
    await sandbox.fs.copy(f"{folder}/tree", f"{folder}/copied")
    assert await sandbox.fs.read(f"{folder}/copied/link") == b"x"
    assert (await sandbox.fs.stat(f"{folder}/copied/deep/file")).mode == 0o600
    await sandbox.fs.rename(f"{folder}/copied", f"{folder}/renamed")
    assert not await sandbox.fs.exists(f"{folder}/copied")
    await sandbox.fs.write(f"{folder}/other", b"other")
    await sandbox.fs.rename(f"{folder}/other", f"{folder}/renamed/deep/file")
    assert await sandbox.fs.read(f"{folder}/renamed/link") == b"other"


async def test_between_host_and_guest(sandbox: Sandbox, folder: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_bytes(BLOB)
    (source / "link").symlink_to("deep/file")
    assert (await sandbox.fs.copy_from_host(source, f"{folder}/there")).entries == 4
    assert await sandbox.fs.read(f"{folder}/there/link") == BLOB
    copied = await sandbox.fs.copy_to_host(f"{folder}/there", tmp_path / "back", symlinks=True)
    assert (copied.entries, copied.size) == (4, len(BLOB))
    assert (tmp_path / "back" / "link").read_bytes() == BLOB
    await sandbox.fs.copy_to_host(f"{folder}/there/deep/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BLOB


Refused = Callable[[Sandbox, str], Awaitable[object]]
REFUSALS: dict[str, tuple[Refused, int]] = {
    "read nothing": (lambda sb, at: sb.fs.read(f"{at}/nothing"), errno.ENOENT),
    "read a folder": (lambda sb, at: sb.fs.read(at), errno.EISDIR),
    "read below a file": (lambda sb, at: sb.fs.read(f"{at}/file/below"), errno.ENOTDIR),
    "read a loop": (lambda sb, at: sb.fs.read(f"{at}/loop"), errno.ELOOP),
    "read what is secret": (lambda sb, at: sb.fs.read(f"{at}/secret", user="nobody"), errno.EACCES),
    "write below nothing": (lambda sb, at: sb.fs.write(f"{at}/nothing/file", b""), errno.ENOENT),
    "write a folder": (lambda sb, at: sb.fs.write(f"{at}/full", b""), errno.EISDIR),
    "write where one may not": (lambda sb, at: sb.fs.write(f"{at}/new", b"", user="nobody"), errno.EACCES),
    "list nothing": (lambda sb, at: sb.fs.list(f"{at}/nothing"), errno.ENOENT),
    "list a file": (lambda sb, at: sb.fs.list(f"{at}/file"), errno.ENOTDIR),
    "mkdir of what is there": (lambda sb, at: sb.fs.mkdir(f"{at}/full", parents=False), errno.EEXIST),
    "mkdir of a file": (lambda sb, at: sb.fs.mkdir(f"{at}/file"), errno.EEXIST),
    "mkdir below nothing": (lambda sb, at: sb.fs.mkdir(f"{at}/no/thing", parents=False), errno.ENOENT),
    "remove nothing": (lambda sb, at: sb.fs.remove(f"{at}/nothing"), errno.ENOENT),
    "remove a folder": (lambda sb, at: sb.fs.remove(f"{at}/full"), errno.EISDIR),
    "remove_dir of a file": (lambda sb, at: sb.fs.remove_dir(f"{at}/file"), errno.ENOTDIR),
    "remove_dir of a full one": (lambda sb, at: sb.fs.remove_dir(f"{at}/full", recursive=False), errno.ENOTEMPTY),
    "rename nothing": (lambda sb, at: sb.fs.rename(f"{at}/nothing", f"{at}/x"), errno.ENOENT),
    "rename a folder to a file": (lambda sb, at: sb.fs.rename(f"{at}/full", f"{at}/file"), errno.ENOTDIR),
    "rename a folder into itself": (lambda sb, at: sb.fs.rename(f"{at}/full", f"{at}/full/x"), errno.EINVAL),
    "symlink over something": (lambda sb, at: sb.fs.symlink("x", f"{at}/file"), errno.EEXIST),
    "readlink of a file": (lambda sb, at: sb.fs.readlink(f"{at}/file"), errno.EINVAL),
    "stat nothing": (lambda sb, at: sb.fs.stat(f"{at}/nothing"), errno.ENOENT),
    "chmod of what is another's": (lambda sb, at: sb.fs.chmod(f"{at}/file", 0o777, user="nobody"), errno.EPERM),
    "copy nothing": (lambda sb, at: sb.fs.copy(f"{at}/nothing", f"{at}/x"), errno.ENOENT),
    "a name that is too long": (lambda sb, at: sb.fs.write(f"{at}/{'x' * 256}", b""), errno.ENAMETOOLONG),
    "an unknown user": (lambda sb, at: sb.fs.read(f"{at}/file", user="no-such-user"), errno.EINVAL),
}


async def test_refusals(sandbox: Sandbox, folder: str) -> None:
    await sandbox.fs.write(f"{folder}/file", b"file")
    await sandbox.fs.write(f"{folder}/secret", b"secret", mode=0o600)
    await sandbox.fs.mkdir(f"{folder}/full")
    await sandbox.fs.write(f"{folder}/full/file", b"file")
    await sandbox.fs.symlink("loop", f"{folder}/loop")
    wrong = {}
    for name, (operation, number) in REFUSALS.items():
        with pytest.raises(FilesystemError) as caught:
            await operation(sandbox, folder)
        if caught.value.errno != number or isinstance(caught.value, PathNotFoundError) != (number == errno.ENOENT):
            wrong[name] = f"{errno.errorcode[caught.value.errno]}, not {errno.errorcode[number]}"
    assert not wrong
    assert not await sandbox.fs.exists(f"{folder}/nothing")
    assert not await sandbox.fs.exists(f"{folder}/file/below")
