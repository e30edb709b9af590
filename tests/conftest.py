"""Async tests run on Trio by anyio's plugin; a module that wants another backend or a virtual clock overrides the
fixture.
"""

from __future__ import annotations

import signal

import pytest


def pytest_configure() -> None:
    """Let the programs that tests start hear Ctrl-C and a hang-up.

    A shell starts what it runs in the background with these ignored, nohup too, and a signal that is ignored stays so
    in every program that is started from there; one that has a handler is itself again.
    """
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "trio"
