"""What goes wrong on purpose between the simulated agent and the host: seeded, so that a run can be had again.

| fault | what the host sees |
|---|---|
| `delay` | frames of the agent come late, in order: nothing breaks; over two ping timeouts, AGENT_LOST |
| `reorder` | frames of different sessions change places, those of one session keep their order: nothing breaks |
| `stall()` | the agent reads and says nothing for a while; over two ping timeouts, AGENT_LOST |
| `drop` | a frame of a session is lost: who waits for it waits for his own deadline, or meets RemoteProtocolError |
| `SimulatedGuest.kill_agent()` | a kernel panic: SandboxCrashedError, reason kernel-panic |
| `SimulatedGuest.kill_vmm()` | SandboxCrashedError, reason vmm-exited |
| `cut_clients()` | ConnectionLostError for each client behind a socket; its programs are killed |
| `MemoryFiles.capacity` | FilesystemError (ENOSPC) |
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import attrs

from trio_sandbox.relay.frames import HEADER
from trio_sandbox.testing.clock import GuestClock


@attrs.define(eq=False)
class Faults:
    """What befalls the frames that the agent sends. Without anything given, nothing.

    seed: of all chances. delay: seconds that a frame is late at most. delay_chance, reorder_chance, drop_chance: from 0
    to 1, of each frame. Frames of the machine itself (session 0) are delayed, and otherwise left alone.
    """

    seed: int = 0
    delay: float = 0.0
    delay_chance: float = 0.0
    reorder_chance: float = 0.0
    drop_chance: float = 0.0
    dropped: list[bytes] = attrs.Factory(list)
    """What was lost, whole frames."""
    _random: random.Random = attrs.field(init=False)
    _stalled_until: float = 0.0

    def __attrs_post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - chances, not secrets

    def stall(self, clock: GuestClock, seconds: float) -> None:
        """The agent does nothing for so long of the guest's time."""
        self._stalled_until = max(self._stalled_until, clock.now() + seconds)

    async def stand(self, clock: GuestClock) -> None:
        """Wait while the machine stands still or its agent is stalled."""
        await clock.running()
        while clock.now() < self._stalled_until:
            await clock.sleep_until(self._stalled_until)

    async def lag(self, clock: GuestClock, queued: float) -> None:
        """Be late with the next frame, perhaps. queued: the guest's time at which it could have gone."""
        if self.delay_chance and self._random.random() < self.delay_chance:
            await clock.sleep_until(queued + self._random.uniform(0, self.delay))
        await self.stand(clock)

    def arranged(self, frames: Iterable[bytes]) -> Iterator[bytes]:
        """The frames that go out, in the order in which they do."""
        result: list[bytes] = []
        for raw in frames:
            if self.drop_chance and _session(raw) and self._random.random() < self.drop_chance:
                self.dropped.append(raw)
                continue
            place = len(result)
            while self._may_overtake(raw, result[:place]):
                place -= 1
            result.insert(place, raw)
        return iter(result)

    def _may_overtake(self, raw: bytes, before: list[bytes]) -> bool:
        if not self.reorder_chance or not before or not _session(raw) or not _session(before[-1]):
            return False
        return _session(before[-1]) != _session(raw) and self._random.random() < self.reorder_chance


def _session(raw: bytes) -> int:
    session: int = HEADER.unpack_from(raw)[4]
    return session
