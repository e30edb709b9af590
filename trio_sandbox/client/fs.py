"""`sandbox.fs`: the guest's files from outside. anyio only.

Each call is one short-lived helper process in the guest, so a file that blocks (a FIFO, a dead mount) blocks its own
call and nothing else.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Protocol

from trio_sandbox.client.deadlines import deadline_ms
from trio_sandbox.client.fs_call import FsCall, not_begun
from trio_sandbox.client.fs_host import OnProgress, ignore, receive_file, receive_tree, send_file, send_tree
from trio_sandbox.client.fs_streams import FsEntryStream, FsReadStream, FsWriteSink, check_written_untrusted
from trio_sandbox.client.fs_types import (
    FsCopied,
    FsEntry,
    FsEntryKind,
    FsMetadata,
    GuestPath,
    path_bytes,
    path_text,
    raw_path,
)
from trio_sandbox.client.host_tree import Budget
from trio_sandbox.client.transport import ProgramSession
from trio_sandbox.errors import ExecFailedError, FilesystemError, RemoteProtocolError
from trio_sandbox.relay.events import Opener
from trio_sandbox.relay.messages import (
    Done,
    Fs,
)

HostPath = str | os.PathLike[str]


class FsControl(Protocol):
    """What files need of a sandbox: a part of `SandboxControl`."""

    @property
    def default_workdir(self) -> str: ...
    @property
    def default_user(self) -> str: ...
    def open_session(self, request: Opener) -> ProgramSession: ...


class SandboxFs:
    """The files of a sandbox. Got from `Sandbox.fs`.

    Paths are text, bytes or path-like; a relative one begins at the working directory that programs get. Text holds
    what is not UTF-8 as surrogates, so what `list` returns can be given to any call. `user` is `name`, `uid`,
    `user:group` or `uid:gid`, whose rights apply and who owns what is made; None is the user that programs get.

    All raise FilesystemError with the guest's `errno` and the `path` that it is about (PathNotFoundError for ENOENT),
    SandboxNotRunningError, SandboxCrashedError, RemoteProtocolError for a guest that breaks the protocol, and TypeError
    and ValueError for wrong arguments.

    Cancellation: the helper in the guest is killed, and the guest's word that it is gone is awaited for up to 5 s. The
    caller's deadline goes with the request, so that a guest that hears of no cancellation stops too.
    """

    def __init__(self, control: FsControl) -> None:
        self._control = control

    # -- reading

    async def read(
        self, path: GuestPath, *, offset: int = 0, length: int | None = None, user: str | None = None
    ) -> bytes:
        """The bytes of a file from `offset` on, at most `length`; None is all. `read_stream` is for large files."""
        call = self._open("read", path, user, **_span(offset, length))
        async with FsReadStream(call) as stream:
            return await stream.collect()

    async def read_text(self, path: GuestPath, *, encoding: str = "utf-8", user: str | None = None) -> str:
        """The text of a file; line ends as they are. Raises UnicodeDecodeError for bytes that are not `encoding`."""
        return (await self.read(path, user=user)).decode(encoding)

    async def read_stream(
        self, path: GuestPath, *, offset: int = 0, length: int | None = None, user: str | None = None
    ) -> FsReadStream:
        """Open a file, for `async with await sandbox.fs.read_stream(path) as stream: async for piece in stream`.

        Waits for the first piece, so a file that cannot be read is an error here.
        """
        stream = FsReadStream(self._open("read", path, user, lasting=True, **_span(offset, length)))
        try:
            await stream.open()
        except BaseException:
            await stream.aclose()
            raise
        return stream

    # -- writing

    async def write(
        self,
        path: GuestPath,
        data: bytes | bytearray | memoryview | str,
        *,
        mode: int | None = None,
        atomic: bool = True,
        fsync: bool = True,
        user: str | None = None,
    ) -> None:
        """Make a file hold `data`, text as UTF-8. It is replaced as a whole or stays as it was, whatever happens.

        atomic: write a new file beside the target and rename it over it. Symbolic links are followed, an existing
        file's owner and mode are kept, and what is no regular file is written in place. False writes in place: links to
        the same file see the change, and a cancelled or failed write leaves a part. fsync: file and folder are on the
        guest's disk before this returns. mode: permission bits of a file that is new, 0o644 by default.
        """
        content = data.encode() if isinstance(data, str) else bytes(memoryview(data))  # bytes(5) would be five zeros
        async with self._open("write", path, user, **_writing(mode, atomic, fsync)) as call:
            call.feed(content)
            check_written_untrusted((await call.finish()).count, len(content))

    async def write_stream(
        self,
        path: GuestPath,
        *,
        mode: int | None = None,
        atomic: bool = True,
        fsync: bool = True,
        user: str | None = None,
    ) -> FsWriteSink:
        """Begin to write a file: `async with await sandbox.fs.write_stream(path) as sink: await sink.write(piece)`.

        Options as for `write`. An error about the file comes from the sink. Cancellation: nothing was begun.
        """
        return self._sink(path, user, mode, atomic, fsync)

    # -- folders

    async def list(self, path: GuestPath, *, user: str | None = None) -> list[FsEntry]:
        """The entries of a folder in the folder's own order, without `.` and `..`; their metadata does not follow
        links.
        """
        async with self._entries(path, user, lasting=False) as entries:
            return [entry async for entry in entries]

    def iterdir(self, path: GuestPath, *, user: str | None = None) -> FsEntryStream:
        """The entries of a folder of any length, as they come: `async with sandbox.fs.iterdir(path) as entries: async
        for entry in entries`.

        Errors come from the iteration. A loop that is left early without the `async with` block leaves its helper
        waiting in the guest.
        """
        return self._entries(path, user, lasting=True)

    async def mkdir(
        self, path: GuestPath, *, mode: int | None = None, parents: bool = True, user: str | None = None
    ) -> None:
        """Make a folder. parents: those above it too, and no error when it is there. mode: 0o755 by default."""
        await self._do("mkdir", path, user, mode=_mode(mode), recursive=parents)

    async def remove(self, path: GuestPath, *, user: str | None = None) -> None:
        """Remove a file, link or other thing that is no folder."""
        await self._do("remove", path, user)

    async def remove_dir(self, path: GuestPath, *, recursive: bool = True, user: str | None = None) -> None:
        """Remove a folder. recursive: and all that is in it, without following links or entering other file systems.

        Cancellation: a part of it is gone.
        """
        await self._do("remove_dir", path, user, recursive=recursive)

    # -- both

    async def copy(
        self,
        source: GuestPath,
        target: GuestPath,
        *,
        recursive: bool = True,
        follow: bool = True,
        user: str | None = None,
    ) -> None:
        """Copy within the guest: a file, or with `recursive` a folder and all in it, with modes, times, symbolic links,
        and owners where that is allowed.

        An existing file is replaced, an existing folder merged into. follow: a source that is a link stands for what it
        points to; links within a folder stay links. Cancellation: a part of a folder is there.
        """
        await self._do("copy", source, user, to=self._path(target), recursive=recursive, follow=follow)

    async def rename(self, source: GuestPath, target: GuestPath, *, user: str | None = None) -> None:
        """Give a file or folder another name in the same file system, replacing a file or an empty folder there."""
        await self._do("rename", source, user, to=self._path(target))

    async def stat(self, path: GuestPath, *, follow: bool = True, user: str | None = None) -> FsMetadata:
        """What there is to know about a file; with `follow`, about what a link points to."""
        status = (await self._do("stat", path, user, follow=follow)).status
        if status is None:
            raise RemoteProtocolError("a stat without a status")
        return FsMetadata.of(status)

    async def exists(self, path: GuestPath, *, follow: bool = True, user: str | None = None) -> bool:
        """Whether there is such a file; with `follow`, whether what a link points to is there.

        False means ENOENT or ENOTDIR. Raises FilesystemError when the guest cannot tell, EACCES for example.
        """
        try:
            await self.stat(path, follow=follow, user=user)
        except FilesystemError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return False
            raise
        return True

    async def symlink(self, target: GuestPath, path: GuestPath, *, user: str | None = None) -> None:
        """Make `path` a symbolic link to `target`, which is taken as it is, relative or not, there or not."""
        await self._do("symlink", path, user, to=raw_path(target))

    async def readlink(self, path: GuestPath, *, user: str | None = None) -> str:
        """Where a symbolic link points."""
        return path_text((await self._do("readlink", path, user)).target)

    async def chmod(self, path: GuestPath, mode: int, *, follow: bool = True, user: str | None = None) -> None:
        """Set the permission bits, 0 to 0o7777."""
        await self._do("chmod", path, user, mode=_mode(mode), follow=follow)

    async def chown(self, path: GuestPath, owner: str, *, follow: bool = True, user: str | None = None) -> None:
        """Set the owner: `user`, `user:group` or `:group`, as names or numbers. Usually only root may."""
        _check_user("owner", owner)
        await self._do("chown", path, user, owner=owner, follow=follow)

    # -- between host and guest

    async def copy_from_host(
        self,
        host_path: HostPath,
        guest_path: GuestPath,
        *,
        fsync: bool = True,
        user: str | None = None,
        on_progress: OnProgress = ignore,
    ) -> FsCopied:
        """Copy a file or a folder of the host to exactly `guest_path`.

        A file is written as by `write`, with the permission bits of the source if it is new. A folder is made, or
        merged into one that is there, with permission bits, times and symbolic links: what a link points to travels
        only if `host_path` itself is the link. All belongs to `user`. Devices, FIFOs and sockets are left out and
        counted. fsync is for a file. on_progress: called with the bytes of files sent so far. Raises OSError for the
        host's files. Cancellation: of a folder a part is there.
        """
        source = Path(host_path).absolute()
        if source.is_dir():
            async with self._open("unpack", guest_path, user) as call:
                return await send_tree(source, call, on_progress)
        return await send_file(source, lambda mode: self._sink(guest_path, user, mode, True, fsync), on_progress)

    async def copy_to_host(
        self,
        guest_path: GuestPath,
        host_path: HostPath,
        *,
        symlinks: bool = False,
        max_bytes: int | None = None,
        max_entries: int | None = None,
        user: str | None = None,
        on_progress: OnProgress = ignore,
    ) -> FsCopied:
        """Copy a file or a folder of the guest to exactly `host_path`, where it appears whole or not at all.

        A file replaces a file or a link; a folder must be new. The guest is not trusted: names lead nowhere else,
        setuid, setgid and sticky bits are dropped and the umask applies, and only files and folders are made. symlinks:
        make symbolic links too, with the guest's text in them, so that whoever follows one later goes where the guest
        likes; otherwise they are left out and counted. max_bytes, max_entries: more is a FilesystemError (EFBIG);
        without them only the host's disk is a limit. on_progress: called with the bytes of files received so far.
        Raises StorageError and OSError for the host's files.
        """
        target = Path(host_path).absolute()
        status = await self.stat(guest_path, user=user)
        budget = Budget(path_text(self._path(guest_path)), max_bytes, max_entries)
        if status.kind is FsEntryKind.DIRECTORY:
            async with self._open("pack", guest_path, user) as call:
                return await receive_tree(call, target, budget, on_progress, symlinks=symlinks)
        if status.kind is not FsEntryKind.FILE:  # a device may have no end
            raise FilesystemError(errno.EINVAL, budget.source, "neither a regular file nor a folder")
        async with self._open("read", guest_path, user) as call:
            return await receive_file(call, target, status.mode, budget, on_progress)

    # -- the one way to the guest

    def _path(self, path: GuestPath) -> bytes:
        return path_bytes(path, self._control.default_workdir)

    def _open(self, op: str, path: GuestPath, user: str | None, *, lasting: bool = False, **options: Any) -> FsCall:
        """Begin an operation. lasting: it may outlive the scope that it is begun in, so no deadline goes with it."""
        if user is not None:
            _check_user("user", user)
        request = Fs(
            op=op,
            path=self._path(path),
            user=self._control.default_user if user is None else user,
            deadline_ms=0 if lasting else deadline_ms(),
            **options,
        )
        try:
            session = self._control.open_session(request)
        except ExecFailedError as error:
            raise not_begun(error, request.path) from error
        return FsCall(session, request.path)

    async def _do(self, op: str, path: GuestPath, user: str | None, **options: Any) -> Done:
        async with self._open(op, path, user, **options) as call:
            return await call.finish()

    def _sink(self, path: GuestPath, user: str | None, mode: int | None, atomic: bool, fsync: bool) -> FsWriteSink:
        return FsWriteSink(self._open("write", path, user, lasting=True, **_writing(mode, atomic, fsync)))

    def _entries(self, path: GuestPath, user: str | None, *, lasting: bool) -> FsEntryStream:
        return FsEntryStream(self._path(path), lambda: self._open("list", path, user, lasting=lasting))


def _span(offset: int, length: int | None) -> dict[str, Any]:
    for name, value in (("offset", offset), ("length", length or 0)):
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise ValueError(f"{name} must be a number of bytes, not {value!r}")
    return {"offset": offset, "length": -1 if length is None else length}


def _writing(mode: int | None, atomic: bool, fsync: bool) -> dict[str, Any]:
    return {"mode": _mode(mode), "atomic": atomic, "fsync": fsync}


def _mode(mode: int | None) -> int:
    if mode is None:
        return -1
    if type(mode) is not int or not 0 <= mode <= 0o7777:
        raise ValueError(f"mode must be permission bits, 0 to 0o7777, not {mode!r}")
    return mode


def _check_user(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, not {type(value).__name__}")
    if not value or "\0" in value:
        raise ValueError(f"{name} must not be empty or hold NUL")
