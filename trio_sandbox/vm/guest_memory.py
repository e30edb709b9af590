"""The guest's memory from outside: read from a VMM that stands still, written into one that has not begun to run.

What a machine has changed is what its VMM has copied on write, which the kernel tells (`/proc/PID/pagemap`). So a copy
of a machine costs what it has changed since it was cloned, and not what it has. Sync: callers on an event loop use a
worker thread, and the calls that take long let go of the interpreter's lock.

The kernel lets a process read and write the memory of those that it started, unless it is told otherwise
(`kernel.yama.ptrace_scope` of 2 and more, or a filter of system calls).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import attrs

from trio_sandbox.errors import HostNotReadyError, RemoteProtocolError
from trio_sandbox.vm.running import Monitor

PAGE = mmap.PAGESIZE
ENTRY = 8
"""Bytes that /proc/PID/pagemap has for each page."""
MOST_PIECES = 512
"""Pieces that one system call moves."""
_CHANGED = bytes(bool(top & 0xC0) and not top & 0x20 for top in range(256))
"""Of the top byte of a pagemap's entry: present or swapped out, and not a page of a file."""
_RUN = re.compile(rb"\x01+")
_PIECE = struct.Struct("<QQ")
_TOLD = re.compile(r" is (0x[0-9a-fA-F]+)$")

Extent = tuple[int, int]
"""Where in the memory, and how many bytes."""


async def guest_address(monitor: Monitor) -> int:
    """Where the guest's memory begins in the VMM's own. Raises QmpError, QmpClosed, RemoteProtocolError."""
    answer = str(await monitor.execute("human-monitor-command", **{"command-line": "gpa2hva 0"})).strip()
    found = _TOLD.search(answer)
    if found is None:
        raise RemoteProtocolError(f"the VMM does not tell where its guest's memory is: {answer!r}")
    return int(found[1], 16)


def changed(pid: int, address: int, size: int) -> list[Extent]:
    """What of `size` bytes at `address` of a process is its own, and not a page of the file behind it.

    Raises HostNotReadyError.
    """
    with _allowed(), open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        entries = os.pread(pagemap.fileno(), size // PAGE * ENTRY, address // PAGE * ENTRY)
    tops = entries[ENTRY - 1 :: ENTRY].translate(_CHANGED)
    return [(run.start() * PAGE, (run.end() - run.start()) * PAGE) for run in _RUN.finditer(tops)]


@attrs.frozen
class Pages:
    """Pieces of a guest's memory in a memory file: their bytes one after the other, then where each belongs."""

    descriptor: int
    size: int = 0
    """Bytes of the pieces."""
    count: int = 0
    """Pieces."""

    @classmethod
    def with_room(cls, size: int) -> Pages:
        """Empty, with `size` bytes of memory that need not be found any more while a machine stands still. The caller
        closes the descriptor.
        """
        descriptor = os.memfd_create("pages", os.MFD_CLOEXEC)
        try:
            with _mapped(descriptor, size):
                pass
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def read_from(self, pid: int, address: int, extents: Sequence[Extent]) -> Pages:
        """The pieces of a process that stands still. Raises HostNotReadyError."""
        size = sum(length for _, length in extents)
        with _mapped(self.descriptor, size) as here:
            _move(_readv, pid, here, address, extents)
        index = b"".join(_PIECE.pack(*extent) for extent in extents)
        os.ftruncate(self.descriptor, size)
        _write_at(self.descriptor, index, size)
        return attrs.evolve(self, size=size, count=len(extents))

    def extents(self) -> list[Extent]:
        """Where the pieces belong. Raises RemoteProtocolError for what `read_from` cannot have written."""
        index = os.pread(self.descriptor, self.count * _PIECE.size, self.size)
        found: list[Extent] = []
        if len(index) == self.count * _PIECE.size:
            found = [(start, length) for start, length in _PIECE.iter_unpack(index)]
        if sum(length for _, length in found) != self.size:
            raise RemoteProtocolError("the pages of a machine are not whole")
        return found

    def write_to(self, pid: int, address: int, size: int, behind: int | None) -> None:
        """Put the pieces into the memory of a VMM whose guest has not begun to run, and take back what the VMM itself
        has written there. behind: descriptor of the file behind the memory. Raises HostNotReadyError.
        """
        extents = self.extents()
        if any(start + length > size for start, length in extents):
            raise RemoteProtocolError("the pages of a machine are of a larger one")
        for start, length in changed(pid, address, size):
            original = os.pread(behind, length, start) if behind is not None else b""
            with _mapped_bytes(original.ljust(length, b"\0")) as here:
                _move(_writev, pid, here, address, [(start, length)])
        with _mapped(self.descriptor, self.size) as here:
            _move(_writev, pid, here, address, extents)

    def close(self) -> None:
        os.close(self.descriptor)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(descriptor, view, offset)
        view, offset = view[done:], offset + done


@contextmanager
def _mapped(descriptor: int, size: int) -> Iterator[int]:
    """The address of a memory file's first `size` bytes in this process, all of them there."""
    if size == 0:
        yield 0
        return
    if os.fstat(descriptor).st_size < size:
        os.ftruncate(descriptor, size)
    with mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        try:
            yield ctypes.addressof(first)
        finally:
            del first  # else the mapping cannot be undone


@contextmanager
def _mapped_bytes(data: bytes) -> Iterator[int]:
    buffer = ctypes.create_string_buffer(data, len(data))
    yield ctypes.addressof(buffer)


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_libc = ctypes.CDLL(None, use_errno=True)
_SIGNATURE = (
    *(ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong),
    *(ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong),
)
_readv, _writev = _libc.process_vm_readv, _libc.process_vm_writev
for _call in (_readv, _writev):
    _call.argtypes, _call.restype = _SIGNATURE, ctypes.c_ssize_t


def _move(call: Callable[..., int], pid: int, here: int, address: int, extents: Iterable[Extent]) -> None:
    """Move pieces between one stretch of our memory and as many places of another process's."""
    rest = iter(extents)
    with _allowed():
        while some := list(islice(rest, MOST_PIECES)):
            there = (_Piece * len(some))(*(_Piece(address + start, length) for start, length in some))
            size = sum(length for _, length in some)
            ours = (_Piece * 1)(_Piece(here, size))
            done = call(pid, ctypes.byref(ours), 1, ctypes.byref(there), len(some), 0)
            if done != size:
                number = ctypes.get_errno() if done < 0 else errno.EFAULT
                raise OSError(number, os.strerror(number))
            here += size


@contextmanager
def _allowed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            raise
        raise HostNotReadyError(
            "copies of machines",
            f"this host keeps a program from the memory of its own children: {error.strerror}",
            "allow process_vm_readv, and set kernel.yama.ptrace_scope to 0 or 1",
        ) from error
