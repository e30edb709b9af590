"""The caller's terminal by itself: modes that come back, bytes in both directions, nothing changed for others."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from tests.client.ptys import Person, person
from trio_sandbox.client import terminal as terminal_module
from trio_sandbox.client.terminal import Terminal
from trio_sandbox.errors import TerminalError

pytestmark = pytest.mark.anyio


@pytest.fixture
def somebody() -> Iterator[Person]:
    with person() as found:
        yield found


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
async def test_the_modes_come_back_whatever_ends_the_block(somebody: Person, error: type[BaseException]) -> None:
    before = somebody.modes
    assert not somebody.is_raw()
    with pytest.raises(error), somebody.terminal.opened() as screen, screen.raw():
        assert somebody.is_raw()
        raise error
    assert somebody.modes == before


async def test_raw_bytes_in_both_directions(somebody: Person) -> None:
    with somebody.terminal.opened() as screen, screen.raw():
        somebody.type(b"\x03\x04\x1a\r\x1d\xff")
        assert await screen.read() == b"\x03\x04\x1a\r\x1d\xff"
        await screen.write(b"line\nnext\r\n\x1b[0m")
        await somebody.wait_to_see(b"\x1b[0m")
        assert somebody.seen == b"line\nnext\r\n\x1b[0m"


async def test_a_read_that_was_cancelled_took_nothing(somebody: Person) -> None:
    with somebody.terminal.opened() as screen, screen.raw():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(screen.read)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        somebody.type(b"x")
        assert await screen.read() == b"x"


async def test_all_is_written_however_slowly_it_is_read(somebody: Person) -> None:
    data = os.urandom(400_000)
    with somebody.terminal.opened() as screen, screen.raw():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(screen.write, data)
            while len(somebody.seen) < len(data):
                await anyio.wait_readable(somebody.master)
                somebody.seen += os.read(somebody.master, 1_000)
    assert somebody.seen == data


async def test_a_terminal_that_was_stopped_stops_only_the_writer(somebody: Person) -> None:
    with somebody.terminal.opened() as screen, screen.raw():
        termios.tcflow(somebody.slave, termios.TCOOFF)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(screen.write, b"late")
            await anyio.wait_all_tasks_blocked()
            assert somebody.look() == b""
            termios.tcflow(somebody.slave, termios.TCOON)
            await somebody.wait_to_see(b"late")


async def test_the_callers_descriptors_stay_as_they_are_and_none_is_left(somebody: Person) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with somebody.terminal.opened():
        assert os.get_blocking(somebody.slave)
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_a_terminal_that_cannot_be_opened_anew(somebody: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, *others: Any) -> int:
        raise PermissionError(path)

    monkeypatch.setattr(terminal_module.os, "open", refuse)  # type: ignore[attr-defined]
    with somebody.terminal.opened() as screen, screen.raw():
        assert not os.get_blocking(somebody.slave)
        somebody.type(b"x")
        assert await screen.read() == b"x"
    assert os.get_blocking(somebody.slave)


async def test_a_terminal_that_hangs_up(somebody: Person) -> None:
    with somebody.terminal.opened() as screen, screen.raw():
        somebody.hang_up()
        assert await screen.read() == b""
        assert await screen.read() == b""
        with pytest.raises(OSError, match="Input/output"):
            await screen.write(b"x")
        assert screen.size() is None or screen.size() == (30, 100)


async def test_sizes(somebody: Person) -> None:
    with somebody.terminal.opened() as screen:
        assert screen.size() == (30, 100)
        somebody.resize(0, 0)
        assert screen.size() is None


async def test_what_is_no_terminal_is_refused(somebody: Person) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for terminal, name in ((Terminal(null, somebody.slave), "input"), (Terminal(somebody.slave, null), "output")):
            with pytest.raises(TerminalError, match=f"its {name} .* is no terminal"), terminal.opened():
                pass
    finally:
        os.close(null)


async def test_a_process_without_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(TerminalError, match="closed or no file"):
        Terminal.of_this_process()
