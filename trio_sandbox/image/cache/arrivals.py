"""Layers that are on their way, for a build that takes each as it comes instead of waiting for all. Trio."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import trio


@attrs.frozen(eq=False)
class Arrivals:
    """What is downloaded now, by digest. A blob that is not named is here already."""

    _events: dict[str, trio.Event]

    @classmethod
    def of(cls, digests: Iterable[str]) -> Arrivals:
        """All of them are still to come."""
        return cls({digest: trio.Event() for digest in digests})

    def note(self, digest: str) -> None:
        """This one is here, and verified."""
        self._events[digest].set()

    def wait_in_thread(self, digest: str) -> None:
        """Wait for a blob, in a worker thread of Trio's. Raises trio.Cancelled when its caller was cancelled."""
        event = self._events.get(digest)
        if event is not None:
            trio.from_thread.run(event.wait)

    async def wait_all(self) -> None:
        """Wait for everything."""
        for event in self._events.values():
            await event.wait()


NOTHING = Arrivals({})
"""Everything is here."""
