"""The fork server: a process that has imported the runtime, and forks a sandbox process in milliseconds.

Runs as `python -m trio_sandbox.process.zygote FD CREATOR` where FD is its end of a socket pair. It runs no Trio, no
thread and no database, so that what it forks is a fresh program. It exits when its creator is gone: the socket closes,
or, should a relative of the creator hold that open, the creator's pidfd says so. What it forked lives on.

A request is one packet: JSON, and three descriptors: the payload (a memory file), the pipe for the report, and the
leash. The answer is one packet with the child's pid.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading

PRELOADED = ("trio_sandbox.process.program",)
"""What a sandbox process needs, imported once."""
MAX_PACKET = 4096
DESCRIPTORS = 3


def serve(channel: socket.socket, creator: int) -> None:
    """Fork a sandbox process for each request, until the creator is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps what was forked
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the creator, which then goes
    watched = [channel.fileno(), creator]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if creator in ready:
            return
        packet, descriptors, _, _ = socket.recv_fds(channel, MAX_PACKET, DESCRIPTORS)
        if not packet:
            return
        pid = os.fork()
        if pid == 0:
            become_sandbox(channel, creator, json.loads(packet), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(str(pid).encode())


def become_sandbox(channel: socket.socket, creator: int, request: dict[str, int], descriptors: list[int]) -> None:
    """In the child: leave the fork server behind, and be the sandbox's process. Does not return."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.setsid()  # a Ctrl-C at the creator's terminal is the creator's
        channel.close()
        os.close(creator)
        from trio_sandbox.process.program import run

        status = run(request["creator"], *descriptors)
    finally:
        os._exit(status)  # nothing of the fork server's own may run


def main() -> None:
    """Import, say so, serve."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    creator = os.pidfd_open(int(sys.argv[2]))
    for name in PRELOADED:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a fork would lose the other threads"
    gc.collect()
    gc.freeze()  # so that collections in the children do not copy what they share
    channel.send(b"ready")
    serve(channel, creator)


if __name__ == "__main__":
    main()
