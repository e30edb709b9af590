"""An agent in its chamber, all that is said to it, and whether it answers as the oracle says."""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import attrs

from tests.guest.agent_client import CONFIGURE, encode
from tests.guest.chamber import Chamber
from tests.guest.fuzz_oracle import Answer, Oracle, Phase, Session
from trio_sandbox.errors import RemoteProtocolError
from trio_sandbox.relay.frames import Frame, FrameReader, FrameType, Role
from trio_sandbox.relay.messages import BODIES, Done, ErrorReport, Failed, Message, decode_body_untrusted

PATIENCE = 20.0  # seconds for anything that is bound to happen
MEMORY_MAX_KIB = 96 * 1024  # resident in an agent with nothing to do: the sanitizer's, and what the allocator keeps
OUTPUT = (FrameType.STDOUT, FrameType.STDERR)
IN_ORDER = (FrameType.PONG, FrameType.ERROR, FrameType.READY, FrameType.BOOT_FAILED)
LAST = (FrameType.EXITED, FrameType.DONE, FrameType.FAILED)


@lru_cache(4096)
def message_of(kind: FrameType, body: bytes) -> Message:
    """As the host itself reads it."""
    return decode_body_untrusted(kind, body)


def describe(frame: Frame) -> str:
    """A last frame in the words of `Session.last`."""
    message = message_of(frame.type, frame.body)
    if isinstance(message, Failed):
        return f"FAILED {message.kind}"
    if isinstance(message, Done):
        assert not message.message.startswith("the helper process was ended"), message
        return "DONE 38" if message.errno == 38 else "DONE"
    return frame.type.name


def fits(frame: Frame, answer: Answer) -> bool:
    if (frame.type.name, frame.session, frame.slot) != (answer.name, answer.session, answer.slot):
        return False
    if frame.type is FrameType.PONG:
        return frame.body in answer.one_of
    message = message_of(frame.type, frame.body)
    if isinstance(message, ErrorReport):
        return message.code in answer.one_of
    return frame.type is FrameType.READY or getattr(message, "stage", None) in answer.one_of


def check_order(frames: Sequence[Frame], answers: Sequence[Answer], whole: bool) -> None:
    """Each frame answers something behind what the one before it answers; if `whole`, nothing that must is left."""
    waiting = iter(answers)
    for frame in frames:
        for answer in waiting:
            if fits(frame, answer):
                break
            assert not answer.must, f"expected {answer}, got {frame}"
        else:
            raise AssertionError(f"nothing asked for {frame}")
    missing = [answer for answer in waiting if answer.must and whole]
    assert not missing, f"never answered: {missing[:3]}"


def check_session(session: Session, frames: Sequence[Frame], whole: bool) -> None:
    """What came for one session, without ERROR."""
    assert all(frame.slot == session.slot for frame in frames), frames
    kinds = [frame.type for frame in frames]
    ends = [index for index, kind in enumerate(kinds) if kind in LAST]
    assert ends in ([], [len(frames) - 1]), f"not one last frame: {kinds}"
    assert ends or not (whole and session.must_end), f"no end of {session}: {kinds}"
    output = sum(len(frame.body) for frame in frames if frame.type in OUTPUT)
    assert output <= session.window + session.credited, f"{output} bytes, and {session}"
    returned = sum(struct.unpack("<I", frame.body)[0] for frame in frames if frame.type is FrameType.CREDIT)
    assert returned <= session.fed, f"{returned} bytes of credit, and {session}"
    assert kinds.count(FrameType.STDIN_CLOSED) <= 1, kinds
    for frame in frames:
        if frame.type in BODIES:
            message_of(frame.type, frame.body)
        said = frame.body if frame.type is FrameType.STDERR else b""
        assert b"Sanitizer" not in said and b"runtime error" not in said, said.decode(errors="replace")
    if not ends:
        return
    last = describe(frames[-1])
    too_long = last == "FAILED bad_args" and b"cannot execute" in frames[-1].body
    assert not session.last or last in session.last or (too_long and session.kind == "EXEC"), f"{last}: {session}"
    if kinds[-1] is FrameType.FAILED:
        assert len(kinds) == 1, kinds
    elif session.kind == "EXEC":
        assert kinds[0] is FrameType.STARTED and kinds.count(FrameType.STARTED) == 1, kinds
    else:
        assert FrameType.STARTED not in kinds, kinds


