"""Whole lines of a file that somebody else appends to, from the front and from the end. In constant memory.

Rule 1: a line without its end was not written yet. Rule 2: a line over MAX_LINE bytes is none; its bytes are passed by.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from trio_sandbox.logs.entry import MAX_LINE

BLOCK = 1 << 18
"""Bytes of a read."""


def lines_from(descriptor: int, offset: int) -> tuple[list[bytes], int]:
    """Some of the whole lines at `offset`, and where they end; no lines where there is no whole one yet."""
    size = BLOCK
    while True:
        block = os.pread(descriptor, size, offset)
        end = block.rfind(b"\n")
        if end >= 0:
            return block[:end].split(b"\n"), offset + end + 1
        if len(block) < size:
            return [], offset
        if size > MAX_LINE:
            return [b""], offset + len(block)  # what is left of that line is damage, and as such no entry
        size *= 2


def lines_backward(descriptor: int, end: int) -> Iterator[bytes]:
    """The whole lines before `end`, the last one first."""
    rest: bytes | None = None  # the end of a line that begins further ahead; None: nothing that counts
    while end > 0:
        start = max(0, end - BLOCK)
        block = os.pread(descriptor, end - start, start)
        if len(block) < end - start:  # it was cut short meanwhile
            rest = None
        end = start
        first, *others = block.split(b"\n")
        if others:
            last = others.pop()
            if rest is not None:
                yield last + rest
            yield from reversed(others)
            rest = first
        elif rest is not None:
            rest = first + rest
        if rest is not None and len(rest) > MAX_LINE:
            rest = None
    if rest is not None:
        yield rest
