"""Operations on files, asked of an agent by `agent_client.Client`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import msgpack

from tests.guest.agent_client import BODY_MAX, END, WINDOW, Client, Frame


@attrs.frozen
class FsOutcome:
    """All that was seen of one FS session."""

    stdout: bytes
    end: Frame
    frames: list[Frame]

    @property
    def done(self) -> dict[str, Any]:
        """The map of DONE, with errno 0."""
        assert self.end.name == "DONE", self.end
        assert self.end.body["errno"] == 0, self.end
        assert self.end.body["message"] == ""
        assert self.end.body["path"] == b""
        return dict(self.end.body)

    def check(self) -> None:
        """Raise unless it was done."""
        assert self.done

    @property
    def count(self) -> int:
        return int(self.done["count"])

    @property
    def error(self) -> tuple[int, str]:
        """errno of DONE, and the path that it is about."""
        assert self.end.name == "DONE", self.end
        assert self.end.body["errno"] != 0, self.end
        assert self.end.body["message"]
        return self.end.body["errno"], self.end.body["path"].decode(errors="surrogateescape")

    @property
    def failure(self) -> str:
        assert self.end.name == "FAILED", self.end
        return str(self.end.body["kind"])

    @property
    def names(self) -> list[str]:
        """Of the frames, with runs of the same name as one."""
        names = [frame.name for frame in self.frames]
        return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


def fs_map(op: str, path: str | bytes | Path, **keys: object) -> dict[str, object]:
    """The map of an FS message; paths become bytes."""
    if isinstance(path, (str, Path)):
        path = str(path).encode()
    to = keys.get("to")
    if isinstance(to, (str, Path)):
        keys["to"] = str(to).encode()
    return {"op": op, "path": path, **keys}


def fs_start(agent: Client, op: str, path: str | bytes | Path, **keys: Any) -> int:
    """Send FS, with `slot=` in its header; the new session's id."""
    slot = keys.pop("slot", 0)
    agent.last_session += 1
    agent.send("FS", fs_map(op, path, **keys), agent.last_session, slot=slot)
    return agent.last_session


def feed(agent: Client, session: int, data: bytes, window: int = WINDOW, end: bool = True) -> None:
    """Send standard input as credit allows, until all is sent or the agent says that nobody reads it."""
    view = memoryview(data)
    start = len(agent.seen)
    while len(view) and not any(frame.session == session for frame in agent.seen[start:] if frame.name != "CREDIT"):
        if window == 0:
            frame = agent.receive()
            if frame.name == "CREDIT" and frame.session == session:
                window += struct.unpack("<I", frame.body)[0]
            continue
        count = min(window, BODY_MAX, len(view))
        agent.send("STDIN", bytes(view[:count]), session)
        window -= count
        view = view[count:]
    if end:
        agent.send("STDIN", b"", session, flags=END)


def fs_outcome(agent: Client, session: int) -> FsOutcome:
    """Wait for DONE or FAILED of the session and sum up all that was seen of it."""

    def is_last(frame: Frame) -> bool:
        return frame.session == session and frame.name in ("DONE", "FAILED")

    if not any(map(is_last, agent.seen)):
        agent.until(is_last)
    frames = [frame for frame in agent.seen if frame.session == session]
    assert is_last(frames[-1]), f"something came after the end: {frames[-3:]}"
    return FsOutcome(b"".join(frame.body for frame in frames if frame.name == "STDOUT"), frames[-1], frames)


def fs(agent: Client, op: str, path: str | bytes | Path, stdin: bytes | None = None, **keys: Any) -> FsOutcome:
    """One operation from FS to its end."""
    session = fs_start(agent, op, path, **keys)
    if stdin is not None:
        feed(agent, session, stdin)
    return fs_outcome(agent, session)


def entries(raw: bytes) -> dict[str, dict[str, Any]]:
    """What `list` gave, by name."""
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(raw)
    return {entry.pop("name").decode(errors="surrogateescape"): entry for entry in unpacker}


def record(name: str | bytes, mode: int, data: bytes = b"", **keys: object) -> bytes:
    """One record of `pack`, with the bytes behind it."""
    name = name.encode() if isinstance(name, str) else name
    return bytes(
        msgpack.packb({"name": name, "mode": mode, "mtime_ns": 0, "size": len(data), "target": b"", **keys}) + data
    )


def records(raw: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The records of a packed tree and the bytes of each."""
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(raw)
    for entry in unpacker:
        assert set(entry) == {"name", "mode", "mtime_ns", "size", "target"}
        data = unpacker.read_bytes(entry["size"])
        assert len(data) == entry["size"]
        yield entry, data
