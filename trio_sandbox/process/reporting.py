"""What a forked process says to whoever asked for it, over its report pipe. Sync."""

from __future__ import annotations

import fcntl
import json
import os
import select
import struct
import termios
from typing import Any

from trio_sandbox.pull_event import PullEvent


def say(report: int, message: dict[str, Any]) -> None:
    """Say something that matters; waits until it is read, or nobody is left to read it."""
    line = json.dumps(message).encode() + b"\n"
    try:
        while line:
            line = line[os.write(report, line) :]
    except BrokenPipeError:
        pass  # nobody wants to know any more


def say_event(report: int, event: PullEvent) -> None:
    """Say how far an image is, if there is room for it: nobody need listen.

    Where few read, it is the progress within a layer that is lost: half of the pipe is for the other events, of which
    there are a few for each layer.
    """
    line = json.dumps({"pull": event.to_plain()}).encode() + b"\n"
    if len(line) > select.PIPE_BUF or (event.is_progress and _waiting(report) > _room(report) // 2):
        return
    os.set_blocking(report, False)
    try:
        os.write(report, line)  # whole or not at all
    except (BlockingIOError, BrokenPipeError):
        pass
    finally:
        os.set_blocking(report, True)


def _waiting(report: int) -> int:
    """Bytes in the pipe that nobody has read yet."""
    count: int = struct.unpack("i", fcntl.ioctl(report, termios.FIONREAD, bytes(4)))[0]
    return count


def _room(report: int) -> int:
    return fcntl.fcntl(report, fcntl.F_GETPIPE_SZ)
