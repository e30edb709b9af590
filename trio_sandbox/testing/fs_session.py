"""FS: one operation on the simulated files, by a helper task that a kill or a deadline ends."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import attrs
import trio

from trio_sandbox.client.fs_records import RecordStream, TreeRecord
from trio_sandbox.client.fs_types import FOLDER, REGULAR, SYMLINK
from trio_sandbox.convert import pack_map
from trio_sandbox.errors import RemoteProtocolError
from trio_sandbox.relay.events import DataReceived, MessageReceived
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Done,
    Fs,
    StdinClosed,
)
from trio_sandbox.testing import file_ops
from trio_sandbox.testing.files import UserFiles, walk
from trio_sandbox.testing.inodes import READ, FileError, Inode
from trio_sandbox.testing.pipes import Pipe
from trio_sandbox.testing.session import AgentSession, Killed

if TYPE_CHECKING:
    from trio_sandbox.testing.agent import SimulatedAgent

HELPER_PIPE = 262_144
"""Bytes of a helper's pipes."""
TAKES_INPUT = ("write", "unpack")


class FsSession(AgentSession):
    """One operation."""

    def __init__(self, agent: SimulatedAgent, opened: MessageReceived, request: Fs, user: UserFiles) -> None:
        super().__init__(agent, opened)
        self._request, self._user = request, user
        self._in, self._out = Pipe(self._feed, HELPER_PIPE), self.output(FrameType.STDOUT, Pipe(capacity=HELPER_PIPE))
        self._waiting = bytearray()
        self._input_ended = False
        self._scope = trio.CancelScope()
        self._done: Done | None = None

    async def run(self) -> None:
        """Be the helper."""
        asked = self._request
        result = Done(errno=errno.ECANCELED, message=os.strerror(errno.ECANCELED), path=asked.path)
        with self._scope:
            try:
                await self.agent.clock.running()
                await trio.lowlevel.checkpoint()
                result = await self._work()
            except FileError as error:
                names_itself = not error.path or (asked.root and asked.op != "unpack")
                result = Done(error.errno, str(error), asked.path if names_itself else error.path)
        if self.killed:
            self._out.discard()
        if result.errno and not self._input_ended and self._request.op in TAKES_INPUT:
            self._in.discard()
            if not self.is_over:
                self.agent.send(StdinClosed(errno.EPIPE), self.number)
        self._done = result
        self.settle()

    def settle(self) -> None:
        if self._done is not None and not self._out.data:
            self.finish(self._done)

    def kill(self, why: Killed) -> None:
        super().kill(why)
        if self._done is not None:
            self._out.discard()
        self._scope.cancel(reason="the operation was killed")
        self.settle()

    def stdin(self, event: DataReceived) -> None:
        self._input_ended = self._input_ended or event.end
        self._waiting += event.data
        self._feed()

    def _feed(self) -> None:
        taken = self._in.put(bytes(self._waiting)) if self._waiting else 0
        del self._waiting[:taken]
        self._input.taken(taken)
        if self._input_ended and not self._waiting:
            self._in.end()

    # -- the work

    async def _work(self) -> Done:
        request, user = self._request, self._user
        self._request = request = file_ops.within(user, request)
        match request.op:
            case "read":
                return await self._read()
            case "write":
                return await self._write()
            case "list":
                return await self._list()
            case "pack":
                return await self._pack()
            case "unpack":
                return await self._unpack()
            case "chown":
                return file_ops.chown(user, request, self.agent.guest.owner)
        if (operation := file_ops.OPERATIONS.get(request.op)) is None:
            raise FileError(errno.ENOSYS)
        return operation(user, request)

    async def _read(self) -> Done:
        request = self._request
        content = file_ops.readable(self._user, request.path).content
        end = len(content) if request.length < 0 else request.offset + request.length
        piece = bytes(content[request.offset : end])
        await self._out.write(piece)
        return Done(count=len(piece))

    async def _write_within(self) -> Done:
        """With a `root`: a new file of exactly that name, or more of one that is there."""
        content = bytearray()
        while piece := await self._piece():
            content += piece
        if self._request.append:
            file_ops.append(self._user, self._request, content)
        else:
            file_ops.make_room(self._user, self._request)
            file_ops.write(self._user, self._request, content)
        return Done(count=len(content))

    async def _write(self) -> Done:
        if self._request.root:
            return await self._write_within()
        _, _, found = file_ops.writable(self._user, self._request)
        content = bytearray()
        if found is None and not self._request.atomic:
            file_ops.write(self._user, self._request, b"")
        while piece := await self._piece():
            content += piece
            if (limit := self._user.files.capacity) is not None and len(content) > limit - self._user.files.used:
                raise FileError(errno.ENOSPC)
            if not self._request.atomic:
                file_ops.write(self._user, self._request, content)
        file_ops.write(self._user, self._request, content)
        return Done(count=len(content))

    async def _piece(self) -> bytes:
        piece = await self._in.read(65_536)
        await self.agent.clock.running()
        return piece

    async def _list(self) -> Done:
        folder = self._user.find(self._request.path)
        if not folder.is_folder:
            raise FileError(errno.ENOTDIR)
        folder.require(READ, self._user.uid, self._user.gid, self._request.path)
        entries = list(folder.entries.items())
        for name, entry in entries:
            link = {"target": entry.target} if entry.is_link else {}
            await self._out.write(pack_map({"name": name, **attrs.asdict(entry.status), **link}))
        return Done(count=len(entries))

    async def _pack(self) -> Done:
        root = self._user.find(self._request.path)
        count = 0
        for path, inode in [(b"", root), *walk(root)]:
            if not inode.is_link:
                inode.require(READ, self._user.uid, self._user.gid, path)
            size = inode.size if inode.kind == REGULAR else 0
            record = TreeRecord(path.lstrip(b"/"), inode.mode, inode.modified, size, inode.target)
            await self._out.write(record.pack() + bytes(inode.content[:size]))
            count += 1
        return Done(count=count)

    async def _unpack(self) -> Done:
        stream, count = RecordStream(), 0
        current: Inode | None = None
        times: list[tuple[Inode, int]] = []
        try:
            while piece := await self._piece():
                for item in stream.feed_untrusted(piece):
                    if isinstance(item, bytes):
                        assert current is not None
                        self._user.files.replace(current, current.content + item)
                    else:
                        current, count = self._place(item), count + 1
                        times.append((current, item.mtime_ns))
            stream.finish_untrusted()
        except RemoteProtocolError:
            raise FileError(errno.EBADMSG) from None
        for made, mtime_ns in times:  # what was put into them meanwhile has changed them
            made.modified = mtime_ns
        if not count and not self._user.find(self._request.path).is_folder:
            raise FileError(errno.ENOTDIR)
        return Done(count=count)

    def _place(self, record: TreeRecord) -> Inode:
        path = self._request.path + (b"/" + record.name if record.name else b"")
        folder, name, found = self._user.place(path, follow=not record.name)
        if found is not None and not record.name and self._request.root and not self._request.replace:
            raise FileError(errno.EEXIST, path)
        if found is not None and record.kind == FOLDER and found.is_folder:
            return found
        if found is not None:
            if record.kind == FOLDER or found.is_folder:
                raise FileError(errno.ENOTDIR if record.kind == FOLDER else errno.EISDIR, path)
            del folder.entries[name]
        mode = record.mode if record.kind != SYMLINK else SYMLINK | 0o777
        return self._user.add(path, mode, record.target)
