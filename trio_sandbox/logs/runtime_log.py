"""The messages of the logger "trio_sandbox", each to the sandbox that it is about.

Several sandboxes may live in one process, and share the logger. Whose a message is tells the context that it was logged
in: tasks and worker threads have it from whoever started them, up to the task of `serve_sandbox`. So one handler serves
all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import attrs

from trio_sandbox.config import LogLevel

LOGGER = logging.getLogger("trio_sandbox")
LEVELS = {
    LogLevel.TRACE: 5,
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARN: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}


@attrs.frozen
class _Listener:
    take: Callable[[str], None]
    level: int


_listener: ContextVar[_Listener | None] = ContextVar("trio_sandbox_log", default=None)


class _Router(logging.Handler):
    """Passes a message on to the sandbox whose context it was logged in."""

    def emit(self, record: logging.LogRecord) -> None:
        listener = _listener.get()
        if listener is not None and record.levelno >= listener.level:
            try:
                listener.take(self.format(record))
            except Exception:
                self.handleError(record)
        # Where nobody has set up logging, Python prints warnings on standard error, unless there is a handler: ours
        # must not be the one that keeps them from there.
        last = logging.lastResort
        if last is not None and record.levelno >= last.level and not self._is_seen_by_others(record.name):
            last.handle(record)

    def _is_seen_by_others(self, name: str) -> bool:
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return True
            logger = logger.parent if logger.propagate else None
        return False


_router = _Router()
_router.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))


@contextmanager
def recorded_messages(take: Callable[[str], None], level: LogLevel | None) -> Iterator[None]:
    """Have the messages of this context given to `take` for the block: of `level` or above, all with None, and never
    more than the logger lets through.
    """
    LOGGER.addHandler(_router)  # for good: it is there once, and without a listener it changes nothing
    token = _listener.set(_Listener(take, LEVELS[level] if level is not None else logging.NOTSET))
    try:
        yield
    finally:
        _listener.reset(token)


def set_verbosity(level: LogLevel | None) -> None:
    """Let the logger give so much, INFO with None: for a process that has nothing else to log but its sandbox."""
    LOGGER.setLevel(LEVELS[level or LogLevel.INFO])
