"""Who is next: the rules, for any queue."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from trio_sandbox.admission.limits import Limits
from trio_sandbox.admission.queue import Shortage, Stage, Ticket, Usage, standing

LIMITS = Limits(1000, 2, 4)


def waiting(number: int, memory: int = 100, *, background: bool = False) -> Ticket:
    return Ticket(number, memory, Stage.WAITING, background)


def booting(memory: int = 100) -> Ticket:
    return Ticket(0, memory, Stage.BOOTING)


def running(memory: int = 100, *, background: bool = False) -> Ticket:
    return Ticket(0, memory, Stage.RUNNING, background)


def test_each_limit_is_one_of_its_own() -> None:
    assert standing(waiting(1), [running()] * 3, LIMITS).may_go
    assert standing(waiting(1), [running()] * 4, LIMITS).shortage == Shortage("sandboxes", 4, 4)
    assert standing(waiting(1), [booting()] * 2, LIMITS).shortage == Shortage("boots", 2, 2)
    assert standing(waiting(1), [running(901)], LIMITS).shortage == Shortage("memory", 1000, 901)
    assert standing(waiting(1), [running(900)], LIMITS).may_go


def test_a_large_one_keeps_small_ones_waiting() -> None:
    others = [running(500), waiting(1, 600)]
    small = standing(waiting(2, 10), others, LIMITS)
    assert (small.ahead, small.may_go, small.shortage) == (1, False, Shortage("memory", 1000, 500))
    assert standing(waiting(1, 600), [running(400), waiting(2, 10)], LIMITS).may_go


def test_the_background_gives_way_and_leaves_half() -> None:
    mine = waiting(1, background=True)
    assert standing(mine, [waiting(2)], LIMITS).ahead == 1
    assert standing(waiting(2), [mine], LIMITS).may_go
    assert standing(mine, [running(background=True)], LIMITS).may_go
    assert standing(mine, [running(background=True)] * 2, LIMITS).shortage == Shortage("sandboxes", 2, 2)
    assert standing(mine, [running()] * 2, LIMITS).may_go
    assert standing(waiting(1, 800, background=True), [], LIMITS).may_go, "one is allowed however large"


tickets = st.builds(
    Ticket,
    number=st.integers(1, 1000),
    memory=st.integers(1, 1000),
    stage=st.sampled_from([Stage.WAITING, Stage.BOOTING, Stage.RUNNING]),
    background=st.booleans(),
)
queues = st.lists(tickets, min_size=1, max_size=12, unique_by=lambda ticket: ticket.number)


@given(queues)
def test_at_most_one_may_go_and_with_nothing_admitted_one_does(queue: list[Ticket]) -> None:
    waiting = [ticket for ticket in queue if ticket.stage is Stage.WAITING]
    stands = {mine: standing(mine, [other for other in queue if other is not mine], LIMITS) for mine in waiting}
    going = [mine for mine, stands_so in stands.items() if stands_so.may_go]
    assert len(going) <= 1
    assert sorted(stands_so.ahead for stands_so in stands.values()) == list(range(len(waiting)))
    if waiting and len(waiting) == len(queue):
        assert going == [min(waiting, key=lambda ticket: ticket.rank)]


@given(queues)
def test_whoever_goes_stays_within_every_limit(queue: list[Ticket]) -> None:
    for mine in queue:
        others = [other for other in queue if other is not mine]
        if mine.stage is Stage.WAITING and standing(mine, others, LIMITS).may_go:
            used = Usage.of([*others, attrs.evolve(mine, stage=Stage.BOOTING)])
            assert used.memory <= LIMITS.memory
            assert used.boots <= LIMITS.boots
            assert used.sandboxes <= LIMITS.sandboxes
