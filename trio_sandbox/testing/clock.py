"""The guest's monotonic clock. It stands still while the machine does, and counts in Trio's time, virtual or not."""

from __future__ import annotations

import math

import attrs
import trio


@attrs.define(eq=False)
class GuestClock:
    """Seconds since the guest's start, without those in which it was paused."""

    _stood: float = 0.0
    _stopped_at: float | None = None
    _changed: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    def now(self) -> float:
        """The time of the guest."""
        return (trio.current_time() if self._stopped_at is None else self._stopped_at) - self._stood

    def stop(self) -> None:
        """The virtual CPUs stand still."""
        if self._stopped_at is None:
            self._stopped_at = trio.current_time()
            self._changed.unpark_all()

    def resume(self) -> None:
        """The virtual CPUs run again."""
        if self._stopped_at is not None:
            self._stood += trio.current_time() - self._stopped_at
            self._stopped_at = None
            self._changed.unpark_all()

    async def running(self) -> None:
        """Wait while the guest stands still. A checkpoint only then."""
        while self._stopped_at is not None:
            await self._changed.park()

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds of the guest's time."""
        await self.sleep_until(self.now() + seconds)

    async def sleep_until(self, when: float) -> None:
        """Wait until the guest's clock says `when`."""
        await trio.lowlevel.checkpoint()
        while self._stopped_at is not None or trio.current_time() < when + self._stood:
            with trio.move_on_at(math.inf if self._stopped_at is not None else when + self._stood):
                await self._changed.park()
