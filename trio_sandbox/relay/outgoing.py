"""What waits to be written on one stream, and in which order. Sans-IO.

Control goes first, then credit, then bulk, a frame of each session in turn. Whoever is slow to take it costs no more
than what he was granted: credit that waits is one frame for each session, and small pieces of bulk are joined, so that
a peer that sends byte by byte does not cost a hundred times what it sends.

Invariant: a session is in `_turns` exactly while bulk of it waits, and in `_credit` exactly while credit of it waits.
"""

from __future__ import annotations

import struct
from collections import defaultdict, deque

from trio_sandbox.relay.events import JOINED_SIZE
from trio_sandbox.relay.frames import HEADER, MAX_BODY, NO_FLAGS, Flag, FrameType, Role, encode_header

CREDIT = struct.Struct("<I")
_CREDIT_SIZE = HEADER.size + CREDIT.size


class Outgoing:
    """The queues of one end. What is handed over must be right already, except where LocalProtocolError is named."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self._control: deque[bytes] = deque()
        self.control_size = 0
        """Bytes of control frames that wait: for whoever must stop causing more of them."""
        self._credit: dict[int, tuple[int, int]] = {}  # of a session: its slot, and bytes
        self._bulk: defaultdict[int, deque[tuple[bytes, memoryview]]] = defaultdict(deque)  # headers and bodies
        self._turns: deque[int] = deque()

    def add_control(self, raw: bytes) -> None:
        """A control frame."""
        self._control.append(raw)
        self.control_size += len(raw)

    def add_credit(self, session: int, slot: int, size: int) -> None:
        """Credit for the peer, more of it if some waits already."""
        if session not in self._credit:
            self.control_size += _CREDIT_SIZE
        self._credit[session] = slot, size + self._credit.get(session, (slot, 0))[1]

    def add_bulk(self, kind: FrameType, session: int, slot: int, data: bytes | memoryview, end: bool) -> None:
        """Bulk, in as many frames as it needs; `bytes` are not copied."""
        view = memoryview(data)
        if not isinstance(view.obj, bytes):  # whoever owns it could change it before it is written
            view = memoryview(bytes(view))
        queue = self._bulk[session]
        if not queue:
            self._turns.append(session)
        elif queue[-1][0][4] == kind and len(queue[-1][1]) + len(view) <= JOINED_SIZE:
            view = memoryview(b"".join((queue.pop()[1], view)))
        for start in range(0, len(view) or 1, MAX_BODY):
            body = view[start : start + MAX_BODY]
            flags = Flag.END if end and start + MAX_BODY >= len(view) else NO_FLAGS
            queue.append((encode_header(kind, session, len(body), self._role, flags, slot), body))

    def add_after_bulk(self, session: int, raw: bytes) -> None:
        """A control frame of a session that must not overtake its bulk, which therefore goes into the control queue
        first.
        """
        if (queue := self._bulk.pop(session, None)) is not None:
            self._turns.remove(session)
            for piece in queue:
                self.add_control(b"".join(piece))
        self.add_control(raw)

    def forget(self, session: int) -> None:
        """The session is over: nothing of it goes out any more but what is in the control queue."""
        if self._bulk.pop(session, None):
            self._turns.remove(session)
        if self._credit.pop(session, None):
            self.control_size -= _CREDIT_SIZE

    def take(self, limit: int) -> list[bytes]:
        """About `limit` bytes, a frame an item; empty when nothing waits."""
        frames: list[bytes] = []
        size = 0
        while size < limit and self:
            frames.append(self._next())
            size += len(frames[-1])
        return frames

    def _next(self) -> bytes:
        if self._control:
            raw = self._control.popleft()
            self.control_size -= len(raw)
            return raw
        if self._credit:
            session = next(iter(self._credit))
            slot, size = self._credit.pop(session)
            self.control_size -= _CREDIT_SIZE
            header = encode_header(FrameType.CREDIT, session, CREDIT.size, self._role, slot=slot)
            return header + CREDIT.pack(size)
        session = self._turns.popleft()
        queue = self._bulk[session]
        raw = b"".join(queue.popleft())
        if queue:
            self._turns.append(session)
        else:
            del self._bulk[session]
        return raw

    def __bool__(self) -> bool:
        return bool(self._control or self._credit or self._turns)
