"""Each test is run twice: against the simulated guest in virtual time, and against one real machine for each module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest
from trio.testing import MockClock

from tests.conformance.scripts import make_guest
from trio_sandbox import Sandbox, open_sandbox
from trio_sandbox.testing import simulated_sandbox

Open = Callable[..., AbstractAsyncContextManager[Sandbox]]


@pytest.fixture(scope="module", params=["simulated", pytest.param("real", marks=pytest.mark.vm)])
def kind(request: pytest.FixtureRequest) -> str:
    """Which guest."""
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def anyio_backend(kind: str) -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)} if kind == "simulated" else {})


@pytest.fixture(scope="module")
def opened(kind: str, request: pytest.FixtureRequest) -> Open:
    """Opens a sandbox of the kind, with `open_sandbox`'s options."""
    name = request.module.__name__.rpartition(".")[2].replace("test_", "conformance-")
    if kind == "real":
        return partial(open_sandbox, name, image="local/base", memory=256)
    return lambda **options: simulated_sandbox(name, make_guest(), **options)


@pytest.fixture(scope="module")
async def sandbox(opened: Open) -> AsyncIterator[Sandbox]:
    """One that all tests of the module use."""
    async with opened(env={"COLOUR": "red"}) as sandbox:
        yield sandbox
