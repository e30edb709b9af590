"""Hashing beside other work: a thread that needs the interpreter for moments only, so that it runs on another core.

The other way round, unpacking in a thread and reading headers here, gains nothing: there each waits for the other to
let go of the interpreter.
"""

from __future__ import annotations

import hashlib
import threading
from queue import SimpleQueue
from types import TracebackType

import attrs

WAITING = 8
"""Pieces of data that may wait to be hashed: what is held in memory of a layer."""


@attrs.define(eq=False)
class Sha256:
    """A SHA-256 that is computed by a thread, as the data comes. Its block ends the thread."""

    _hash: hashlib._Hash = attrs.field(factory=hashlib.sha256)
    _pieces: SimpleQueue[bytes | None] = attrs.field(factory=SimpleQueue)
    _room: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(WAITING))
    _thread: threading.Thread = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)

    def __enter__(self) -> Sha256:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def update(self, data: bytes) -> None:
        """Hash more, some time soon."""
        self._room.acquire()
        self._pieces.put(data)

    def digest(self) -> str:
        """`sha256:…` of all data, which ends here. Waits for what is not hashed yet."""
        self._end()
        return f"sha256:{self._hash.hexdigest()}"

    def _end(self) -> None:
        self._pieces.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (data := self._pieces.get()) is not None:
            self._hash.update(data)
            self._room.release()
