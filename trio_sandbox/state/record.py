"""The row and the folder of one sandbox while it lives, kept by the process that runs it.

Runs in: the task of `serve_sandbox`, with a writer beneath that follows the lifecycle. Owns: the row, from CREATING to
its end, and the folder `sandboxes/NAME`. Cancellation: a sandbox that never ran leaves neither; one that did has its
end written, or is removed if it was ephemeral. All waits for the database are short and shielded.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from trio_sandbox.config import SandboxConfig
from trio_sandbox.errors import SandboxStillRunningError
from trio_sandbox.home import Home
from trio_sandbox.labels import usable_labels
from trio_sandbox.lifecycle import TERMINAL, End, State
from trio_sandbox.service import service
from trio_sandbox.state.owner import Owner
from trio_sandbox.state.places import erase, folder_of, store_of
from trio_sandbox.state.rows import SandboxRow, Tenure
from trio_sandbox.state.store import Store


@attrs.define(eq=False)
class Record:
    """One sandbox's row, as its owner writes it. `row`: as it was when it was claimed."""

    store: Store
    home: Home
    row: SandboxRow
    tenure: Tenure
    has_run: bool = False
    run: int = 0
    _latest: State = State.CREATING
    _states: deque[State] = attrs.Factory(deque)
    _news: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    _writing: bool = False
    _is_over: bool = False

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def identity(self) -> tuple[int, int]:
        """When it was created, and the number of its run."""
        return self.row.created_ns, self.run

    @property
    def folder(self) -> Path:
        """Its own folder, which exists while it lives."""
        return folder_of(self.home, self.name)

    async def write(self, function: Callable[..., object], *arguments: object, **named: object) -> None:
        """Run a method of the store, shielded: what it writes is the truth already."""
        with trio.CancelScope(shield=True):  # bounded by BUSY_TIMEOUT
            await trio.to_thread.run_sync(partial(function, *arguments, **named))

    async def ready(self, chain_id: str, socket: str, labels: Mapping[str, str]) -> None:
        """The sandbox runs. labels: of its image, which count less than its own."""
        added = {} if self.tenure is Tenure.KNOWN else usable_labels(labels)
        begin = partial(self.store.begin_run, self.name, added, chain_id=chain_id, socket=socket)
        with trio.CancelScope(shield=True):  # bounded by BUSY_TIMEOUT
            self.run = await trio.to_thread.run_sync(begin)
        self.has_run, self._latest = True, State.RUNNING

    def entered(self, state: State) -> None:
        """The lifecycle entered a state: it is written as soon as may be."""
        if self.has_run and not self._is_over and state not in TERMINAL and state is not self._latest:
            self._latest = state
            self._states.append(state)
            self._news.unpark_all()

    async def settled(self) -> None:
        """Wait until all that was entered is written."""
        await trio.lowlevel.checkpoint()
        while self._states or self._writing:
            await self._news.park()

    async def follow(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Write what is entered, until the block ends."""
        task_status.started()
        while True:
            while self._states:
                state = self._states.popleft()
                self._writing = True
                try:
                    await self.write(self.store.update, self.name, state=state)
                finally:
                    self._writing = False
                    self._news.unpark_all()
            await self._news.park()

    async def ended(self, end: End) -> None:
        """The sandbox has ended: nothing that was entered before is written after this."""
        self._is_over = True
        self._states.clear()
        with trio.CancelScope(shield=True):  # one write at most is under way
            await self.settled()
        if not self.has_run or self.tenure is Tenure.EPHEMERAL:
            return  # see `recorded`
        await self.write(self.store.end_run, self.name, end)


@asynccontextmanager
async def recorded(
    config: SandboxConfig,
    home: Home,
    tenure: Tenure,
    *,
    detached: bool = False,
    is_kept: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Record]:
    """The sandbox's row and folder for the length of the block. is_kept: asked at its end of a new one that has run.

    Raises SandboxAlreadyExistsError, SandboxNotFoundError, SandboxStillRunningError, StorageError.
    """
    store = store_of(home)
    record = Record(store, home, await _claimed(store, config, tenure, detached), tenure)
    try:
        with trio.CancelScope(shield=True):  # a mkdir
            await trio.to_thread.run_sync(partial(home.folder, "sandboxes", config.name))
        async with service(record.follow, name="record"):
            yield record
    finally:
        if tenure is Tenure.EPHEMERAL or (tenure is Tenure.NEW and not (record.has_run and is_kept())):
            await record.write(erase, home, record.name)  # noqa: ASYNC102 - shielded within
        elif not record.has_run:  # the start came to nothing: it is what it was
            was = record.row
            await record.write(store.update, was.name, state=was.state, detached=was.detached, owner=None)  # noqa: ASYNC102


async def _claimed(store: Store, config: SandboxConfig, tenure: Tenure, detached: bool) -> SandboxRow:
    """The row, ours from now on. A cancel that comes while it is written leaves none of ours."""
    owner, now = Owner.current(), time.time_ns()
    if tenure is Tenure.KNOWN:
        try:
            with trio.CancelScope(shield=True):  # bounded by BUSY_TIMEOUT
                return await trio.to_thread.run_sync(partial(store.claim, config.name, owner, detached=detached))
        except ValueError:
            raise SandboxStillRunningError(config.name) from None
    row = SandboxRow(
        name=config.name,
        config=config.to_json(),
        state=State.CREATING,
        created_ns=now,
        updated_ns=now,
        ephemeral=tenure is Tenure.EPHEMERAL or config.ephemeral,
        detached=detached,
        owner=owner,
        labels=config.labels,
    )
    with trio.CancelScope(shield=True):  # bounded by BUSY_TIMEOUT
        await trio.to_thread.run_sync(store.add, row)
    return row
