"""What is done to programs: scripts that `trio_sandbox.testing.play.play` and the state machine perform."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from hypothesis import strategies as st

from trio_sandbox.testing import actions as do
from trio_sandbox.testing.model import PROGRAMS, ProgramModel

_BACK = st.sampled_from((0, 0, 0, 1, 2))
_CLIENTS = st.integers(0, 3)
_SIGNALS = st.sampled_from((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL))
_SECONDS = st.sampled_from((0.0, 0.5, 1.0, 30.0))


def inputs() -> st.SearchStrategy[bytes]:
    """What may be written to a program that takes any bytes: a few of them, at times more than a window."""
    sizes = st.sampled_from((10_000, 70_000, 300_000))
    many = st.builds(lambda size, unit: (unit * size)[:size], sizes, st.binary(min_size=1, max_size=5))
    return st.one_of(st.binary(min_size=1, max_size=20), st.binary(min_size=1, max_size=20), many)


def writes(data: st.SearchStrategy[bytes] | None = None) -> st.SearchStrategy[do.Write]:
    """One write to the standard input of any session. data: of what (`inputs()`)."""
    return st.builds(do.Write, inputs() if data is None else data, _BACK)


def starts(programs: Sequence[ProgramModel] = PROGRAMS) -> st.SearchStrategy[do.Start]:
    """The start of one of these programs."""
    timeouts = st.sampled_from((None, None, 5.0, 100.0))
    return st.builds(do.Start, st.sampled_from(programs), _CLIENTS, st.sampled_from((False, False, True)), timeouts)


def stdin_scripts(
    *, max_size: int = 10, data: st.SearchStrategy[bytes] | None = None
) -> st.SearchStrategy[tuple[do.StdinAction, ...]]:
    """What is done to the input of one program: writes, changes of the terminal's size, signals, pauses, and perhaps
    the end of input. data: what is written.
    """
    one = st.one_of(
        st.builds(do.Write, inputs() if data is None else data),
        st.builds(do.Write, inputs() if data is None else data),
        st.builds(do.Resize, st.integers(1, 65_535), st.integers(1, 65_535)),
        st.builds(do.Signal, _SIGNALS),
        st.builds(do.Pause, _SECONDS),
    )
    end = st.sampled_from(((), (do.CloseInput(),)))
    return st.builds(lambda steps, end: (*steps, *end), st.lists(one, max_size=max_size), end)


def others() -> st.SearchStrategy[do.Action]:
    """Any one thing, on any session, but a start and a write."""
    return st.one_of(
        st.builds(do.CloseInput, _BACK),
        st.builds(do.Credit, st.sampled_from((1, 100, 65_536, 300_000)), _BACK),
        st.builds(do.Resize, st.just(24), st.just(80), _BACK),
        st.builds(do.Signal, _SIGNALS, _BACK),
        st.builds(do.Kill, _BACK),
        st.builds(do.Pause, _SECONDS),
        st.builds(do.Detach, _BACK),
        st.builds(do.Attach, _BACK, _CLIENTS),
        st.builds(do.Cancel, _BACK),
        st.just(do.Connect()),
        st.builds(do.Close, _CLIENTS),
    )


def actions(
    programs: Sequence[ProgramModel] = PROGRAMS, data: st.SearchStrategy[bytes] | None = None
) -> st.SearchStrategy[do.Action]:
    """Any one thing, on any session. data: what is written (`inputs()`)."""
    some: list[st.SearchStrategy[do.Action]] = [starts(programs), others(), writes(data)]
    # Programs get somewhere by what is written to them. (Of equal branches `one_of` would keep one.)
    return st.sampled_from((2, 2, 2, 0, 1, 1)).flatmap(lambda which: some[which])


def client_scripts(
    programs: Sequence[ProgramModel] = PROGRAMS,
    data: st.SearchStrategy[bytes] | None = None,
    *,
    max_size: int = 30,
) -> st.SearchStrategy[tuple[do.Action, ...]]:
    """What a few clients do: they connect, start these programs, write, take output, detach, attach, cancel, leave."""
    rest = st.lists(actions(programs, data), max_size=max_size)
    return st.builds(lambda first, others: (first, *others), starts(programs), rest)
