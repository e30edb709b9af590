"""`ExecStateMachine`: whole lives of programs in a sandbox, as a Hypothesis state machine to run and to subclass.

Its rules are the actions of actions.py, and what must hold is in model.py; both are the same for a simulated guest and
for a real machine. Needs `hypothesis` (the extra `testing`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trio_sandbox.testing import actions as do
from trio_sandbox.testing.backends import Backend, SimulatedBackend
from trio_sandbox.testing.faults import Faults
from trio_sandbox.testing.model import PROGRAMS, ProgramModel
from trio_sandbox.testing.play import player
from trio_sandbox.testing.player import Player
from trio_sandbox.testing.steps import Steps
from trio_sandbox.testing.strategies import scripts

R = TypeVar("R")
T = TypeVar("T")


def _of_machine(choose: Callable[[ExecStateMachine], st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """What a subclass says is drawn."""
    machines: st.SearchStrategy[ExecStateMachine] = st.runner()
    return machines.flatmap(choose)


class ExecStateMachine(RuleBasedStateMachine):
    """Programs are started, fed, read, signalled, left and cancelled by several clients, in any order.

    Checked all the time: each session ends exactly once, with a typed outcome that what was done to it allows; input
    arrives in order, and output is what the program wrote; nobody writes more than credit and pipes hold; what was
    cancelled is dead when its block is left. And at the end: all that is left ends when it should, and nothing remains.

    backend: where (a simulated guest in virtual time). programs: what is run. inputs: what is written to them. faults:
    what goes wrong in a simulated guest (nothing). Subclasses set these, and add rules: `self.perform(action)` does
    something with all checks, `self.run(step)` awaits `step(player)`, whose `sandbox` is the sandbox.
    """

    backend: ClassVar[Backend] = SimulatedBackend()
    programs: ClassVar[Sequence[ProgramModel]] = PROGRAMS
    inputs: ClassVar[st.SearchStrategy[bytes]] = scripts.inputs()
    faults: ClassVar[st.SearchStrategy[Faults]] = st.builds(Faults)

    _steps: Steps[Player] | None = None

    @initialize(faults=_of_machine(lambda machine: machine.faults))
    def open(self, faults: Faults) -> None:
        """A fresh sandbox."""
        backend = self.backend
        self._steps = Steps(lambda: player(backend, faults), backend.time)

    def run(self, step: Callable[[Player], Awaitable[R]]) -> R:
        """Await `step(player)`. Raises what it raises."""
        assert self._steps is not None
        return self._steps(step)

    def perform(self, action: do.Action) -> None:
        """Do one thing. Raises AssertionError when anything is not as it must be."""
        self.run(lambda one: one.perform(action))

    @rule(action=_of_machine(lambda machine: scripts.starts(machine.programs)))
    def start(self, action: do.Start) -> None:
        self.perform(action)

    @rule(action=_of_machine(lambda machine: scripts.writes(machine.inputs)))
    def write(self, action: do.Write) -> None:
        self.perform(action)

    @rule(action=scripts.others())
    def act(self, action: do.Action) -> None:
        self.perform(action)

    @invariant()
    def nothing_is_out_of_bounds(self) -> None:
        if self._steps is not None:
            self.run(lambda one: one.check())

    def teardown(self) -> None:
        """End all that is left, with all checks. A subclass that has its own calls this first."""
        if (steps := self._steps) is None:
            return
        try:
            if not steps.has_failed:
                steps(lambda one: one.finish())
        finally:
            steps.close()
