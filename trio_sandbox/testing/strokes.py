"""Deals the strokes of a simulated guest's faults, each at its time.

Runs in: a task of the simulated sandbox. Ends when: the last one was dealt, or the sandbox does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from trio_sandbox.testing.faults import Stroke, StrokeKind
from trio_sandbox.testing.guest import SimulatedGuest


async def deal_strokes(guest: SimulatedGuest, cut_clients: Callable[[], Awaitable[object]]) -> None:
    """Deal the guest's strokes. cut_clients: cuts the connections of all clients."""
    began = trio.current_time()
    for stroke in sorted(guest.faults.strokes, key=lambda stroke: stroke.at):
        await trio.sleep_until(began + stroke.at)
        if not guest.is_on:
            return
        if stroke.kind is StrokeKind.KILL_RELAY:
            await cut_clients()
        else:
            _deal(guest, stroke)


def _deal(guest: SimulatedGuest, stroke: Stroke) -> None:
    match stroke.kind:
        case StrokeKind.STALL:
            guest.stall(stroke.value)
        case StrokeKind.CUT:
            guest.cut()
        case StrokeKind.KILL_AGENT:
            guest.kill_agent()
        case StrokeKind.KILL_VMM:
            guest.kill_vmm()
        case StrokeKind.FILL_DISK:
            guest.fill_disk(int(stroke.value))
