"""One client's channel onto the agent stream: its slot, its sessions, and what they may cost.

The same for the handle of this process and for a client behind a socket: both open their sessions here, so the limits
hold for both. Closing a channel ends its sessions in the guest, except those that survive (survivors.py).
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from trio_sandbox.errors import ExecFailedError, LocalProtocolError
from trio_sandbox.relay.budget import CLIENT_SESSIONS, BudgetExceeded, Grant, WindowBudget
from trio_sandbox.relay.events import Opener
from trio_sandbox.relay.link import AgentLink, Sink
from trio_sandbox.relay.messages import (
    Exec,
    Fs,
)

E2BIG, EAGAIN = 7, 11


@attrs.define(eq=False)
class ClientChannel:
    """One client. slot: its number on the agent stream, 0 for the sessions that belong to no client."""

    link: AgentLink
    slot: int
    budget: WindowBudget = attrs.Factory(WindowBudget)
    _grants: dict[int, Grant] = attrs.Factory(dict)

    def open(self, request: Opener, make: Callable[[int, Grant], Sink]) -> int:
        """Begin a session in the guest; its number in the sandbox.

        make(number, grant): what its events go to; whoever that is calls `ended(number)` once, when it is over or let
        go. Raises ExecFailedError for a request over 1 MiB or one session too many, and the machine's failure.
        """
        self.link.raise_failure()
        wish = getattr(request, "window", 0), stdin_wish(request)
        try:
            grant = self.budget.grant(*wish)
        except BudgetExceeded:
            raise ExecFailedError(
                "too_many_sessions", EAGAIN, f"this client has {CLIENT_SESSIONS} sessions open already"
            ) from None
        granted = {name: value for name, value in attrs.asdict(grant).items() if hasattr(request, name)}
        if "stdin_window" in granted:  # the agent wants a window even where nothing will be sent
            granted["stdin_window"] = granted["stdin_window"] or 1
        try:
            number = self.link.open(attrs.evolve(request, **granted), self.slot, lambda number: make(number, grant))
        except LocalProtocolError as error:
            self.budget.give_back(grant)
            raise ExecFailedError("bad_args", E2BIG, f"the request cannot be sent: {error}") from error
        except BaseException:
            self.budget.give_back(grant)
            raise
        self._grants[number] = grant
        return number

    def ended(self, number: int) -> None:
        """A session is over, or nobody wants it any more: it costs nothing from now on."""
        if (grant := self._grants.pop(number, None)) is not None:
            self.budget.give_back(grant)

    @property
    def sessions(self) -> frozenset[int]:
        """The numbers of the sessions that are open."""
        return frozenset(self._grants)

    def close(self) -> None:
        """The client has gone: kill what it started, and let late output go."""
        if not self._grants:
            return
        for number in list(self._grants):
            self.link.redirect(number, None)
            self.ended(number)
        if self.link.accepting:
            self.link.client_gone(self.slot)


def stdin_wish(request: Opener) -> int:
    """Bytes of the input's window that the request needs: none where it takes no input."""
    if isinstance(request, Exec):
        return request.stdin_window if request.stdin else 0
    if isinstance(request, Fs):
        return request.stdin_window if request.op in ("write", "unpack") else 0
    return getattr(request, "stdin_window", 0)
