"""Who is next, and whether there is room for it. No I/O.

Requests are served in the order in which they came. The first one in the queue keeps those behind it waiting until
there is room for it, whatever they need: so a large one is not starved by small ones. Work in the background, which a
pool does ahead of time, waits behind all others, and leaves half of everything to them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import attrs

from trio_sandbox.admission.limits import Limits

BACKGROUND_SHARE = 0.5
"""Of each limit, at most, for what was started in the background and is not in use; one is allowed in any case."""


class Stage(enum.IntEnum):
    """How far a request is."""

    NONE = 0
    WAITING = 1
    BOOTING = 2
    RUNNING = 3


@attrs.frozen
class Ticket:
    """One request, waiting or admitted. number: smaller for those that came earlier. memory in MiB."""

    number: int
    memory: int
    stage: Stage = Stage.WAITING
    background: bool = False
    pid: int = 0

    @property
    def rank(self) -> tuple[bool, int]:
        """Its place among those that wait."""
        return self.background, self.number


@attrs.frozen
class Shortage:
    """What there is not enough of: `usage` of `limit` is taken, by those that were admitted."""

    resource: str
    limit: int
    usage: int


@attrs.frozen
class Usage:
    """What the admitted use together."""

    memory: int = 0
    boots: int = 0
    sandboxes: int = 0

    @classmethod
    def of(cls, tickets: Iterable[Ticket]) -> Usage:
        """Those that wait use nothing."""
        admitted = [ticket for ticket in tickets if ticket.stage > Stage.WAITING]
        booting = sum(ticket.stage is Stage.BOOTING for ticket in admitted)
        return cls(sum(ticket.memory for ticket in admitted), booting, len(admitted))

    def shortage(self, ticket: Ticket, limits: Limits) -> Shortage | None:
        """Why `ticket` does not fit in beside this; None when it does."""
        needs = {"memory": ticket.memory, "boots": 1, "sandboxes": 1}
        for resource, needed in needs.items():
            limit, usage = getattr(limits, resource), getattr(self, resource)
            if usage + needed > limit:
                return Shortage(resource, limit, usage)
        return None


@attrs.frozen
class Standing:
    """ahead: requests that are served before this one. shortage: what the first of the queue waits for, None when there
    is room for it.
    """

    ahead: int
    shortage: Shortage | None

    @property
    def may_go(self) -> bool:
        """Whether it is this one's turn, and there is room."""
        return self.ahead == 0 and self.shortage is None


def standing(mine: Ticket, others: Iterable[Ticket], limits: Limits) -> Standing:
    """How a request stands that waits among `others`, which wait or were admitted."""
    others = list(others)
    ahead = [ticket for ticket in others if ticket.stage is Stage.WAITING and ticket.rank < mine.rank]
    first = min([mine, *ahead], key=lambda ticket: ticket.rank)
    shortage = Usage.of(others).shortage(first, limits)
    if shortage is None and first.background:
        shortage = _background_shortage(first, others, limits)
    return Standing(len(ahead), shortage)


def _background_shortage(ticket: Ticket, others: list[Ticket], limits: Limits) -> Shortage | None:
    used = Usage.of(other for other in others if other.background)
    if used.sandboxes == 0:
        return None
    shares = {field.name: int(getattr(limits, field.name) * BACKGROUND_SHARE) for field in attrs.fields(Limits)}
    return used.shortage(ticket, Limits(**shares))
