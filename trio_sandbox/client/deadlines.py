"""The caller's deadline as the guest hears of it. anyio only.

When a scope expires, its own cancellation comes first, and kills what was begun in it with a word of confirmation. The
guest's deadline is the net below: it ends the session where that word cannot arrive. It is no `timeout=`: nobody is
told of it, since whoever set it has gone.
"""

from __future__ import annotations

import math

import anyio

from trio_sandbox.client.transport import ProgramSession

MARGIN = 0.25
"""Seconds by which the guest's deadline is later: the caller's own end comes first and is the one that is reported."""
MAX_MS = (2**63 - 1) // 1_000_000  # what the agent can count in nanoseconds: it refuses more


def deadline_ms() -> int:
    """Milliseconds from now until shortly after the deadline of the scopes that we are in; 0 when there is none."""
    left = anyio.current_effective_deadline() - anyio.current_time()
    if left == math.inf:
        return 0
    return math.ceil(min(max((left + MARGIN) * 1000, 1), MAX_MS))  # a scope that was cancelled has its deadline at -inf


class GuestDeadline:
    """The deadline of one session, renewed where its handle is used.

    A handle can outlive the scope that it was made in. So whenever it is used in a scope that ends later than what the
    guest was told last, the guest is told anew. An earlier end is never sent, because that is only the end of
    somebody's patience. What is not used at all ends shortly after the scope in which it was last used.
    """

    def __init__(self, session: ProgramSession, deadline: float) -> None:
        """deadline: of the scopes in which the session was opened, on anyio's clock; infinity when it was told none."""
        self._session = session
        self._deadline = deadline

    def renew(self) -> bool:
        """The calling task uses the handle. Whether the guest is told anything."""
        if self._deadline == math.inf or (deadline := anyio.current_effective_deadline()) <= self._deadline:
            return False
        self._deadline = deadline
        self._session.set_deadline(deadline_ms())
        return True

    def lift(self) -> None:
        """From now on the session outlives everybody's scopes."""
        if self._deadline != math.inf:
            self._deadline = math.inf
            self._session.set_deadline(0)
