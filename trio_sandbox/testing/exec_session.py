"""EXEC: a simulated program from its request to EXITED, with the order and the patience of the real agent."""

from __future__ import annotations

import errno
import os
import posixpath
import signal
from typing import TYPE_CHECKING

from trio_sandbox.relay.events import DataReceived, MessageReceived
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Exec,
    Exited,
    Failed,
    Message,
    Resize,
    Signal,
    Started,
    StdinClosed,
)
from trio_sandbox.scripts import FOLDER as SCRIPTS
from trio_sandbox.testing.files import FileError
from trio_sandbox.testing.pipes import Pipe
from trio_sandbox.testing.processes import Process
from trio_sandbox.testing.program import Main, Program, ProgramInput, ProgramOutput
from trio_sandbox.testing.session import KILL_PATIENCE, AgentSession, Killed
from trio_sandbox.testing.terminal import Terminal

if TYPE_CHECKING:
    from trio_sandbox.testing.agent import SimulatedAgent

ARGUMENT_LIMIT = 131_072
"""Bytes of one argument, its NUL counted, as in Linux."""
NOFILE, NOFILE_MAX = 7, 1 << 20
STDOUT, STDERR = FrameType.STDOUT, FrameType.STDERR


class ExecFailure(Exception):
    """The program cannot be started: what FAILED says."""

    def __init__(self, kind: str, number: int, message: str = "") -> None:
        self.message = Failed(kind, number, message or os.strerror(number))
        super().__init__(kind)


