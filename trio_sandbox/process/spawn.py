"""How a program gets a sandbox process: from a fork server that is started with the first and ends with the program.

Sync, and nothing here waits for long but the first start of the fork server: callers on an event loop use a worker
thread. One fork server for each process that asks; a process that was forked itself starts its own.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import attrs

from trio_sandbox.errors import HostNotReadyError

START_TIMEOUT = 60.0
"""Seconds for a fork server to import the runtime. Half a second is usual."""

REPORT_BYTES = 1 << 20
"""Of what a process says and nobody has read: room for all events of an image of 256 layers, but for its progress."""


@attrs.frozen
class Spawned:
    """A sandbox process that was asked for: our ends of its pipes. The caller closes both.

    report: what it says, line by line; its end is the end of the process, once it has nothing more to say.
    leash: closing it means that we are gone; a byte on it sets the sandbox free.
    """

    pid: int
    report: int
    leash: int


class ForkServer:
    """The fork server of this process. Not usable after a fork: see `fork_server`."""

    def __init__(self) -> None:
        self.creator = os.getpid()
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(START_TIMEOUT)
        self._channel = ours
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trio_sandbox.process.zygote", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._is_ready = False

    @property
    def is_alive(self) -> bool:
        """Whether it can still be asked."""
        return self.creator == os.getpid() and self._process.poll() is None

    def close(self) -> None:
        """Let it go: what it forked lives on. Harmless in a process that was forked and has inherited it."""
        self._channel.close()
        if self.creator == os.getpid():
            self._process.wait()

    def spawn(self, payload: str) -> Spawned:
        """Fork a sandbox process with `payload` as its order. Raises HostNotReadyError."""
        order = os.memfd_create("order")
        report, their_report = os.pipe2(os.O_CLOEXEC)
        with suppress(OSError):  # where this user has many pipes: then events are lost sooner
            fcntl.fcntl(report, fcntl.F_SETPIPE_SZ, REPORT_BYTES)
        their_leash, leash = os.pipe2(os.O_CLOEXEC)
        try:
            with open(order, "w", encoding="utf-8", closefd=False) as file:
                file.write(payload)
            os.lseek(order, 0, os.SEEK_SET)
            pid = self._ask([order, their_report, their_leash])
        except BaseException:
            os.close(report)
            os.close(leash)
            raise
        finally:
            for descriptor in (order, their_report, their_leash):
                os.close(descriptor)
        return Spawned(pid, report, leash)

    def _ask(self, descriptors: list[int]) -> int:
        try:
            with self._lock:
                if not self._is_ready:
                    if self._channel.recv(64) != b"ready":
                        raise OSError("it ended while it started")
                    self._is_ready = True
                request = json.dumps({"creator": os.getpid()}).encode()
                socket.send_fds(self._channel, [request], descriptors)
                answer = self._channel.recv(64)
            return int(answer)
        except (OSError, ValueError) as error:
            self._process.kill()
            self._process.wait()
            raise HostNotReadyError("sandbox process", f"the fork server failed: {error}", "try again") from error


_current: ForkServer | None = None
_starting = threading.Lock()


def fork_server() -> ForkServer:
    """The fork server of this process, started now if there is none."""
    global _current
    with _starting:
        if _current is None or not _current.is_alive:
            if _current is not None:
                _current.close()
            _current = ForkServer()
        return _current


@atexit.register
def _close() -> None:
    if _current is not None:
        _current.close()
