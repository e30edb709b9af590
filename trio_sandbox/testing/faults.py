"""What goes wrong on purpose in and around a simulated guest: values, seeded, so that a run can be had again.

Two kinds: chances, of every frame that the agent sends, and strokes (`Stroke`), each once and at its time.

| fault | what the host sees |
|---|---|
| `delay` | frames of the agent come late, in order: nothing breaks; over two ping timeouts, AGENT_LOST |
| `reorder` | frames of different sessions change places, those of one session keep their order: nothing breaks |
| STALL, `stall()` | the agent reads and says nothing for a while; over two ping timeouts, AGENT_LOST |
| `drop` | a frame of a session is lost: who waits for it waits for his own deadline, or meets RemoteProtocolError |
| CUT, `SimulatedGuest.cut()` | the agent's stream breaks off, at times within a frame: reason agent-lost |
| KILL_AGENT, `SimulatedGuest.kill_agent()` | a kernel panic: SandboxCrashedError, reason kernel-panic |
| KILL_VMM, `SimulatedGuest.kill_vmm()` | SandboxCrashedError, reason vmm-exited |
| KILL_RELAY, `cut_clients()` | ConnectionLostError for each client behind a socket; its programs are killed |
| FILL_DISK, `MemoryFiles.capacity` | FilesystemError (ENOSPC) |
"""

from __future__ import annotations

import enum
import random
from collections.abc import Iterable, Iterator

import attrs

from trio_sandbox.relay.frames import HEADER
from trio_sandbox.testing.clock import GuestClock
from trio_sandbox.testing.readable import Readable


class StrokeKind(enum.StrEnum):
    """The table above says what follows from each."""

    STALL = "stall"
    CUT = "cut"
    KILL_AGENT = "kill agent"
    KILL_VMM = "kill vmm"
    KILL_RELAY = "kill relay"
    FILL_DISK = "fill disk"


DEADLY = frozenset({StrokeKind.CUT, StrokeKind.KILL_AGENT, StrokeKind.KILL_VMM})


@attrs.frozen(repr=False)
class Stroke(Readable):
    """One thing that goes wrong once. at: seconds after the sandbox is ready. value: seconds of a STALL, bytes that a
    FILL_DISK leaves free; of other kinds nothing.
    """

    kind: StrokeKind
    at: float = 0.0
    value: float = 0.0


PATIENCE_OF_HOST = 20.0
"""Seconds of silence after which the host takes the agent for lost."""


@attrs.define(eq=False, repr=False)
class Faults(Readable):
    """What goes wrong. Without anything given, nothing. For one guest: what is left of its chances is in here.

    seed: of all chances. delay: seconds that a frame is late at most. delay_chance, reorder_chance, drop_chance: from 0
    to 1, of each frame. Frames of the machine itself (session 0) are delayed, and otherwise left alone. strokes: what
    happens once, in any order.
    """

    seed: int = 0
    delay: float = 0.0
    delay_chance: float = 0.0
    reorder_chance: float = 0.0
    drop_chance: float = 0.0
    strokes: tuple[Stroke, ...] = ()
    dropped: list[bytes] = attrs.field(init=False, factory=list, repr=False)
    """What was lost, whole frames."""
    _random: random.Random = attrs.field(init=False, repr=False)
    _stalled_until: float = attrs.field(init=False, default=0.0, repr=False)

    def __attrs_post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - chances, not secrets

    @property
    def may_crash(self) -> bool:
        """Whether the sandbox may crash of it."""
        deadly = any(stroke.kind in DEADLY for stroke in self.strokes)
        silence = self.delay + sum(stroke.value for stroke in self.strokes if stroke.kind is StrokeKind.STALL)
        return deadly or silence >= PATIENCE_OF_HOST / 2 or self.drop_chance > 0

    @property
    def may_be_silent(self) -> bool:
        """Whether the agent's word may come too late for whoever waits a few seconds for it."""
        return self.may_crash or self.delay > 0 or bool(self.strokes)

    @property
    def may_cut(self) -> bool:
        """Whether clients behind sockets may lose their connections of it."""
        return self.may_crash or any(stroke.kind is StrokeKind.KILL_RELAY for stroke in self.strokes)

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
