"""The tap: who sees what programs print, and what it costs the reader."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Done,
    Exec,
    Fs,
    Started,
    Subscribe,
)

from .scripted import EXITED, linked, open_session

pytestmark = pytest.mark.anyio
PROGRAM, TERMINAL = Exec((b"prog",), ()), Exec((b"prog",), (), tty=True)
Seen = list[tuple[int, FrameType, bool, bytes]]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


async def test_it_sees_the_output_of_programs_and_of_nothing_else() -> None:
    seen: Seen = []
    async with linked() as (link, guest):
        link.tap = lambda *piece: seen.append(piece)
        program, terminal = open_session(link, PROGRAM), open_session(link, TERMINAL)
        others = [open_session(link, Fs("read", b"/x")), open_session(link, Subscribe("x"))]
        await guest.absorb()
        for session in (program, terminal):
            await guest.say(Started(7), session.id)
        await guest.output(program.id, b"out")
        await guest.output(program.id, b"err", FrameType.STDERR)
        await guest.output(terminal.id, b"both")
        for other in others:
            await guest.output(other.id, b"no program's")
        await guest.say(EXITED, program.id)
        await guest.say(Done(0), others[0].id)
        await wait_all_tasks_blocked()
        assert seen == [
            (program.id, FrameType.STDOUT, False, b"out"),
            (program.id, FrameType.STDERR, False, b"err"),
            (terminal.id, FrameType.STDOUT, True, b"both"),
        ]
        assert list(link._programs) == [terminal.id]


async def test_it_sees_what_nobody_reads_or_wants_any_more() -> None:
    seen: Seen = []
    async with linked() as (link, guest):
        link.tap = lambda *piece: seen.append(piece)
        unread, abandoned = open_session(link, PROGRAM), open_session(link, PROGRAM)
        await guest.absorb()
        abandoned.abandon()
        for session in (unread, abandoned):
            await guest.say(Started(7), session.id)
            await guest.output(session.id, b"still printing")
        await wait_all_tasks_blocked()
        assert [piece[0] for piece in seen] == [unread.id, abandoned.id]


async def test_without_one_nothing_is_remembered() -> None:
    async with linked() as (link, guest):
        session = open_session(link, PROGRAM)
        await guest.absorb()
        await guest.say(Started(7), session.id)
        await guest.output(session.id, b"out")
        await trio.testing.wait_all_tasks_blocked()
        assert not link._programs
