"""What must hold of programs in a sandbox, whatever is done to them: the oracle of the state machine."""

from __future__ import annotations

import enum
import signal
from collections.abc import Callable

import attrs

from trio_sandbox.relay.credit import WINDOW
from trio_sandbox.testing.pipes import PIPE_CAPACITY
from trio_sandbox.testing.readable import Readable

IN_FLIGHT = WINDOW + 2 * PIPE_CAPACITY
"""Bytes that a program may have written beyond what was taken of it: its credit, its pipe, and one write under way."""


class Ends(enum.Enum):
    """When a program ends of its own accord."""

    AT_ONCE = "at once"
    AT_END_OF_INPUT = "at end of input"
    NEVER = "never"


@attrs.frozen(repr=False)
class ProgramModel(Readable):
    """A program, as far as is known what it does.

    cmd, args: what is run; cwd, user and env of the sandbox. output: given all the standard input and a size, the first
    so many bytes that it writes to standard output; it must not write more for less input. ends: when it does by
    itself; exit_code: with which then. fails: the `kind` of the ExecFailedError when it cannot be started.
    """

    cmd: str
    args: tuple[str, ...] = ()
    output: Callable[[bytes, int], bytes] = attrs.field(default=lambda stdin, size: b"", repr=False)
    ends: Ends = attrs.field(default=Ends.AT_ONCE, repr=False)
    exit_code: int = attrs.field(default=0, repr=False)
    fails: str = attrs.field(default="", repr=False)

    @classmethod
    def replying(cls, cmd: str, *args: str, reply: Callable[[bytes], bytes], exit_code: int = 0) -> ProgramModel:
        """A program that reads its input to the end; what it writes for it is `reply(input)`."""
        return cls(cmd, args, lambda stdin, size: reply(stdin)[:size], Ends.AT_END_OF_INPUT, exit_code)


CAT = ProgramModel.replying("cat", reply=lambda stdin: stdin)
ECHO = ProgramModel("echo", ("hello", "world"), lambda stdin, size: b"hello world\n"[:size])
TRUE = ProgramModel("true")
FALSE = ProgramModel("false", exit_code=1)
YES = ProgramModel("yes", (), lambda stdin, size: (b"y\n" * (size // 2 + 1))[:size], Ends.NEVER)
SLEEP = ProgramModel("sleep", ("1000000",), ends=Ends.NEVER)
MISSING = ProgramModel("no-such-program", fails="not_found")
PROGRAMS = (CAT, ECHO, TRUE, FALSE, YES, SLEEP, MISSING)
"""Programs that any guest has, and one that none has."""


@attrs.frozen(repr=False)
class Outcome(Readable):
    """How a session ended, as its client was told.

    error: the type of what was raised, None for an exit. code: the exit code, 128 + n for signal n.
    """

    code: int | None = None
    error: type[BaseException] | None = None
    kind: str = ""


@attrs.define(eq=False)
class SessionModel:
    """What was done to one session, what was seen of it, and what follows from that."""

    program: ProgramModel
    began: float
    timeout: float | None = None
    detached: bool = False
    written: bytearray = attrs.field(factory=bytearray, repr=lambda data: f"<{len(data)} bytes>")
    input_ended: bool = False
    input_lost: bool = False
    """Its client went while bytes could still be on their way."""
    taken: bytearray = attrs.field(factory=bytearray, repr=lambda data: f"<{len(data)} bytes>")
    signals: set[int] = attrs.Factory(set)
    pid: int | None = None
    outcome: Outcome | None = None

    def output_arrived(self, data: bytes) -> None:
        """Some output was taken. Raises AssertionError if the program cannot have written it."""
        assert self.outcome is None, f"{self.program.cmd}: output after the end"
        begin = len(self.taken)
        self.taken += data
        expected = self.program.output(bytes(self.written), len(self.taken))
        assert self.taken == expected, (
            f"{self.program.cmd}: at byte {begin}: {bytes(self.taken[begin:])[:200]!r} is not what the program wrote: "
            f"{expected[begin:][:200]!r}"
        )

    def check_credit(self, written: int) -> None:
        """written: bytes that the program has got rid of, as its kernel counts."""
        bound = len(self.taken) + IN_FLIGHT
        assert written <= bound, f"{self.program.cmd} wrote {written} bytes, of which only {len(self.taken)} were taken"

    def ended(self, outcome: Outcome, now: float) -> None:
        """It ended so. Raises AssertionError if it cannot have, or had ended before."""
        assert self.outcome is None, f"{self.program.cmd} ended twice: {self.outcome} and {outcome}"
        self.outcome = outcome
        name = f"{self.program.cmd} {self.program.args}: {outcome}"
        if self.program.fails:
            assert outcome.kind == self.program.fails, name
        elif outcome.kind == "timeout":
            assert self.timeout is not None and now - self.began >= self.timeout, f"{name}: that is too early"
        elif outcome.code is not None and outcome.code - 128 in self.signals:
            pass  # cut short: what came is a prefix, which is checked as it comes
        else:
            self._ended_by_itself(outcome, name)

    def _ended_by_itself(self, outcome: Outcome, name: str) -> None:
        assert outcome.code == self.program.exit_code, name
        assert self.program.ends is not Ends.NEVER, f"{name}: it was to go on"
        assert self.program.ends is Ends.AT_ONCE or self.input_ended or self.input_lost, f"{name}: its input is open"
        if not self.input_lost:
            size = len(self.taken) + 1
            assert self.taken == self.program.output(bytes(self.written), size), f"{name}: output is missing"

    def killed(self) -> None:
        """It was asked to end at once."""
        self.signals.add(signal.SIGKILL)
