"""Credit windows: how many bulk bytes may still be sent, and when to give some back. Sans-IO.

The receiver of a stream starts the sender off with a whole window and returns credit as its consumer takes bytes, in
lots: a lot is a fifth of a window, a little less than the largest frame, so that a stream of such frames has several on
the way all the time.

Invariant 1: 0 <= credit <= limit. Invariant 2: bytes received and not yet returned never exceed the limit.
"""

from __future__ import annotations

import attrs

from trio_sandbox.errors import LocalProtocolError, RemoteProtocolError

WINDOW = 262_144
"""Bytes in flight in one direction of one session at most: bounds the memory that a stopped reader can hold."""


@attrs.define(eq=False)
class SendWindow:
    """What we may still send. `limit` 0: nothing was granted yet."""

    limit: int = 0
    credit: int = 0

    @classmethod
    def of(cls, limit: int, credit: int | None = None) -> SendWindow:
        """A window of which all is free, or what `credit` says."""
        return cls(limit, limit if credit is None else credit)

    def spend(self, size: int) -> None:
        """Account for `size` bytes sent. Raises LocalProtocolError when there is not that much credit."""
        if size > self.credit:
            raise LocalProtocolError(f"sending {size} bytes with credit for {self.credit}")
        self.credit -= size

    def refill_untrusted(self, size: int) -> None:
        """Account for a CREDIT frame. Raises RemoteProtocolError when it would exceed the window."""
        if not 0 < size <= self.limit - self.credit:
            raise RemoteProtocolError(f"credit for {size} bytes where {self.limit - self.credit} are outstanding")
        self.credit += size


@attrs.define(eq=False)
class ReceiveWindow:
    """What the peer may still send, and what our consumer has taken since we last said so."""

    limit: int = 0
    credit: int = 0
    buffered: int = 0
    consumed: int = 0

    @classmethod
    def of(cls, limit: int, credit: int | None = None) -> ReceiveWindow:
        """A window that the peer may use whole, or as far as `credit` says: the rest is still to be consumed."""
        free = limit if credit is None else credit
        return cls(limit, free, limit - free)

    def arrive_untrusted(self, size: int) -> None:
        """Account for `size` bytes received. Raises RemoteProtocolError when the peer had no credit for them."""
        if size > self.credit:
            raise RemoteProtocolError(f"{size} bytes received with credit for {self.credit}")
        self.credit -= size
        self.buffered += size

    def consume(self, size: int, *, at_once: bool = False) -> int:
        """Account for `size` bytes taken by the consumer; returns how much credit to send now, often 0.

        at_once: do not wait for a lot to come together, because the consumer is the next hop and has waited already.
        """
        if not 0 <= size <= self.buffered:
            raise LocalProtocolError(f"consuming {size} bytes of {self.buffered}")
        self.buffered -= size
        self.consumed += size
        if not self.consumed or (self.consumed < self.limit // 5 and not at_once):
            return 0
        granted, self.consumed = self.consumed, 0
        self.credit += granted
        return granted
