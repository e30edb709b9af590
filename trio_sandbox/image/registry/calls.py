"""Blocking calls from Trio that end at once when they are cancelled, wherever they are stuck.

A call runs in a worker thread. It tells its `Call` of every socket that it is going to block on. Cancelling shuts those
down, which wakes a thread out of connecting, a TLS handshake, writing and reading alike; so neither a thread nor a
descriptor is left. A look-up of a host name cannot be woken: it has a thread of its own, which is left to itself and
ends when the system's resolver gives up.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from typing import Any, TypeVar

import trio

T = TypeVar("T")
_Address = tuple[int, int, int, str, tuple[Any, ...]]
PAUSE = 0.02
"""Seconds between two looks for cancellation, where a thread waits for another."""


class Interrupted(Exception):
    """The call was cancelled. Nobody sees this: the caller has left already."""


class Call:
    """What one blocking call can be stuck on. `interrupt` may come from any thread, at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._interrupted = threading.Event()

    def attach(self, sock: socket.socket) -> None:
        """Wake whoever blocks on this socket when the call is cancelled. Raises Interrupted when it was."""
        # A second descriptor of the same socket: TLS takes the first one away from its object, and has no dup() itself.
        twin = socket.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
        with self._lock:
            if not self._interrupted.is_set():
                self._sockets.append(twin)
                return
        twin.close()
        raise Interrupted

    def interrupt(self) -> None:
        """Let go of everything, from now on."""
        with self._lock:
            self._interrupted.set()
            for sock in self._sockets:
                with suppress(OSError):  # not connected, or not any more
                    sock.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Raise Interrupted when the call was cancelled."""
        if self._interrupted.is_set():
            raise Interrupted

    def acquire(self, lock: threading.Lock) -> None:
        """Take a lock. Raises Interrupted."""
        while not lock.acquire(timeout=PAUSE):
            self.check()

    def close(self) -> None:
        """The call is over."""
        with self._lock:
            for sock in self._sockets:
                sock.close()
            self._sockets.clear()


_current: ContextVar[Call] = ContextVar("call")


def current_call() -> Call:
    """The call that this thread works for. Raises LookupError outside of `interruptible`."""
    return _current.get()


def in_a_call() -> bool:
    """Whether this thread works for a call."""
    return _current.get(None) is not None


async def interruptible(work: Callable[[], T]) -> T:
    """Run `work` in a thread and return what it returns. It must not hand out anything that needs closing.

    Cancellation: the sockets that it uses are shut down, and it has ended before the cancellation goes on.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    call, ended, token = Call(), trio.Event(), trio.lowlevel.current_trio_token()

    def run() -> T:
        _current.set(call)
        try:
            return work()
        finally:
            call.close()
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(ended.set)

    try:
        # A limiter of its own never makes it wait: from here on it is certain that `run` runs.
        return await trio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))
    finally:
        call.interrupt()
        # Its files are the caller's to close: nobody may go on before it has ended, even where a disk is stuck.
        with trio.CancelScope(shield=True):
            await ended.wait()


def open_socket(
    host: str, port: int, timeout: float | None, options: Iterable[tuple[int, int, int | bytes]]
) -> socket.socket:
    """A TCP connection, to the first address of `host` that takes it. timeout: seconds, for each address.

    Raises OSError, TimeoutError, socket.gaierror, Interrupted.
    """
    call, failure = current_call(), OSError("the host has no address")
    for family, kind, protocol, _, address in _addresses(host, port, timeout, call):
        with ExitStack() as unwinding:
            try:
                sock = unwinding.enter_context(socket.socket(family, kind, protocol))
                for option in options:
                    sock.setsockopt(*option)
                sock.settimeout(timeout)
                call.attach(sock)
                sock.connect(address)
                call.check()
                unwinding.pop_all()
                return sock
            except OSError as error:
                call.check()
                failure = error
    raise failure


def _addresses(host: str, port: int, timeout: float | None, call: Call) -> Sequence[_Address]:
    with suppress(socket.gaierror):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    done = threading.Event()
    found: list[_Address] = []
    failures: list[OSError] = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            failures.append(error)
        finally:
            done.set()

    threading.Thread(target=look_up, name=f"look up {host}", daemon=True).start()
    waited = 0.0
    while not done.wait(PAUSE):
        call.check()
        waited += PAUSE
        if timeout is not None and waited >= timeout:
            raise TimeoutError("the host's name was not found in time")
    if failures:
        raise failures[0]
    return found
