"""Plays actions against a sandbox, and compares all that is seen with what must hold (model.py).

Runs in: whatever calls it, with the writers of standard input in a nursery that it is given (play.py). All checks raise
AssertionError.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path

import attrs
import trio

from trio_sandbox.client.connect import connect
from trio_sandbox.client.options import Stdin
from trio_sandbox.client.outcome import ExecEventType
from trio_sandbox.client.sandbox import Sandbox
from trio_sandbox.errors import (
    ConnectionLostError,
    ExecFailedError,
    ExecTimeoutError,
    LocalProtocolError,
    SandboxCrashedError,
    SandboxError,
    SandboxNotRunningError,
)
from trio_sandbox.testing import actions as do
from trio_sandbox.testing.backends import Backend
from trio_sandbox.testing.faults import Faults
from trio_sandbox.testing.model import Ends, Outcome, SessionModel
from trio_sandbox.testing.played import PlayedSession, feed, patience, resize

CLIENTS = 6
REPLAYED = 65_536
"""Bytes of output that a session which nobody is attached to keeps."""
MACHINE_ENDED = (SandboxCrashedError, SandboxNotRunningError)


@attrs.define(eq=False)
class Player:
    """One sandbox, its clients and their sessions. `sessions`: those that live, oldest first; `ended`: the others."""

    backend: Backend
    faults: Faults
    sandbox: Sandbox
    nursery: trio.Nursery
    _address: Path
    clients: list[Sandbox]
    sessions: list[PlayedSession] = attrs.Factory(list)
    ended: list[SessionModel] = attrs.Factory(list)
    crashes: list[SandboxError] = attrs.Factory(list)
    """How the machine ended, once it has."""
    unknown: int = 0
    """Sessions that may live and whose number was never heard, since their client was cut off."""

    async def perform(self, action: do.Action) -> None:
        """Do one thing, and look at all that can be seen. Raises AssertionError when something is not as it must be."""
        async with patience(self.backend.patience):
            if not self.crashes:
                await self._guarded(partial(self._perform, action))

    async def _guarded(self, step: Callable[[], Awaitable[object]]) -> bool:
        """Whether the step got to its end; what a fault has broken is looked after when it did not."""
        try:
            try:
                await step()
            except ConnectionLostError as error:
                await self._find_lost_clients(error)
                return False
        except MACHINE_ENDED as error:
            await self._machine_ended(error)
            return False
        return True

    async def _perform(self, action: do.Action) -> None:
        match action:
            case do.Start():
                await self._start(action)
            case do.Pause(seconds):
                await trio.sleep(min(seconds, self.backend.moment) if self.backend.moment < 1 else seconds)
            case do.Connect():
                if len(self.clients) < CLIENTS:
                    self.clients.append(await connect(self._address))
            case do.Close(number):
                await self._close(number)
            case do.Attach():
                await self._attach(action)
            case _ if (session := self.pick(action.session)) is not None:
                await self._with(session, action)

    def pick(self, back: int) -> PlayedSession | None:
        """The session that an action means."""
        return self.sessions[-1 - back % len(self.sessions)] if self.sessions else None

    def client(self, number: int) -> Sandbox:
        """The client that an action means."""
        return self.clients[number % len(self.clients)]

    async def _with(self, session: PlayedSession, action: do.Action) -> None:
        handle, model = session.handle, session.model
        if handle is None:
            return
        match action:
            case do.Write(data):
                self._write(session, data)
            case do.CloseInput() if session.input is not None:
                model.input_ended = True
                session.input.send_nowait(None)
                session.input = None
            case do.Credit(size):
                await self.take(session, size, self.backend.moment)
            case do.Resize(rows, cols):
                await resize(handle, rows, cols, must_refuse=not session.was_attached)
            case do.Signal(number):
                model.signals.add(number)
                await handle.signal(number)
            case do.Kill():
                model.killed()
                await handle.kill()
            case do.Detach() if model.detached:
                await self._detach(session)
            case do.Cancel():
                await self._cancel(session)

    # -- beginning and input

    async def _start(self, action: do.Start) -> None:
        program, client = action.program, self.client(action.client)
        detached = action.detached and program.ends is not Ends.NEVER
        model = SessionModel(program, trio.current_time(), action.timeout, detached)
        handle = await client.exec_stream(
            program.cmd, program.args, stdin=Stdin.pipe(), timeout=action.timeout, detached=detached
        )
        session = PlayedSession(model, handle, client)
        self.sessions.append(session)
        self._feed(session)
        if detached:  # whoever attaches must know its number
            try:
                model.pid = await handle.wait_until_started()
            except ExecFailedError as error:
                self._over(session, Outcome(error=type(error), kind=error.kind))
                return
            session.id = handle.session_id

    def _feed(self, session: PlayedSession) -> None:
        assert session.handle is not None
        sink = session.handle.take_stdin()
        assert sink is not None
        session.input, queue = trio.open_memory_channel[bytes | None](math.inf)
        self.nursery.start_soon(feed, sink, queue, session)

    def _write(self, session: PlayedSession, data: bytes) -> None:
        model = session.model
        if session.input is None or model.input_lost:
            return
        if model.detached and len(model.written) + len(data) > REPLAYED // 2:
            return  # so that all of its output can be had again
        model.written += data
        session.unsent += 1
        session.input.send_nowait(data)

    # -- output and ends

    async def take(self, session: PlayedSession, size: int, within: float) -> None:
        """Take output until there are so many bytes, nothing comes for so long, or it is over."""
        end = len(session.model.taken) + size
        while session.model.outcome is None and len(session.model.taken) < end:
            with trio.move_on_after(within) as scope:
                await self._event(session)
            if scope.cancelled_caught:
                return

    async def _event(self, session: PlayedSession) -> None:
        handle, model = session.handle, session.model
        assert handle is not None
        try:
            event = await handle.recv()
            if event is None:
                code, _ = await handle.wait()
                self._over(session, Outcome(code))
            elif event.event_type is ExecEventType.STDOUT:
                assert event.data is not None
                model.output_arrived(event.data)
            elif event.event_type is ExecEventType.STARTED:
                assert model.pid in (None, event.pid), "it started twice"
                model.pid = event.pid
            else:
                assert event.event_type is not ExecEventType.STDERR, f"{model.program.cmd} complains: {event.data!r}"
        except ExecFailedError as error:
            self._over(session, Outcome(error=type(error), kind=error.kind))
        except ExecTimeoutError as error:
            self._over(session, Outcome(error=type(error), kind="timeout"))

    def _over(self, session: PlayedSession, outcome: Outcome) -> None:
        session.model.ended(outcome, trio.current_time())
        self._forget(session)

    def _forget(self, session: PlayedSession) -> None:
        self.sessions.remove(session)
        self.ended.append(session.model)
        if session.input is not None:
            session.input.close()

    # -- leaving and coming back

    async def _detach(self, session: PlayedSession) -> None:
        handle = session.handle
        assert handle is not None
        if session.unsent:
            session.model.input_lost = True
        await handle.detach()
        if handle.exit is not None:
            session.model.input_lost = True  # what it said was dropped
            self._over(session, Outcome(handle.exit.code))
            return
        self._left(session)

    def _left(self, session: PlayedSession) -> None:
        session.handle = None
        if session.input is not None:
            session.input.close()
            session.input = None

    async def _attach(self, action: do.Attach) -> None:
        left = [session for session in self.sessions if session.handle is None]
        if not left:
            return
        session = left[-1 - action.session % len(left)]
        session.client = self.client(action.client)
        try:
            session.handle = await session.client.attach_session(session.id)
        except ExecFailedError as error:
            self._ended_alone(session, error)
            return
        session.model.taken.clear()
        session.was_attached = True
        self._feed(session)
        if session.model.input_ended:
            assert session.input is not None
            session.input.close()
            session.input = None

    def _ended_alone(self, session: PlayedSession, error: ExecFailedError) -> None:
        """What ends while nobody is attached is told to nobody."""
        model = session.model
        assert error.kind == "no_such_session", error
        ended = model.input_ended or model.program.ends is Ends.AT_ONCE or model.signals or model.timeout is not None
        assert ended, f"{model.program.cmd} is gone, and nobody ended it"
        model.outcome = Outcome(error=type(error), kind=error.kind)
        self._forget(session)

    async def _cancel(self, session: PlayedSession) -> None:
        """Cancelled, a program is gone when its block is left, and its end is known."""
        handle, model = session.handle, session.model
        assert handle is not None
        with trio.CancelScope() as scope:
            async with handle:
                scope.cancel(reason="an action says so")
                await trio.sleep_forever()
        if model.detached:
            if session.unsent:
                model.input_lost = True
            if handle.exit is None:
                self._left(session)
                return
            model.input_lost = True
        model.killed()
        model.input_lost = True  # what it had said was dropped
        try:
            code, _ = await handle.wait()
            outcome = Outcome(code)
        except ExecFailedError as error:
            outcome = Outcome(error=type(error), kind=error.kind)
        except ExecTimeoutError as error:
            outcome = Outcome(error=type(error), kind="timeout")
        except LocalProtocolError as error:
            assert self.faults.may_be_silent, "a cancelled program's end is not known"
            model.outcome = Outcome(error=type(error))
            self._forget(session)
            return
        if handle.pid is not None and not model.detached:
            alive = await self.backend.is_alive(self.sandbox, handle.pid)
            assert not alive, f"{model.program.cmd} was cancelled, and is alive"
        self._over(session, outcome)

    async def _close(self, number: int) -> None:
        if len(self.clients) < 2:
            return
        await self._gone(self.clients[1 + number % (len(self.clients) - 1)])

    async def _gone(self, client: Sandbox) -> None:
        """A client leaves, or has been cut off."""
        self.clients.remove(client)
        await client.detach()
        for session in [session for session in self.sessions if session.client is client]:
            if session.handle is not None:
                await self._lost(session)

    async def _lost(self, session: PlayedSession) -> None:
        """The client of this session has gone: its handle says so, once and for all."""
        model, handle = session.model, session.handle
        assert handle is not None
        try:
            while await handle.recv() is not None:
                pass
            await handle.wait()
        except (ConnectionLostError, ExecFailedError, ExecTimeoutError, *MACHINE_ENDED) as error:
            outcome = Outcome(error=type(error))
        else:
            assert handle.exit is not None
            outcome = Outcome(handle.exit.code)
        model.input_lost = True
        if model.detached and handle.exit is None and not self.crashes:
            if session.id:
                self._left(session)
                return
            self.unknown += 1
        model.outcome = outcome
        self._forget(session)

    # -- what holds

    async def check(self) -> None:
        """What can be seen without changing anything is as it must be."""
        for session in [] if self.crashes else list(self.sessions):
            pid = session.model.pid
            if pid is not None and session.handle is not None:
                written = await self.backend.written(self.sandbox, pid)
                if written is not None and session.model.outcome is None:
                    session.model.check_credit(written)

    async def finish(self) -> None:
        """End every session, see that each ends as it must, and that no process of them is left."""
        async with patience(self.backend.patience):
            while not self.crashes and not await self._guarded(self._end_all):
                pass

    async def _end_all(self) -> None:
        for number in range(len([session for session in self.sessions if session.handle is None])):
            await self._attach(do.Attach(0, number))
        for session in list(self.sessions):
            await self._with(session, do.CloseInput())
            if session.model.program.ends is Ends.NEVER:
                await self._with(session, do.Kill())
            await self.take(session, 1 << 40, math.inf)
            assert session.model.outcome is not None, f"{session.model.program.cmd} has not ended"
        await self._none_is_left([model.pid for model in self.ended if model.pid is not None])
        left = await self.sandbox.sessions()
        assert len(left) <= self.unknown, f"sessions are left in the sandbox: {left}"

    async def _none_is_left(self, pids: Iterable[int]) -> None:
        for pid in pids:
            # Of a client that has gone, the end is confirmed to nobody; patience ends the wait.
            while await self.backend.is_alive(self.sandbox, pid):  # noqa: ASYNC110
                await trio.sleep(0.1)

    async def _find_lost_clients(self, error: SandboxError) -> None:
        assert self.faults.may_cut, f"a client was cut off: {error!r}"
        for client in self.clients[1:]:
            try:
                await client.ping()
            except ConnectionLostError:
                await self._gone(client)

    async def _machine_ended(self, error: SandboxError) -> None:
        """All that had not ended hears of it."""
        assert self.faults.may_crash, f"the machine ended: {error!r}"
        self.crashes.append(error)
        for session in list(self.sessions):
            if session.handle is not None:
                await self._lost(session)
        self.sessions.clear()
