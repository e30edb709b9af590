"""Whoever asked for a forked process. Trio only."""

from __future__ import annotations

import os

import trio


async def wait_until_gone(creator: int) -> None:
    """Return when the process has ended, at once when it is not there any more. Its pipes may outlive it: a relative
    that it started can hold them open.
    """
    try:
        process = os.pidfd_open(creator)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(process)
    finally:
        os.close(process)