class ExecSession(AgentSession):
    """A program, and the background processes that it leaves."""

    def __init__(self, agent: SimulatedAgent, opened: MessageReceived, request: Exec) -> None:
        super().__init__(agent, opened)
        self._request = request
        self._members: set[Process] = set()
        self._impatient = self._timed_out = False
        self._exited: tuple[int, int] | None = None  # code and signal of the program, once it is reaped
        self._due = {STDOUT: 0, STDERR: 0}  # bytes that its pipes held then
        self._waiting = bytearray()
        self._stdin_ended = self._stdin_gone = False
        self._keyboard = Pipe(self._feed)
        self._out = self.output(STDOUT, Pipe())
        self._err = self._out if request.tty else self.output(STDERR, Pipe())
        self._terminal: Terminal | None = None
        if request.tty:
            self._terminal = Terminal(self._keyboard, self._out, self.signal, request.rows, request.cols)
        elif not request.stdin:
            self._keyboard.end()

    def start(self) -> None:
        """Start the program. Raises ExecFailure."""
        main = self._find()
        request, guest = self._request, self.agent.guest
        uid, gid, home = self._user()
        env = dict(os.fsdecode(word).partition("=")[::2] for word in request.env)
        if home:
            env.setdefault("HOME", home)
        self._main = process = self.agent.processes.add(self._reaped)
        process.spawned = self._members.add
        self._members.add(process)
        program = Program(
            argv=tuple(os.fsdecode(word) for word in request.argv),
            env=env,
            cwd=request.cwd,
            uid=uid,
            gid=gid,
            rlimits={number: (soft, hard) for number, soft, hard in request.rlimits},
            stdin=ProgramInput(process, self._keyboard, self._terminal, self._close_stdin),
            stdout=ProgramOutput(process, self._out, self._terminal),
            stderr=ProgramOutput(process, self._err, self._terminal),
            files=guest.files,
            terminal=self._terminal,
            process=process,
            events=self.agent.events,
        )
        self.agent.send(Started(process.pid), self.number)
        self.agent.processes.start(process, main, program)
        if request.timeout_ms:
            self.later(request.timeout_ms / 1000, self._time_out)

    def _find(self) -> Main:
        """The program that the request names, with what execve(2) would say against it."""
        request, guest = self._request, self.agent.guest
        if any(len(word) >= ARGUMENT_LIMIT for word in (*request.argv, *request.env)):
            raise ExecFailure("bad_args", errno.E2BIG)
        if any(n == NOFILE and hard > NOFILE_MAX for n, _, hard in request.rlimits):
            raise ExecFailure("resource_limit", errno.EPERM)
        uid, gid, _ = self._user()
        if request.make_cwd and not guest.files.exists(request.cwd):
            guest.files.make_folder(request.cwd)
        try:
            guest.files.require_folder(request.cwd, uid, gid)
        except FileError as error:
            raise ExecFailure("bad_cwd", error.errno) from None
        name = self._script() or os.fsdecode(request.argv[0])
        folder, base = posixpath.split(name)
        if (main := guest.programs.get(base if folder in guest.program_folders else name)) is not None:
            return main
        if not folder:
            raise ExecFailure("not_found", errno.ENOENT)
        try:
            guest.files.require_executable(posixpath.join(request.cwd, name), uid, gid)
        except FileError as error:
            raise ExecFailure(
                "permission_denied" if error.errno == errno.EACCES else "not_found", error.errno
            ) from None
        content = guest.files.read(posixpath.join(request.cwd, name))
        if content.startswith(b"#!"):
            return guest.script_main(content.decode())
        raise ExecFailure("not_executable", errno.ENOEXEC)

    def _script(self) -> str | None:
        """The path of the script of the sandbox that the request means by its name, if any: they come first on PATH."""
        name = os.fsdecode(self._request.argv[0])
        path = f"{SCRIPTS}/{name}"
        on_path = any(word.startswith(f"PATH={SCRIPTS}:".encode()) for word in self._request.env)
        return path if "/" not in name and on_path and self.agent.guest.files.exists(path) else None

    def _user(self) -> tuple[int, int, str]:
        try:
            return self.agent.guest.user(self._request.user)
        except KeyError:
            raise ExecFailure("user_setup_failed", errno.ENOENT, f"there is no user {self._request.user}") from None

    # -- what the host says

    def stdin(self, event: DataReceived) -> None:
        self._stdin_ended = self._stdin_ended or event.end
        if self._stdin_gone:
            self._input.taken(len(event.data))
        elif self._terminal is not None:
            self._terminal.type(event.data)
            self._input.taken(len(event.data))
            if event.end:
                self._terminal.type_end()
        else:
            self._waiting += event.data
            self._feed()

    def _feed(self) -> None:
        taken = self._keyboard.put(bytes(self._waiting)) if self._waiting else 0
        del self._waiting[:taken]
        self._input.taken(taken)
        if self._stdin_ended and not self._waiting and self._terminal is None and not self._keyboard.ended:
            self._keyboard.end()

    def _close_stdin(self) -> None:
        """The program takes no more."""
        if not self._stdin_gone and self._terminal is None and not self.is_over:
            self._stdin_gone = True
            self._keyboard.discard()
            self._input.taken(len(self._waiting))
            self._waiting.clear()
            if self._request.stdin and not self._stdin_ended and self._exited is None:
                self.agent.send(StdinClosed(errno.EPIPE), self.number)

    def message(self, kind: FrameType, message: Message | None) -> None:
        match message:
            case Signal(number):
                self.signal(number)
            case Resize(rows, cols) if self._terminal is not None:
                self._terminal.rows, self._terminal.cols = rows, cols
                self.signal(signal.SIGWINCH)
            case _:
                super().message(kind, message)

    def signal(self, number: int) -> None:
        """To the process group."""
        for process in list(self._members):
            process.signals.deliver(number)

    def kill(self, why: Killed) -> None:
        super().kill(why)
        for process in list(self._members):
            process.kill()
        if why is Killed.ABANDONED:
            self._out.discard()
            self._err.discard()
        if self._exited is not None:
            self.later(KILL_PATIENCE, self._lose_patience)
            self.settle()

    def _time_out(self) -> None:
        if self._exited is None:
            self._timed_out = True
            self.kill(Killed.TIMED_OUT)

    # -- the end

    def _reaped(self, process: Process, code: int) -> None:
        self._members.discard(process)
        if process is self._main:
            self._exited = (-1, process.signals.killed_by) if process.signals.killed_by else (code, 0)
            self._due = {STDOUT: len(self._out.data), STDERR: 0 if self._err is self._out else len(self._err.data)}
            self._close_stdin()
            if self.killed:
                self.later(KILL_PATIENCE, self._lose_patience)
        self.settle()

    def _lose_patience(self) -> None:
        self._impatient = True
        self.settle()

    def sent(self, kind: FrameType, size: int) -> None:
        if self._exited is not None:
            self._due[kind] = max(0, self._due[kind] - size)

    def settle(self) -> None:
        if self._exited is None or self.is_over:
            return
        held = bool(self._members)
        delivered = not any(self._due.values()) if held else not (self._out.data or self._err.data)
        if not delivered and not (self._impatient and self.killed >= Killed.BY_REQUEST):
            return
        if self.killed and held and not self._impatient:
            return
        code, number = self._exited
        self.finish(
            Exited(
                code=code,
                signal=number,
                core=False,
                timed_out=self._timed_out,
                held_open=held,
                utime_us=0,
                stime_us=0,
                maxrss_kib=0,
            )
        )
