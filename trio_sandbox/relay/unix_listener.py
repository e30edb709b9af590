"""The relay on a Unix socket: for clients of the same user on this machine.

The socket is made with mode 0600, and each peer is asked for its user (SO_PEERCRED): ours and root may come in.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import trio

from trio_sandbox.errors import StorageError
from trio_sandbox.relay.relay import Accept

log = logging.getLogger("trio_sandbox.relay")

READ_SIZE = 131_072
BACKLOG = 64
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


@attrs.define(eq=False)
class StreamTransport:
    """Frames over a byte stream."""

    stream: trio.SocketStream
    is_local: bool = True

    async def receive(self) -> bytes:
        return bytes(await self.stream.receive_some(READ_SIZE))

    async def send(self, frames: list[bytes]) -> None:
        await self.stream.send_all(b"".join(frames))

    async def aclose(self) -> None:
        await self.stream.aclose()


@attrs.frozen
class UnixListener:
    """path: where the socket is made; its folder must exist. One that a dead process left is replaced."""

    path: Path

    @property
    def address(self) -> str:
        return str(self.path)

    async def serve(self, accept: Accept, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept clients until cancelled. Raises StorageError. Cancellation: the socket is closed and its file gone."""
        with _bound(self.path) as listening:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    peer, _ = await _accept(listening)
                    if not _is_allowed(peer):
                        peer.close()
                        continue
                    nursery.start_soon(accept, StreamTransport(trio.SocketStream(peer)))


async def _accept(listening: trio.socket.SocketType) -> tuple[trio.socket.SocketType, object]:
    while True:
        try:
            return await listening.accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED):
                raise
            log.error("a client cannot be let in: %s", error)
            await trio.sleep(0.1)


def _is_allowed(peer: trio.socket.SocketType) -> bool:
    pid, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if uid in (0, os.geteuid()):
        return True
    log.warning("process %d of user %d may not connect", pid, uid)
    return False


@contextmanager
def _bound(path: Path) -> Iterator[trio.socket.SocketType]:
    """A listening socket at `path`, of whatever length: it is reached through its folder's descriptor."""
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(str(path.parent), error.errno or 0, error.strerror or str(error)) from error
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        name = f"/proc/self/fd/{folder}/{path.name}"
        _bind(listening, folder, path, name)
        identity = _identity(folder, path.name)
        try:
            yield trio.socket.from_stdlib_socket(listening)
        finally:
            if _identity(folder, path.name) == identity:
                with suppress(FileNotFoundError):
                    os.unlink(path.name, dir_fd=folder)
    finally:
        listening.close()
        os.close(folder)


def _bind(listening: socket.socket, folder: int, path: Path, name: str) -> None:
    os.fchmod(listening.fileno(), 0o600)  # before bind(2): the file never has another mode
    try:
        if _is_left_over(folder, path.name, name):
            os.unlink(path.name, dir_fd=folder)
        listening.bind(name)
        listening.listen(BACKLOG)
    except OSError as error:
        hint = " (somebody listens there)" if error.errno == errno.EADDRINUSE else ""
        raise StorageError(str(path), error.errno or 0, f"cannot listen: {error.strerror or error}{hint}") from error


def _is_left_over(folder: int, name: str, reachable: str) -> bool:
    """Whether a socket is there that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # one that listens may be too busy to answer
        return probe.connect_ex(reachable) == errno.ECONNREFUSED


def _identity(folder: int, name: str) -> tuple[int, int] | None:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
