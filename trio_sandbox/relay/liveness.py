"""Whether the agent still answers: a hung guest must become AGENT_LOST, and a busy host must not be mistaken for one.

Runs in: whoever awaits `Liveness.run`. Owns: nothing. Ends when: the agent is lost. Cancellation: no effect.

The host's own program can block the Trio loop for longer than any deadline, while the answer lies in the socket. So a
deadline that has passed counts only when the reader has then read all there was, and a second ping has gone the same
way.
"""

from __future__ import annotations

import attrs
import trio

from trio_sandbox.relay.link import AgentLink, LinkLost

PING_INTERVAL = 5.0
"""Seconds between two pings."""
PING_TIMEOUT = 10.0
"""Seconds for an answer; two in a row must fail. The agent runs at real-time priority and answers in milliseconds."""
IDLE_PASSES = 4
"""Turns of the Trio loop without anything read after which there is nothing left to read: a task that became readable
runs in the second at the latest.
"""


@attrs.define(eq=False)
class Liveness:
    """The watch over one agent. `suspend` it while the machine is paused."""

    link: AgentLink
    interval: float = PING_INTERVAL
    timeout: float = PING_TIMEOUT
    _resumed: trio.Event | None = None
    _epoch: int = 0

    def suspend(self) -> None:
        """The machine stands still: no silence counts until `resume`."""
        if self._resumed is None:
            self._resumed = trio.Event()
            self._epoch += 1

    def resume(self) -> None:
        """The machine runs again."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None
            self._epoch += 1

    async def run(self) -> None:
        """Return when the agent has not answered two pings in a row. A stream that closed is not this watch's news."""
        try:
            while await self._is_alive():  # noqa: ASYNC110 - the next ping is due then, whatever happens
                await trio.sleep(self.interval)
        except LinkLost:
            await trio.sleep_forever()

    async def _is_alive(self) -> bool:
        while self._resumed is not None:
            await self._resumed.wait()
        epoch = self._epoch
        return await self._answers() or await self._answers() or epoch != self._epoch

    async def _answers(self) -> bool:
        """Whether any ping was answered in time, or by the time that all had been read."""
        before = self.link.pongs
        with trio.move_on_after(self.timeout):
            await self.link.ping()
            return True
        await self._read_all()
        return self.link.pongs != before

    async def _read_all(self) -> None:
        reads, idle = self.link.reads, 0
        while idle < IDLE_PASSES:
            await trio.lowlevel.checkpoint()
            idle = idle + 1 if self.link.reads == reads else 0
            reads = self.link.reads
