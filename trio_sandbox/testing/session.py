"""What the sessions of the simulated agent have in common: output that goes as far as credit, input that gives credit
back as it is taken.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from trio_sandbox.relay.events import DataReceived, MessageReceived
from trio_sandbox.relay.frames import MAX_BODY, FrameType
from trio_sandbox.relay.messages import (
    Deadline,
    Message,
)
from trio_sandbox.testing.pipes import Pipe

if TYPE_CHECKING:
    from trio_sandbox.testing.agent import SimulatedAgent


class Killed(enum.IntEnum):
    """Why a session was killed; the most severe counts."""

    NOT = 0
    TIMED_OUT = 1
    BY_REQUEST = 2
    """KILL, or the deadline."""
    ABANDONED = 3
    """Its client has gone."""


KILL_PATIENCE = 1.0
"""Seconds that a killed session waits for a reader, and for its processes to vanish."""


class InputCredit:
    """Returns the credit of standard input in lots of a quarter of the window, as the agent does."""

    def __init__(self, agent: SimulatedAgent, number: int, window: int) -> None:
        self._agent, self._number, self._window = agent, number, window
        self._owed = 0

    def taken(self, size: int) -> None:
        """So much was taken, or dropped."""
        self._owed += size
        if self._owed and self._owed >= self._window // 4:
            self._agent.mux.acknowledge(self._number, self._owed, at_once=True)
            self._agent.wake_writer()
            self._owed = 0


class AgentSession:
    """One session of the agent, whatever opened it."""

    def __init__(self, agent: SimulatedAgent, opened: MessageReceived) -> None:
        self.agent, self.number, self.slot = agent, opened.session, opened.slot
        self.killed = Killed.NOT
        self.is_over = False
        self._outputs: list[tuple[FrameType, Pipe]] = []
        self._timers: list[trio.CancelScope] = []
        self._deadline = trio.CancelScope()
        message = opened.message
        self._input = InputCredit(agent, self.number, getattr(message, "stdin_window", 0))
        self.set_deadline(getattr(message, "deadline_ms", 0))

    # -- what the host says

    def stdin(self, event: DataReceived) -> None:
        """Bytes of standard input, which nobody wants."""
        self._input.taken(len(event.data))

    def message(self, kind: FrameType, message: Message | None) -> None:
        """A control frame of the session."""
        if kind is FrameType.KILL:
            self.kill(Killed.BY_REQUEST)
        elif isinstance(message, Deadline):
            self.set_deadline(message.deadline_ms)

    def kill(self, why: Killed) -> None:
        """End what the session started."""
        self.killed = max(self.killed, why)

    def set_deadline(self, milliseconds: int) -> None:
        """Have it killed so long from now, 0 for never."""
        self._deadline.cancel(reason="there is another deadline")
        if milliseconds:
            self._deadline = self.later(milliseconds / 1000, lambda: self.kill(Killed.BY_REQUEST))

    # -- what it says

    def output(self, kind: FrameType, pipe: Pipe) -> Pipe:
        """Send what is put into `pipe` as `kind`, as far as there is credit."""
        pipe.changed = self.pump
        self._outputs.append((kind, pipe))
        return pipe

    def pump(self) -> None:
        """Send what may be sent."""
        for kind, pipe in self._outputs:
            while pipe.data and (room := min(self.agent.room(self.number), MAX_BODY)):
                piece = pipe.take(room)
                self.agent.send_output(kind, self.number, piece)
                self.sent(kind, len(piece))
        self.settle()

    def sent(self, kind: FrameType, size: int) -> None:
        """A piece has gone out."""

    def settle(self) -> None:
        """End if all is done."""

    def finish(self, last: Message) -> None:
        """The last frame."""
        if not self.is_over:
            self.is_over = True
            for timer in self._timers:
                timer.cancel(reason="the session is over")
            for _, pipe in self._outputs:
                pipe.changed = lambda: None
                pipe.discard()
            self.agent.finished(self, last)

    def later(self, seconds: float, action: Callable[[], None]) -> trio.CancelScope:
        """Do it so much later on the guest's clock, unless the session is over or what is returned is cancelled."""
        timer = trio.CancelScope()
        self._timers.append(timer)
        self.agent.start_timer(timer, seconds, action)
        return timer