@attrs.define(eq=False)
class FuzzedAgent:
    """One process. `say` and `settle` as long as it `serves`; then `finish` or `hang_up`."""

    socket: socket.socket
    process: subprocess.Popen[bytes]
    chamber: Chamber
    log: Path
    oracle: Oracle = attrs.field(factory=Oracle)
    reader: FrameReader = attrs.field(factory=lambda: FrameReader(Role.GUEST))
    heard: list[Frame] = attrs.field(factory=list)
    ended: Counter[int] = attrs.field(factory=Counter)
    last_pong: bytes = b""
    scripts: int = 0
    gone: bool = False
    pid: int = 0
    descriptors: int = 0

    @property
    def serves(self) -> bool:
        return self.oracle.phase is Phase.SERVING

    # Bytes

    def say(self, raw: bytes, cuts: Sequence[int] = (1 << 20,), eager: bool = True) -> None:
        """Send all of it in pieces of these sizes, in turn. `eager`: what has come is read after each."""
        self.oracle.feed(raw)
        at, turn = 0, 0
        while at < len(raw) and not self.gone:
            piece = raw[at : at + cuts[turn % len(cuts)]]
            at, turn = at + len(piece), turn + 1
            self._send(piece)
            if eager:
                self._receive(0)

    def _send(self, raw: bytes) -> None:
        view = memoryview(raw)
        until = time.monotonic() + PATIENCE
        while len(view) and not self.gone:
            try:
                view = view[self.socket.send(view) :]
            except BlockingIOError:
                assert time.monotonic() < until, "it takes nothing more"
                self._receive(1, select.POLLIN | select.POLLOUT)
            except (BrokenPipeError, ConnectionResetError):
                self.wait_for("its last words", lambda: self.gone)

    def _receive(self, seconds: float, events: int = select.POLLIN) -> None:
        """What is there, or comes within this time."""
        poll = select.poll()
        poll.register(self.socket, events)
        if not any(event & ~select.POLLOUT for _, event in poll.poll(seconds * 1000)):
            return
        try:
            raw = self.socket.recv(1 << 18)
        except ConnectionResetError:
            raw = b""
        if not raw:
            assert self.reader.pending == 0, "it went within a frame"
            self.gone = True
        try:
            frames = list(self.reader.feed_untrusted(raw))
        except RemoteProtocolError as error:
            raise AssertionError("the host would not have taken that") from error
        for frame in frames:
            if frame.type in LAST:
                self.ended[frame.session] += 1
            elif frame.type is FrameType.PONG:
                self.last_pong = frame.body
        self.heard += frames

    def wait_for(self, what: str, is_true: Callable[[], bool]) -> None:
        """Receive until it is true. Raises AssertionError when that takes too long, or the agent goes."""
        until = time.monotonic() + PATIENCE
        while not is_true():
            assert not self.gone, f"it went; waiting for {what}"
            assert time.monotonic() < until, f"waited {PATIENCE} s for {what}; the last words were {self.heard[-3:]}"
            self._receive(1)

    # Conversations

    @classmethod
    def launch(cls, chamber: Chamber, log: Path) -> FuzzedAgent:
        """One that has said HELLO. To be closed, whatever happens."""
        ours, theirs = socket.socketpair()
        with theirs:
            agent = cls(ours, chamber.start(theirs, log), chamber, log)
        ours.setblocking(False)
        try:
            agent.wait_for("HELLO", lambda: bool(agent.heard))
            assert agent.heard.pop(0).type is FrameType.HELLO
            shell = _children(agent.process.pid)[0]
            agent.pid = _children(shell)[0]
            agent.descriptors = _descriptors(agent.pid)
        except BaseException as error:
            error.add_note(agent.complaints())
            agent.close()
            raise
        return agent

    def close(self) -> None:
        """Whatever it is at, it and all that it started are gone after this."""
        self.socket.close()
        self.process.kill()
        self.process.wait()

    def configure(self) -> None:
        """Until it serves."""
        self.say(encode("CONFIGURE", CONFIGURE))
        self._answered()

    def _answered(self) -> None:
        """Until it has taken all that was sent, and has said all that it must."""
        self.scripts += 1
        token = b"settled " + struct.pack("<I", self.scripts)
        self.say(encode("PING", token))
        self.wait_for("the answer to a PING", lambda: self.last_pong == token)
        self.wait_for("the ends of sessions", lambda: self.ended.total() >= self.oracle.opened.total())
        self.check()

    def check(self, whole: bool = True) -> None:
        """Compare what was heard with what the oracle says. `whole`: all that must come has had its time."""
        check_order([frame for frame in self.heard if frame.type in IN_ORDER], self.oracle.answers, whole)
        frames: defaultdict[int, list[Frame]] = defaultdict(list)
        for frame in self.heard:
            if frame.session and frame.type is not FrameType.ERROR:
                frames[frame.session].append(frame)
        assert frames.keys() <= self.oracle.opened.keys(), "words for a session that was not opened"
        for number, count in self.oracle.opened.items():
            if count == 1:  # an id comes again behind IDENTIFY, where all before it were FAILED
                check_session(self.oracle.sessions[number], frames[number], whole)
        self.heard.clear()
        self.ended.clear()
        self.oracle.forget()

    def settle(self, gently: bool) -> None:
        """End all sessions and see that nothing is left of them: no frame, process, descriptor or memory.

        `gently`: each is killed by itself, and its output taken as long as there is some. Else their clients go.
        """
        while lacking := self.oracle.lacking:
            self.say(bytes(lacking))
        if not self.serves:
            return
        self._kill_each() if gently else self._kill_clients()
        self._answered()
        self.wait_for("the end of its processes", lambda: not _children(self.pid))
        # One more: what nobody wants goes to /dev/null, which is opened when it is first needed.
        self.wait_for("closed descriptors", lambda: _descriptors(self.pid) <= self.descriptors + 1)
        assert (used := _memory_kib(self.pid)) <= MEMORY_MAX_KIB, f"{used} KiB in use"

    def _kill_clients(self) -> None:
        slots = {session.slot for session in self.oracle.sessions.values()}
        self.say(b"".join(encode("CLIENT_GONE", slot=slot) for slot in sorted(slots)))

    def _kill_each(self) -> None:
        sessions = self.oracle.sessions
        self.say(b"".join(encode("KILL", None, number, slot=one.slot) for number, one in sessions.items()))
        given = {number: one.credited for number, one in sessions.items()}
        until = time.monotonic() + PATIENCE
        while self.ended.total() < self.oracle.opened.total():
            assert time.monotonic() < until and not self.gone, "a session that was killed does not end"
            taken: Counter[int] = Counter()
            for frame in self.heard:
                taken[frame.session] += len(frame.body) if frame.type in OUTPUT else 0
            for number, count in taken.items():
                if number in given and count > given[number] and not self.ended[number]:
                    back = struct.pack("<I", count - given[number])
                    self.say(encode("CREDIT", back, number, slot=sessions[number].slot))
                    given[number] = count
            self._receive(0.2)

    def finish(self) -> None:
        """Until it is gone, and has said so."""
        if self.oracle.phase not in (Phase.STOPPING, Phase.ENDING):
            self.say(encode("SHUTDOWN", {"grace_ms": 0}))
        self.wait_for("its end", lambda: self.gone)
        booted = self.heard[-1].type is not FrameType.BOOT_FAILED if self.heard else True
        assert booted or self.oracle.boots_badly, self.heard[-1]
        goodbyes = [frame for frame in self.heard if frame.type is FrameType.GOODBYE]
        assert goodbyes == self.heard[-1:] if booted else not goodbyes, self.heard[-5:]
        self.check()
        self._exited(0 if booted else 1)

    def hang_up(self) -> None:
        """Go away in the middle; it has to end all the same."""
        self.socket.shutdown(socket.SHUT_WR)
        self.wait_for("its end", lambda: self.gone)
        self.check(whole=False)
        self._exited(0)

    def _exited(self, status: int) -> None:
        assert self.process.wait(PATIENCE) == status, f"{self.process.returncode}: {self.complaints()}"
        assert not self.chamber.reports(), self.chamber.reports()

    def complaints(self) -> str:
        """The end of its log, and what the sanitizers said."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if "refused a frame" not in line][-10:]) + self.chamber.reports()


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _memory_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
