"""One operation on the guest's files from its request to DONE. anyio only.

An operation that is left before its end, by an error or a cancellation, is killed in the guest, and the guest's word
that its helper is gone is awaited for up to 5 s.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from types import TracebackType
from typing import Self

from trio_sandbox.client.fs_types import path_text
from trio_sandbox.client.session_end import end_session
from trio_sandbox.client.transport import ProgramSession
from trio_sandbox.errors import (
    ExecFailedError,
    FilesystemError,
    PathNotFoundError,
    RemoteProtocolError,
)
from trio_sandbox.relay.events import DataReceived
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Done,
    Failed,
    StdinClosed,
)

MAX_ERRNO = 4095
"""The largest that Linux has."""


class FsCall:
    """An operation under way, and an async context manager that ends it. Not for two receivers at once."""

    def __init__(self, session: ProgramSession, path: bytes) -> None:
        self._session = session
        self._path = path
        self._end: Done | Failed | None = None

    async def receive(self) -> bytes | None:
        """The next bytes that the operation gives, None at its end and from then on.

        Raises FilesystemError as the guest says, also when asked again; the machine's failure; RemoteProtocolError.
        Cancellation: no effect.
        """
        while self._end is None:
            event = await self._session.receive()
            if isinstance(event, DataReceived):
                if event.type is not FrameType.STDOUT:
                    raise RemoteProtocolError(f"{event.type.name} of a file operation")
                if event.data:
                    return event.data
                continue
            match event.message:
                case Done() | Failed() as end:
                    self._end = end
                case StdinClosed():
                    pass  # DONE says why
                case other:
                    raise RemoteProtocolError(f"a file operation heard {other}")
        _check_end_untrusted(self._end, self._path)
        return None

    async def finish(self) -> Done:
        """Wait for the end of an operation that gives no bytes. Raises as `receive`."""
        if await self.receive() is not None:
            raise RemoteProtocolError("output of a file operation that has none")
        return self.done

    @property
    def done(self) -> Done:
        """The guest's last word, once `receive` has returned None."""
        assert isinstance(self._end, Done)
        return self._end

    def feed(self, data: bytes) -> None:
        """Give the operation all of its input, of any size, without a wait."""
        self._session.feed(data)

    async def send(self, data: bytes) -> None:
        """Send a part of the input, waiting for credit. Raises FilesystemError when the guest takes no more.

        Cancellation: an unknown part of `data` was sent.
        """
        with suppress(BrokenPipeError):
            await self._session.send_stdin(data)
            return
        await self.finish()
        raise RemoteProtocolError("a file operation took no more input and named no error")

    def end_input(self) -> None:
        """Nothing more is sent."""
        self._session.close_stdin()

    async def aclose(self) -> None:
        """End the operation if it has not ended; shielded from cancellation."""
        await end_session(self._session)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def filesystem_error(number: int, path: str, message: str = "") -> FilesystemError:
    """The error of an errno, of the class that it calls for."""
    kind = PathNotFoundError if number == errno.ENOENT else FilesystemError
    return kind(number, path, message or os.strerror(number))


def not_begun(failure: ExecFailedError, path: bytes) -> FilesystemError:
    """The error of an operation that never began. It says nothing about the file, so an ENOENT of its own, about the
    user say, must not be taken for one: it stays in the cause.
    """
    error = FilesystemError(_ERRNO_OF.get(failure.kind, errno.EIO), path_text(path), str(failure) or failure.kind)
    error.__cause__ = failure
    return error


_ERRNO_OF = {
    "bad_args": errno.EINVAL,
    "user_setup_failed": errno.EINVAL,
    "permission_denied": errno.EACCES,
    "resource_limit": errno.EAGAIN,
    "too_many_sessions": errno.EAGAIN,
    "out_of_memory": errno.ENOMEM,
}


def _check_end_untrusted(end: Done | Failed, path: bytes) -> None:
    if isinstance(end, Failed):
        raise not_begun(ExecFailedError(end.kind, end.errno, end.message), path)
    if not 0 <= end.errno <= MAX_ERRNO or end.count < 0:
        raise RemoteProtocolError("DONE with an errno or a count that cannot be")
    if end.errno:
        raise filesystem_error(end.errno, path_text(end.path or path), end.message)
