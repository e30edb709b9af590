"""Where a tar stream goes on its way into a root file system."""

from __future__ import annotations

import fcntl
import os
from typing import Protocol

import attrs

from trio_sandbox.image.progress import Meter

BUFFER_BYTES = 256 << 10
"""Collected before they are written."""

DIRECT_BYTES = 32 << 10
"""A piece of at least this size is written from where it is."""

PIPE_BYTES = 1 << 20
"""What the pipe should hold, so that writer and reader need not take turns: the most that anybody may ask for."""


ZEROS = bytes(1 << 20)


class Sink(Protocol):
    """Takes pieces of a stream, and keeps none of them."""

    def write(self, data: bytes | memoryview, /) -> None: ...


@attrs.define(eq=False)
class PipeSink:
    """A sink that writes to a blocking descriptor in large pieces. Flush it at the end."""

    descriptor: int
    _buffer: bytearray = attrs.field(factory=bytearray)

    def write(self, data: bytes | memoryview) -> None:
        if len(data) >= DIRECT_BYTES:
            self.flush()
            _write_all(self.descriptor, memoryview(data))
            return
        self._buffer += data
        if len(self._buffer) >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        buffer, self._buffer = self._buffer, bytearray()
        _write_all(self.descriptor, memoryview(buffer))


def write_zeros(amount: int, sink: Sink, meter: Meter) -> None:
    """Write the hole of a sparse file; the packer finds it again."""
    while amount > 0:
        step = min(amount, len(ZEROS))
        sink.write(memoryview(ZEROS)[:step])
        meter.add(step)
        amount -= step


def widen(pipe: int) -> None:
    """Let a pipe hold more, if the kernel allows it: there is a limit for each user."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        pass


def _write_all(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]
