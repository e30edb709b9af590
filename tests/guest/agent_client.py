"""A small synchronous client of the guest agent, for tests. Its own codec lets it say wrong things too."""

from __future__ import annotations

import array
import fcntl
import select
import socket
import struct
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import msgpack

HEADER = struct.Struct("<IBBHII")
BODY_MAX = 65_536
WINDOW = 256 * 1024
DEADLINE = 20.0  # seconds for anything that is bound to happen

NAMES = {
    "HELLO": 0x01, "CONFIGURE": 0x02, "READY": 0x03, "BOOT_FAILED": 0x04, "PING": 0x05, "PONG": 0x06,
    "SHUTDOWN": 0x07, "GOODBYE": 0x08, "CLOCK": 0x09, "CLIENT_GONE": 0x0A, "IDENTIFY": 0x0B,
    "FREEZE": 0x0C, "FROZEN": 0x0D, "THAW": 0x0E, "ERROR": 0x0F,
    "EXEC": 0x10, "STARTED": 0x11, "FAILED": 0x12, "STDIN": 0x13, "STDOUT": 0x14, "STDERR": 0x15, "EXITED": 0x16,
    "SIGNAL": 0x17, "KILL": 0x18, "CREDIT": 0x19, "STDIN_CLOSED": 0x1A, "RESIZE": 0x1B, "DEADLINE": 0x1C,
    "FS": 0x1D, "DONE": 0x1E, "EMIT": 0x1F, "SUBSCRIBE": 0x20,
}  # fmt: skip
TYPES = {number: name for name, number in NAMES.items()}
RAW = {"PING", "PONG", "STDIN", "STDOUT", "STDERR", "CREDIT"}
END, MORE = 1, 2

CONFIGURE = {
    "version": 1, "time_ns": 1_700_000_000_000_000_000, "entropy": b"e" * 32, "hostname": "tester",
    "machine_id": "0123456789abcdef" * 2, "base": "base", "upper": "upper",
}  # fmt: skip
TEMPLATE = {**CONFIGURE, "template": True, "warm": ["/bin/*"]}
DISK = {**{name: value for name, value in CONFIGURE.items() if name not in ("base", "upper")}, "disk": "root"}
IDENTIFY = {name: CONFIGURE[name] for name in ("time_ns", "entropy", "hostname", "machine_id")}


class HungUp(Exception):
    """The agent closed its end."""


@attrs.frozen
class Frame:
    """One frame; `body` is the decoded map of a control message, else bytes."""

    name: str
    session: int
    body: Any = attrs.field(repr=lambda body: repr(body[:40]) if isinstance(body, bytes) else repr(body))
    flags: int = 0
    slot: int = 0


def encode(
    name: str, body: Mapping[str, object] | bytes | None = None, session: int = 0, flags: int = 0, slot: int = 0
) -> bytes:
    """The bytes of one frame. A mapping becomes msgpack, None is empty."""
    raw = body if isinstance(body, bytes) else b"" if body is None else msgpack.packb(body)
    return HEADER.pack(len(raw), NAMES[name], flags, slot, session, 0) + raw


def decode_body(name: str, raw: bytes) -> Any:
    return raw if name in RAW or not raw else msgpack.unpackb(raw)


