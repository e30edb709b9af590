"""How many sessions one client may have open, and how large their windows are. Sans-IO.

A client's windows are memory that it can make the relay and the agent hold by reading nothing, so all of them together
are bounded. Every session is sure of MIN_WINDOW in each direction; what is left over is handed out in shares, an
eighth of the rest each time, so that few sessions are fast and many still move.

Invariant: granted bytes never exceed CLIENT_BYTES, and sessions never exceed CLIENT_SESSIONS.
"""

from __future__ import annotations

import attrs

from trio_sandbox.relay.credit import WINDOW

CLIENT_SESSIONS = 64
"""Sessions that one client may have open."""
CLIENT_BYTES = 4 << 20
"""Bytes of all windows of one client."""
MIN_WINDOW = 16 << 10
"""Bytes that every session gets in each direction."""
_SHARED = CLIENT_BYTES - 2 * CLIENT_SESSIONS * MIN_WINDOW
_GRAIN = 4096


class BudgetExceeded(Exception):
    """The client has CLIENT_SESSIONS sessions already. Internal: the relay says it in the protocol's words."""


@attrs.frozen
class Grant:
    """The windows of one session, in bytes: its output, and its standard input (0 without one)."""

    window: int
    stdin_window: int


@attrs.define(eq=False)
class WindowBudget:
    """What one client has been granted. Every grant must be given back once."""

    sessions: int = 0
    shared: int = _SHARED

    def grant(self, window: int, stdin_window: int) -> Grant:
        """Windows for a new session, no larger than wished for. Raises BudgetExceeded."""
        if self.sessions >= CLIENT_SESSIONS:
            raise BudgetExceeded
        self.sessions += 1
        return Grant(self._take(window), self._take(stdin_window))

    def give_back(self, grant: Grant) -> None:
        """The session of `grant` has ended."""
        self.sessions -= 1
        self.shared += _extra(grant.window) + _extra(grant.stdin_window)

    def _take(self, wish: int) -> int:
        if wish <= MIN_WINDOW:
            return wish
        share = min(WINDOW - MIN_WINDOW, self.shared // 8 // _GRAIN * _GRAIN)
        size = min(wish, MIN_WINDOW + share)
        self.shared -= _extra(size)
        return size


def _extra(window: int) -> int:
    return max(0, window - MIN_WINDOW)
