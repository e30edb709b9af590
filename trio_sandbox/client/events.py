"""Named events to and from the programs in the guest. anyio only.

A subscription owns no task and no queue. What was sent and not received yet is bounded by its credit, `buffer_bytes`
here, and by the agent's queue for it behind that, 256 KiB. When both are full the agent drops events and counts them:
a subscription that nobody reads disturbs no other session, and no emitter.
"""

from __future__ import annotations

from types import TracebackType
from typing import Literal, get_args

import anyio

from trio_sandbox.client.event_lines import Event, EventLines, check_name, encode_payload
from trio_sandbox.client.session_end import end_session
from trio_sandbox.client.transport import ProgramSession, SandboxControl
from trio_sandbox.errors import ExecFailedError, RemoteProtocolError
from trio_sandbox.relay.events import DataReceived, MessageReceived
from trio_sandbox.relay.frames import FrameType
from trio_sandbox.relay.messages import (
    Done,
    Emit,
    Failed,
    Subscribe,
)

Overflow = Literal["drop_oldest", "drop_newest"]

MIN_BUFFER, DEFAULT_BUFFER, MAX_BUFFER = 16 << 10, 64 << 10, 256 << 10
"""Bytes of lines that may wait in this process for one subscription."""


async def emit(control: SandboxControl, name: str, payload: object) -> int:
    """What `Sandbox.emit` promises."""
    check_name(name)
    request = Emit(name, encode_payload(payload))
    await anyio.lowlevel.checkpoint_if_cancelled()
    session = control.open_session(request)
    try:
        return _end_untrusted(await session.receive()).count
    finally:
        if not session.over:
            session.abandon()


def subscribe_request(name: str | None, overflow: Overflow, buffer_bytes: int) -> Subscribe:
    """The request that opens a subscription. Raises ValueError and TypeError for wrong arguments."""
    if name is not None:
        check_name(name)
    if overflow not in get_args(Overflow):
        raise ValueError(f"overflow={overflow!r} is none of {', '.join(get_args(Overflow))}")
    if type(buffer_bytes) is not int:
        raise TypeError(f"buffer_bytes is an int, not {type(buffer_bytes).__name__}")
    if not MIN_BUFFER <= buffer_bytes <= MAX_BUFFER:
        raise ValueError(f"buffer_bytes={buffer_bytes} is not from {MIN_BUFFER} to {MAX_BUFFER}")
    return Subscribe(name or "", overflow == "drop_oldest", buffer_bytes)


class EventStream:
    """A subscription: an async iterator of Event, and an async context manager that ends it. From `Sandbox.events`.

    With `async with` it has begun when the block is entered, otherwise it begins when the first event is asked for:
    what is emitted from then on is delivered or counted. It ends with its block or with `aclose`; without either, when
    the sandbox ends, and costs one of the client's 64 sessions until then.
    Iteration also ends when the guest ends the subscription, as it does when the sandbox stops. Not for two tasks at
    once.
    """

    def __init__(self, control: SandboxControl, request: Subscribe) -> None:
        self._control = control
        self._request = request
        self._session: ProgramSession | None = None
        self._lines = EventLines()
        self._closed = False

    @property
    def dropped(self) -> int:
        """How many events were lost because they were not received fast enough, as far as the guest has told."""
        return self._lines.dropped

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        """The next event.

        Raises ExecFailedError when the guest refuses the subscription or the client has 64 sessions;
        SandboxCrashedError, SandboxNotRunningError; RemoteProtocolError when what comes are no events, and the
        subscription is over then. Cancellation: no effect.
        """
        await anyio.lowlevel.checkpoint()
        if self._closed:
            raise StopAsyncIteration
        session = self._begun()
        try:
            while (event := self._lines.next_event_untrusted()) is None:
                if session.over:
                    self._lines.end_untrusted()
                    raise StopAsyncIteration
                self._take_untrusted(await session.receive())
        except RemoteProtocolError:
            self._let_go(session)
            raise
        return event

    def _begun(self) -> ProgramSession:
        if self._session is None:
            self._session = self._control.open_session(self._request)
        return self._session

    def _take_untrusted(self, event: MessageReceived | DataReceived) -> None:
        if isinstance(event, DataReceived) and event.type is FrameType.STDOUT:
            self._lines.receive_data(event.data)
        else:
            _end_untrusted(event)

    def _let_go(self, session: ProgramSession) -> None:
        self._closed = True
        session.abandon()

    async def aclose(self) -> None:
        """End the subscription, and wait up to 5 s for the guest's word that it has ended; shielded from cancellation.

        Events that were not received yet are gone, uncounted. Harmless when it is closed, or has not begun.
        """
        closed, self._closed = self._closed, True
        if closed or self._session is None:
            await anyio.lowlevel.checkpoint()
            return
        await end_session(self._session)

    async def __aenter__(self) -> EventStream:
        """Begin, and wait until the agent knows. Raises as asking for an event does. Cancellation: it is ended as by
        `aclose`.
        """
        self._begun()
        try:
            await self._control.ping()  # it goes behind the request, all the way
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _end_untrusted(event: MessageReceived | DataReceived) -> Done:
    """DONE, which ends EMIT and SUBSCRIBE. Raises ExecFailedError for a refusal, RemoteProtocolError for all else."""
    match event:
        case MessageReceived(message=Failed(kind, errno, message)):
            raise ExecFailedError(kind, errno, message)
        case MessageReceived(message=Done(errno=0, count=count) as done) if count >= 0:
            return done
        case MessageReceived(message=Done(errno=errno, message=message)) if errno > 0:
            raise ExecFailedError("other", errno, message)
    raise RemoteProtocolError(f"{event.type.name} where events end otherwise")
