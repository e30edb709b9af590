"""The operations of docs/wire.md, *Files*, that give and take no bytes, on the simulated file system."""

from __future__ import annotations

import errno
from collections.abc import Callable

import attrs

from trio_sandbox.client.fs_types import FOLDER, REGULAR, SYMLINK
from trio_sandbox.relay.messages import (
    Done,
    Fs,
)
from trio_sandbox.testing.files import UserFiles, walk
from trio_sandbox.testing.inodes import ENTER, READ, WRITE, FileError, Inode

Users = Callable[[str], tuple[int | None, int | None]]
"""What `owner` names: a user and a group, None for what stays."""


def within(user: UserFiles, request: Fs) -> Fs:
    """A request with a `root`, as one without, and with the folders above its path; the request itself without one.

    Nothing is mounted here, so the root is but the beginning of the path. Raises FileError.
    """
    if not request.root:
        return request
    request = attrs.evolve(request, path=request.root.rstrip(b"/") + request.path)
    if request.op in ("write", "symlink", "unpack") and not request.append:
        above = request.path.rstrip(b"/").rpartition(b"/")[0]
        mkdir(user, Fs("mkdir", above or b"/", recursive=True))
    return request


def make_room(user: UserFiles, request: Fs) -> None:
    """See that the path of a request with a `root` is free, or may be replaced. Raises FileError."""
    folder, name, found = user.place(request.path, follow=False)
    if found is not None and (not request.replace or found.is_folder):
        raise FileError(errno.EISDIR if request.replace else errno.EEXIST, request.path)
    folder.entries.pop(name, None)


def append(user: UserFiles, request: Fs, content: bytes | bytearray) -> None:
    """Add to a regular file that is there. Raises FileError."""
    found = user.find(request.path)
    if found.kind != REGULAR:
        raise FileError(errno.EINVAL, request.path)
    user.files.replace(found, found.content + content)


def readable(user: UserFiles, path: bytes) -> Inode:
    """A file to read. Raises FileError."""
    found = user.find(path)
    if found.is_folder:
        raise FileError(errno.EISDIR, path)
    found.require(READ, user.uid, user.gid, path)
    return found


def writable(user: UserFiles, request: Fs) -> tuple[Inode, bytes, Inode | None]:
    """Where `write` writes. Raises FileError before the first byte is taken."""
    folder, name, found = user.place(request.path)
    if request.path.endswith(b"/") or (found is not None and found.is_folder):
        raise FileError(errno.EISDIR, request.path)
    if found is None or request.atomic:
        folder.require(WRITE | ENTER, user.uid, user.gid, request.path)
    if found is not None and not request.atomic:
        found.require(WRITE, user.uid, user.gid, request.path)
    return folder, name, found


def write(user: UserFiles, request: Fs, content: bytes | bytearray) -> None:
    """Put the content in its place."""
    folder, name, found = writable(user, request)
    mode = REGULAR | (request.mode if request.mode >= 0 else 0o644)
    new = found if found is not None and not request.atomic else user.files.make(mode, user.uid, user.gid)
    if found is not None and new is not found:
        new.mode, new.uid, new.gid = found.mode, found.uid, found.gid
        if user.uid and (found.uid, found.gid) != (user.uid, user.gid):
            raise FileError(errno.EPERM, request.path)
    user.files.replace(new, content)
    if folder.entries.get(name) is not new:
        folder.entries[name] = new
        user.touched(folder)


def stat(user: UserFiles, request: Fs) -> Done:
    return Done(status=user.find(request.path, follow=request.follow).status)


def readlink(user: UserFiles, request: Fs) -> Done:
    found = user.find(request.path, follow=False)
    if not found.is_link:
        raise FileError(errno.EINVAL, request.path)
    return Done(target=found.target)


def mkdir(user: UserFiles, request: Fs) -> Done:
    mode = request.mode if request.mode >= 0 else 0o755
    if not request.recursive:
        user.add(request.path.rstrip(b"/") or b"/", FOLDER | mode)
        return Done()
    steps = [step for step in request.path.split(b"/") if step]
    for count in range(1, len(steps) + 1):
        path = b"/" + b"/".join(steps[:count])
        _, _, found = user.place(path)
        if found is None:
            user.add(path, FOLDER | (mode if count == len(steps) else 0o755))
        elif not found.is_folder:
            raise FileError(errno.EEXIST if count == len(steps) else errno.ENOTDIR, path)
    return Done()


def remove(user: UserFiles, request: Fs) -> Done:
    folder, name, found = user.place(request.path, follow=False)
    if found is None:
        raise FileError(errno.ENOENT, request.path)
    if found.is_folder:
        raise FileError(errno.EISDIR, request.path)
    _unlink(user, folder, name, request.path)
    return Done()


