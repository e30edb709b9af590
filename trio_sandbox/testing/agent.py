"""The agent's side of the wire (docs/wire.md) in memory: what `guest/` is in C, for simulated programs and files.

Runs in: a task of the simulated machine, with its programs beneath. Ends when: the machine does, or it powers off. A
host that breaks the protocol is a bug: RemoteProtocolError goes to the block of the sandbox.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from trio_sandbox.relay.events import DataReceived, Event, MessageReceived, PingReceived, WindowOpened
from trio_sandbox.relay.frames import HEADER, PROTOCOL_VERSION, FrameType, Role
from trio_sandbox.relay.messages import (
    Clock,
    Configure,
    Emit,
    Exec,
    Failed,
    Fs,
    Hello,
    Message,
    Ready,
    Shutdown,
    Subscribe,
)
from trio_sandbox.relay.mux import Mux
from trio_sandbox.testing.clock import GuestClock
from trio_sandbox.testing.events import EventHub, Subscription
from trio_sandbox.testing.exec_session import ExecFailure, ExecSession
from trio_sandbox.testing.fs_session import FsSession
from trio_sandbox.testing.port import Port
from trio_sandbox.testing.processes import ProcessTable
from trio_sandbox.testing.session import AgentSession, Killed

if TYPE_CHECKING:
    from trio_sandbox.testing.guest import SimulatedGuest

READ_SIZE = 131_072
BULK_LIMIT = 131_072
"""Bytes of output that may wait for the port."""
SESSION_LIMIT = 1088
HANG_UP_GRACE, KILL_PATIENCE, FLUSH_PATIENCE = 1.0, 2.0, 1.0
"""Seconds: for programs when the host hung up, for processes after SIGKILL, for the host to take what is left."""
BULK = (FrameType.STDOUT, FrameType.STDERR)


class SimulatedAgent:
    """PID 1. power_off: called when everything is on disk."""

    def __init__(
        self,
        guest: SimulatedGuest,
        port: Port,
        clock: GuestClock,
        nursery: trio.Nursery,
        power_off: Callable[[], None],
    ) -> None:
        self.guest, self.clock = guest, clock
        self.mux = Mux(Role.GUEST)
        self.events = EventHub()
        self.sessions: dict[int, AgentSession] = {}
        self.processes = ProcessTable(nursery, clock)
        self._port, self._nursery, self._power_off = port, nursery, power_off
        self._bulk = 0
        self._news = trio.lowlevel.ParkingLot()
        self._progress = trio.lowlevel.ParkingLot()
        self._writing = False
        self._stop_by: trio.CancelScope | None = None

    async def run(self) -> None:
        """Boot, and serve the host until the machine is off."""
        self._nursery.start_soon(self._write)
        await self.clock.sleep(self.guest.boot_time)
        self.send(Hello((PROTOCOL_VERSION,), "simulated", "none"))
        while data := await self._port.receive_some(READ_SIZE):
            await self.guest.faults.stand(self.clock)
            for event in self.mux.receive_data_untrusted(data):
                self._take(event)
        self._stop(HANG_UP_GRACE)

    # -- to the host

    def send(self, message: Message, session: int = 0) -> None:
        """Queue a control message."""
        self.mux.send_message(message, session)
        self.wake_writer()

    def wake_writer(self) -> None:
        """The mux has something to write."""
        self._news.unpark_all()

    def room(self, session: int) -> int:
        """Bytes of output that the session may send now."""
        return max(0, min(self.mux.sendable(session), BULK_LIMIT - self._bulk))

    def send_output(self, kind: FrameType, session: int, data: bytes) -> None:
        """Queue output, within `room`."""
        self._bulk += len(data)
        self.mux.send_data(kind, session, data)
        self.wake_writer()

    async def _write(self) -> None:
        faults = self.guest.faults
        try:
            while True:
                while frames := self.mux.frames_to_send():
                    self._writing, queued = True, self.clock.now()
                    for raw in faults.arranged(frames):
                        await faults.lag(self.clock, queued)
                        await self._port.send_all(raw)
                    self._written(frames)
                self._writing = False
                self._progress.unpark_all()
                await self._news.park()
        except trio.BrokenResourceError:
            pass  # the host has hung up: the reader sees it too

    def _written(self, frames: list[bytes]) -> None:
        was_full = self._bulk >= BULK_LIMIT
        self._bulk -= sum(len(raw) - HEADER.size for raw in frames if raw[4] in BULK)
        for session in list(self.sessions.values()) if was_full else ():
            session.pump()

    # -- from the host

    def _take(self, event: Event) -> None:
        match event:
            case PingReceived(body=body):
                self.mux.send_ping(FrameType.PONG, body)
                self.wake_writer()
            case MessageReceived(session=0):
                self._of_machine(event)
            case MessageReceived(message=Exec() | Fs() | Emit() | Subscribe()):
                self._open(event)
            case MessageReceived() if (session := self.sessions.get(event.session)) is not None:
                session.message(event.type, event.message)
            case DataReceived() if (session := self.sessions.get(event.session)) is not None:
                session.stdin(event)
            case WindowOpened() if (session := self.sessions.get(event.session)) is not None:
                session.pump()

    def _of_machine(self, event: MessageReceived) -> None:
        match event.message:
            case Configure(time_ns=time_ns, hostname=hostname):
                self.guest.set_clock(time_ns)
                self.guest.files.write("/etc/hostname", f"{hostname}\n")
                if (failure := self.guest.boot_failure) is not None:
                    self.send(failure)
                    self._nursery.start_soon(self._leave)
                else:
                    self.send(Ready({}))
            case Clock(time_ns):
                self.guest.set_clock(time_ns)
            case Shutdown(grace_ms, number) if not self.guest.ignores_shutdown:
                self._stop(grace_ms / 1000, number)
            case None if event.type is FrameType.CLIENT_GONE:
                for session in list(self.sessions.values()):
                    if session.slot == event.slot:
                        session.kill(Killed.ABANDONED)

    def _open(self, event: MessageReceived) -> None:
        if (refusal := self._refusal(event)) is not None:
            self.send(refusal, event.session)
            return
        match event.message:
            case Exec() as request:
                self._exec(event, request)
            case Fs() as request:
                user = self.guest.files.as_user(*self.guest.user(request.user)[:2])
                self.sessions[event.session] = fs = FsSession(self, event, request, user)
                self._nursery.start_soon(fs.run)
            case Emit() as request:
                self.send(self.events.tell(request), event.session)
            case Subscribe() as request:
                subscription = Subscription(self, event, request)
                self.sessions[event.session] = self.events.subscriptions[event.session] = subscription

    def _refusal(self, event: MessageReceived) -> Failed | None:
        if self._stop_by is not None:
            return Failed("other", errno.ESHUTDOWN, "the sandbox is stopping")
        if len(self.sessions) >= SESSION_LIMIT:
            return Failed("too_many_sessions", errno.EAGAIN, "too many sessions are open")
        if isinstance(event.message, Subscribe):
            return self.events.refusal()
        if isinstance(event.message, Fs):
            try:
                self.guest.user(event.message.user)
            except KeyError:
                return Failed("user_setup_failed", errno.ENOENT, f"there is no user {event.message.user}")
        return None

    def _exec(self, event: MessageReceived, request: Exec) -> None:
        session = self.sessions[event.session] = ExecSession(self, event, request)
        try:
            session.start()
        except ExecFailure as failure:
            session.finish(failure.message)

    def finished(self, session: AgentSession, last: Message) -> None:
        """The session's last frame."""
        self.sessions.pop(session.number, None)
        self.events.subscriptions.pop(session.number, None)
        self.send(last, session.number)
        self._progress.unpark_all()

    # -- timers

    def start_timer(self, timer: trio.CancelScope, seconds: float, action: Callable[[], None]) -> None:
        """Do it so much later on the guest's clock, unless `timer` is cancelled before."""
        self._nursery.start_soon(self._run_timer, timer, self.clock.now() + seconds, action)

    async def _run_timer(self, timer: trio.CancelScope, when: float, action: Callable[[], None]) -> None:
        with timer:
            await self.clock.sleep_until(when)
            action()

    # -- the end

    def _stop(self, grace: float, number: int = signal.SIGTERM) -> None:
        """End the programs, flush, power off. A second request can only make it sooner."""
        if self._stop_by is not None:
            self._stop_by.deadline = min(self._stop_by.deadline, trio.current_time() + grace)
            return
        self._stop_by = trio.CancelScope(deadline=trio.current_time() + grace)
        self._nursery.start_soon(self._shut_down, self._stop_by, number)

    async def _shut_down(self, grace: trio.CancelScope, number: int) -> None:
        self.processes.signal_all(number)
        for session in list(self.sessions.values()):
            if isinstance(session, FsSession):
                session.kill(Killed.BY_REQUEST)
        with grace:
            await self.processes.wait_childless()
        self.processes.signal_all(signal.SIGKILL)
        with trio.move_on_after(KILL_PATIENCE):
            await self.processes.wait_childless()
        for subscription in list(self.events.subscriptions.values()):
            subscription.end()
        with trio.move_on_after(FLUSH_PATIENCE):
            await self._until(lambda: not self.sessions and self._is_written)
        for session in list(self.sessions.values()):  # nobody has taken what they had to say
            session.kill(Killed.ABANDONED)
        self.mux.send_empty(FrameType.GOODBYE)
        await self._leave()

    async def _leave(self) -> None:
        """Say what is left to say, and power off."""
        self.wake_writer()
        with trio.move_on_after(FLUSH_PATIENCE):
            await self._until(lambda: self._is_written)
            await self._port.flushed()
        self._power_off()

    @property
    def _is_written(self) -> bool:
        return not self.mux.has_to_send and not self._writing

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._progress.park()