@attrs.define(eq=False)
class Client:
    """Speaks to one agent. Every wait has a deadline and fails with what was seen until then.

    With `auto_credit` the output that `receive` hands out is credited at once, as a reader that keeps up does.
    """

    socket: socket.socket
    pid: int = 0
    """Of the agent's process."""
    auto_credit: bool = True
    buffer: bytearray = attrs.field(factory=bytearray, repr=False)
    seen: list[Frame] = attrs.field(factory=list, repr=False)
    last_session: int = 0

    def send_raw(self, raw: bytes) -> None:
        self.socket.settimeout(DEADLINE)
        self.socket.sendall(raw)

    def send(
        self, name: str, body: Mapping[str, object] | bytes | None = None, session: int = 0, **header: int
    ) -> None:
        self.send_raw(encode(name, body, session, **header))

    def receive(self, timeout: float = DEADLINE) -> Frame:
        """The next frame. Raises HungUp at the end of the stream, TimeoutError when nothing comes."""
        until = time.monotonic() + timeout
        while (frame := self._take()) is None:
            ready, _, _ = select.select([self.socket], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no frame within {timeout} s after {self.seen[-5:]}")
            try:
                raw = self.socket.recv(1 << 18)
            except ConnectionResetError:
                raw = b""
            if not raw:
                raise HungUp
            self.buffer += raw
        self.seen.append(frame)
        if self.auto_credit and frame.name in ("STDOUT", "STDERR") and frame.body:
            self.credit(frame.session, len(frame.body), slot=frame.slot)
        return frame

    def _take(self) -> Frame | None:
        if len(self.buffer) < HEADER.size:
            return None
        length, kind, flags, slot, session, reserved = HEADER.unpack_from(self.buffer)
        valid = length <= BODY_MAX and reserved == 0 and kind in TYPES
        assert valid, bytes(self.buffer[:64])
        if len(self.buffer) < HEADER.size + length:
            return None
        raw = bytes(self.buffer[HEADER.size : HEADER.size + length])
        del self.buffer[: HEADER.size + length]
        name = TYPES[kind]
        return Frame(name, session, decode_body(name, raw), flags, slot)

    def expect(self, name: str, session: int | None = None) -> Frame:
        """The next frame, which must be of this type (and session)."""
        frame = self.receive()
        fits = frame.name == name and session in (None, frame.session)
        assert fits, f"expected {name} {session}, got {frame}"
        return frame

    def until(self, matches: Callable[[Frame], bool]) -> Frame:
        """Receive until a frame matches; the others stay in `seen`."""
        while not matches(frame := self.receive()):
            pass
        return frame

    def rest(self) -> Iterator[Frame]:
        """All frames until the agent closes its end."""
        while True:
            try:
                yield self.receive()
            except HungUp:
                return

    def barrier(self) -> list[Frame]:
        """What came until the agent had taken everything that was sent so far."""
        token = struct.pack("<Q", len(self.seen))
        start = len(self.seen)
        self.send("PING", token)
        self.until(lambda frame: frame.name == "PONG" and frame.body == token)
        return self.seen[start:-1]

    def unread(self) -> int:
        """Bytes that wait in the socket."""
        count = array.array("i", [0])
        fcntl.ioctl(self.socket, termios.FIONREAD, count)
        return count[0]

    def end(self) -> None:
        """Stop the agent without much grace, and take whatever it still says."""
        try:
            self.send("SHUTDOWN", {"grace_ms": 0})
            for _ in self.rest():
                pass
        except OSError:
            pass  # it is gone already

    def credit(self, session: int, count: int, slot: int = 0) -> None:
        self.send("CREDIT", struct.pack("<I", count), session, slot=slot)

    def configure(self, body: Mapping[str, object] = CONFIGURE) -> Frame:
        """Take HELLO, send CONFIGURE, take READY."""
        hello = self.expect("HELLO")
        assert hello.body["versions"] == [1]
        self.send("CONFIGURE", body)
        return self.expect("READY")

    def start(self, argv: Sequence[str | bytes], **options: Any) -> int:
        """Send EXEC, with `slot=` in its header; the new session's id."""
        slot = options.pop("slot", 0)
        self.last_session += 1
        self.send("EXEC", exec_map(argv, **options), self.last_session, slot=slot)
        return self.last_session

    def parts(self, argv: Sequence[str | bytes], **options: object) -> list[bytes]:
        """The EXEC message cut into pieces, two at least."""
        raw = msgpack.packb(exec_map(argv, **options))
        size = min(60_000, (len(raw) + 1) // 2)
        return [raw[at : at + size] for at in range(0, len(raw), size)]

    def start_in_parts(self, argv: Sequence[str | bytes], **options: object) -> int:
        """Send EXEC in several frames; the new session's id."""
        self.last_session += 1
        parts = self.parts(argv, **options)
        for number, part in enumerate(parts):
            self.send("EXEC", part, self.last_session, flags=MORE if number < len(parts) - 1 else 0)
        return self.last_session

    def run(self, argv: Sequence[str | bytes], **options: object) -> Outcome:
        """EXEC and wait for its end."""
        return self.outcome(self.start(argv, **options))

    def outcome(self, session: int) -> Outcome:
        """Wait for EXITED or FAILED of the session and sum up all that was seen of it."""

        def is_last(frame: Frame) -> bool:
            return frame.session == session and frame.name in ("EXITED", "FAILED")

        if not any(map(is_last, self.seen)):
            self.until(is_last)
        frames = [frame for frame in self.seen if frame.session == session]
        assert is_last(frames[-1]), f"something came after the end: {frames[-3:]}"
        return Outcome(
            stdout=b"".join(frame.body for frame in frames if frame.name == "STDOUT"),
            stderr=b"".join(frame.body for frame in frames if frame.name == "STDERR"),
            end=frames[-1],
            frames=frames,
        )


@attrs.frozen
class Outcome:
    stdout: bytes
    stderr: bytes
    end: Frame
    frames: list[Frame]

    @property
    def code(self) -> int:
        assert self.end.name == "EXITED", self.end
        return int(self.end.body["code"])

    @property
    def signal(self) -> int:
        assert self.end.name == "EXITED", self.end
        return int(self.end.body["signal"])

    @property
    def failure(self) -> str:
        assert self.end.name == "FAILED", self.end
        return str(self.end.body["kind"])


def exec_map(argv: Sequence[str | bytes], **options: object) -> dict[str, object]:
    """An EXEC body with the usual values, changed by `options`."""
    return {
        "argv": list(argv),
        "env": ["PATH=/usr/bin:/bin"],
        "cwd": "/",
        "user": "",
        "stdin": False,
        "rlimits": [],
        "timeout_ms": 0,
        **options,
    }