def remove_dir(user: UserFiles, request: Fs) -> Done:
    folder, name, found = user.place(request.path, follow=False)
    if found is None:
        raise FileError(errno.ENOENT, request.path)
    if not found.is_folder:
        raise FileError(errno.ENOTDIR, request.path)
    if name == b".":
        raise FileError(errno.EBUSY if found is user.files.root else errno.EINVAL, request.path)
    if found.entries and not request.recursive:
        raise FileError(errno.ENOTEMPTY, request.path)
    count = 1 + sum(1 for _ in walk(found))
    if found.entries:
        found.require(READ | WRITE | ENTER, user.uid, user.gid, request.path)
    _unlink(user, folder, name, request.path)
    return Done(count=count)


def _unlink(user: UserFiles, folder: Inode, name: bytes, path: bytes) -> None:
    folder.require(WRITE | ENTER, user.uid, user.gid, path)
    sticky = folder.mode & 0o1000 and user.uid not in (0, folder.uid, folder.entries[name].uid)
    if sticky:
        raise FileError(errno.EPERM, path)
    del folder.entries[name]
    user.touched(folder)


def rename(user: UserFiles, request: Fs) -> Done:
    folder, name, found = user.place(request.path, follow=False)
    if found is None:
        raise FileError(errno.ENOENT, request.path)
    there, new_name, old = user.place(request.to, follow=False)
    for place in (folder, there):
        place.require(WRITE | ENTER, user.uid, user.gid, request.path)
    if found.is_folder and (there is found or any(entry is there for _, entry in walk(found))):
        raise FileError(errno.EINVAL, request.path)
    if old is not None and old is not found:
        if old.is_folder and not found.is_folder:
            raise FileError(errno.EISDIR, request.path)
        if found.is_folder and not old.is_folder:
            raise FileError(errno.ENOTDIR, request.path)
        if old.entries:
            raise FileError(errno.ENOTEMPTY, request.path)
    del folder.entries[name]
    there.entries[new_name] = found
    for place in (folder, there):
        user.touched(place)
    return Done()


def symlink(user: UserFiles, request: Fs) -> Done:
    if request.root:
        make_room(user, request)
    user.add(request.path, SYMLINK | 0o777, request.to)
    return Done()


def chmod(user: UserFiles, request: Fs) -> Done:
    found = user.find(request.path, follow=request.follow)
    if found.is_link:
        raise FileError(errno.EOPNOTSUPP, request.path)
    if user.uid not in (0, found.uid):
        raise FileError(errno.EPERM, request.path)
    found.mode = found.kind | request.mode
    found.changed = user.files.time_ns()
    return Done()


def chown(user: UserFiles, request: Fs, users: Users) -> Done:
    found = user.find(request.path, follow=request.follow)
    uid, gid = users(request.owner)
    if user.uid and (uid not in (None, found.uid) or user.uid != found.uid):
        raise FileError(errno.EPERM, request.path)
    found.uid = found.uid if uid is None else uid
    found.gid = found.gid if gid is None else gid
    found.changed = user.files.time_ns()
    return Done()


def copy(user: UserFiles, request: Fs) -> Done:
    source = user.find(request.path, follow=request.follow)
    if source.is_folder and not request.recursive:
        raise FileError(errno.EISDIR, request.path)
    folder, name, target = user.place(request.to, follow=False)
    if source.is_folder and (folder is source or any(entry is folder for _, entry in walk(source))):
        raise FileError(errno.EINVAL, request.to)
    if source.is_folder and target is not None and target.is_link:
        raise FileError(errno.ENOTDIR, request.to)
    return Done(count=_copy(user, source, folder, name, request))


def _copy(user: UserFiles, source: Inode, folder: Inode, name: bytes, request: Fs) -> int:
    target = folder.entries.get(name) if name != b"." else folder
    if target is source:
        raise FileError(errno.EINVAL, request.to)
    if source.is_folder:
        source.require(READ | ENTER, user.uid, user.gid, request.path)
        if target is not None and not target.is_folder:
            raise FileError(errno.ENOTDIR, request.to)
    else:
        if not source.is_link:
            source.require(READ, user.uid, user.gid, request.path)
        if target is not None and target.is_folder:
            raise FileError(errno.EISDIR, request.to)
    if target is None or not source.is_folder:
        folder.require(WRITE | ENTER, user.uid, user.gid, request.to)
        target = user.files.make(source.mode, source.uid if user.uid == 0 else user.uid, source.gid, source.target)
        if source.kind == REGULAR:
            user.files.replace(target, source.content)
        folder.entries[name] = target
        user.touched(folder)
    made = target.modified == target.born
    count = 1 + sum(_copy(user, entry, target, below, request) for below, entry in list(source.entries.items()))
    if made or not source.is_folder:
        target.modified, target.accessed = source.modified, source.accessed
    return count


def sync(user: UserFiles, request: Fs) -> Done:
    user.find(request.path)
    return Done()


OPERATIONS: dict[str, Callable[[UserFiles, Fs], Done]] = {
    "stat": stat,
    "readlink": readlink,
    "mkdir": mkdir,
    "remove": remove,
    "remove_dir": remove_dir,
    "rename": rename,
    "symlink": symlink,
    "chmod": chmod,
    "copy": copy,
    "sync": sync,
}

__all__ = ["OPERATIONS", "Users", "append", "chown", "make_room", "readable", "within", "writable", "write"]
