"""An agent, and programs that speak to its socket of events."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import attrs
import msgpack

from tests.guest.agent_client import DEADLINE, MORE, Client, Frame
from tests.guest.running import SANITIZERS, running_agent

PAYLOAD_MAX = 64 * 1024
NAME_MAX = 128
WAITING_MAX = 256 * 1024
OVERHEAD = 64
"""What an event counts in a queue beside its line."""

CONNECTIONS_MAX = 64
EVENTS_IN_TURN, TURN = 64, 0.020


class Program:
    """A connection as a program in the sandbox has one. Every wait has a deadline."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(str(path))
        self.lines: IO[bytes] = self.socket.makefile("rb")

    def say(self, line: bytes) -> None:
        self.socket.sendall(line + b"\n")

    def hear(self) -> bytes:
        """The next line without its line feed; b"" at the end."""
        return self.lines.readline().removesuffix(b"\n")

    def ask(self, line: bytes) -> bytes:
        self.say(line)
        return self.hear()

    def hears_nothing(self) -> bool:
        return not select.select([self.socket], [], [], 0)[0]

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


@attrs.define
class Events:
    """An agent, and the programs that speak to it."""

    agent: Client
    path: Path
    command: Path
    programs: list[Program] = attrs.field(factory=list)

    def program(self) -> Program:
        self.programs.append(Program(self.path))
        return self.programs[-1]

    def listener(self, words: bytes = b"") -> Program:
        program = self.program()
        assert program.ask(b"listen " + words) == b"ok"
        return program

    def run(
        self, *arguments: str, given: bytes = b"", socket_path: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """msb-event to its end."""
        return subprocess.run(
            [self.command, *arguments],
            input=given,
            capture_output=True,
            timeout=DEADLINE,
            env={**os.environ, **SANITIZERS, "MSB_EVENTS_SOCKET": str(socket_path or self.path)},
        )

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen(
            [self.command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **SANITIZERS, "MSB_EVENTS_SOCKET": str(self.path)},
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    # The host's side

    def open(self, name: str, body: object, slot: int = 0) -> int:
        """EMIT or SUBSCRIBE, in as many frames as it takes; the session's id."""
        self.agent.last_session += 1
        raw = msgpack.packb(body)
        parts = [raw[at : at + 60_000] for at in range(0, len(raw), 60_000)]
        for number, part in enumerate(parts, 1):
            flags = MORE if number < len(parts) else 0
            self.agent.send(name, part, self.agent.last_session, flags=flags, slot=slot)
        return self.agent.last_session

    def subscribe(self, name: str = "", drop_oldest: bool = True, window: int = 262_144, slot: int = 0) -> int:
        session = self.open("SUBSCRIBE", {"name": name, "drop_oldest": drop_oldest, "window": window}, slot)
        assert self.agent.barrier() == []
        return session

    def emit(self, name: str, payload: bytes) -> Frame:
        """EMIT, and its last frame."""
        session = self.open("EMIT", {"name": name, "payload": payload})
        return self.agent.until(lambda frame: frame.session == session)

    def reached(self, name: str, payload: bytes = b"1") -> int:
        """EMIT; how many listeners it was queued for."""
        done = self.emit(name, payload)
        assert done.name == "DONE", done
        assert (done.body["errno"], done.body["message"], done.body["status"]) == (0, "", None)
        return int(done.body["count"])

    def output(self, session: int) -> bytes:
        """What a subscription has said so far."""
        return b"".join(frame.body for frame in self.agent.seen if (frame.session, frame.name) == (session, "STDOUT"))

    def until_output(self, session: int, end: bytes) -> bytes:
        while not self.output(session).endswith(end):
            frame = self.agent.receive()
            assert (frame.name, frame.session) == ("STDOUT", session)
        return self.output(session)

    def kill(self, session: int) -> None:
        self.agent.send("KILL", None, session)
        self.agent.until(lambda frame: (frame.name, frame.session) == ("DONE", session))


@contextmanager
def events_of(programs: Path, folder: Path) -> Iterator[Events]:
    command = folder / "msb-event"
    command.symlink_to(programs / "agent")
    path = folder / "events.sock"
    with running_agent(programs / "agent", folder / "agent.log", False, path) as agent:
        agent.configure()
        events = Events(agent, path, command)
        try:
            yield events
        finally:
            for program in events.programs:
                program.close()


def numbered(number: int, size: int = 1_000) -> bytes:
    """A line of `size` bytes, its line feed counted."""
    return b'n "%06d%s"' % (number, b"x" * (size - 11))
