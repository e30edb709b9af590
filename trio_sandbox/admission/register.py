"""The register of all requests of a data folder: one file of fixed records, and the kernel's locks on them. Sync.

A record counts as long as its first byte is locked by an open file description of its owner (`F_OFD_SETLK`). Leaving is
closing the descriptor, and the kernel does that for whoever is killed: nobody has to look for the dead. What a record
says is worthless without the lock, so nothing is ever cleaned up, and a file that is damaged or removed heals.

Whoever reads to decide, and writes what was decided, does it in its *turn*, one more lock. A turn lasts for a fraction
of a millisecond and never contains a wait.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from trio_sandbox.admission.queue import Stage, Ticket
from trio_sandbox.errors import StorageError
from trio_sandbox.files import storage_errors
from trio_sandbox.home import Home
from trio_sandbox.locks import is_byte_locked, try_byte, unlock_byte

REGISTER_FILE = "admission"
RECORDS = 4096
"""Requests at most, waiting or admitted."""
_RECORD = struct.Struct("<QIIBB14x")
_STAGE_AT, _BACKGROUND_AT = 16, 17
_STAGES = frozenset(stage.value for stage in Stage if stage is not Stage.NONE)
_TURN = 1 << 62
"""The byte that whoever has its turn has locked: beyond every record."""


@attrs.define(eq=False)
class Register:
    """One owner's view of the file, by a descriptor of its own; it has one record at most."""

    _path: Path
    _descriptor: int
    _slot: int | None = None
    _mine: Ticket | None = None

    @classmethod
    @contextmanager
    def opened(cls, home: Home) -> Iterator[Register]:
        """The register for the length of the block, at whose end the record is given up. Raises StorageError."""
        path = home.run / REGISTER_FILE
        with storage_errors(path.parent):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        register = cls(path.parent, descriptor)
        try:
            yield register
        finally:
            register._leave()
            os.close(descriptor)

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Keep all others from changing what they have; False when somebody else has the turn now."""
        held = try_byte(self._descriptor, _TURN)
        try:
            yield held
        finally:
            if held:
                unlock_byte(self._descriptor, _TURN)

    def enter(self, memory: int, *, background: bool) -> Ticket | None:
        """Get in line, at its end, or go there again; None when the register is full. In one's turn. Raises
        StorageError.
        """
        number = max((ticket.number for ticket in self.others()), default=0) + 1
        if self._slot is None:
            free = (slot for slot in range(RECORDS) if try_byte(self._descriptor, slot * _RECORD.size))
            self._slot = next(free, None)
        if self._slot is None:
            return None
        self._mine = Ticket(number, memory, Stage.WAITING, background, os.getpid())
        self._write()
        return self._mine

    def admit(self) -> None:
        """The request is admitted, and boots. In one's turn. Raises StorageError."""
        self._change(_STAGE_AT, Stage.BOOTING)

    def booted(self) -> None:
        """It boots no more. At any time. Raises StorageError."""
        self._change(_STAGE_AT, Stage.RUNNING)

    def take(self) -> None:
        """It is not in the background any more. At any time. Raises StorageError."""
        self._change(_BACKGROUND_AT, 0)

    def others(self) -> list[Ticket]:
        """What all others have. Exact in one's turn; else it may be of two moments."""
        return [
            Ticket(number, memory, Stage(stage), bool(background), pid)
            for slot, (number, memory, pid, stage, background) in self._records()
            if self._is_alive(slot)
        ]

    def crowd_ahead(self) -> int:
        """How many seem to wait before us, if the nearest of them does for certain; else 0, and `others` knows.

        A short cut: most of those who look have somebody before them, and need not ask the kernel for all.
        """
        assert self._mine is not None
        ahead = [
            (bool(background), number, slot)
            for slot, (number, _, _, stage, background) in self._records()
            if stage == Stage.WAITING and (bool(background), number) < self._mine.rank
        ]
        return len(ahead) if ahead and self._is_alive(max(ahead)[2]) else 0

    def _records(self) -> list[tuple[int, tuple[int, int, int, int, int]]]:
        """What others have written, be they alive or not, by slot."""
        with storage_errors(self._path):
            data = os.pread(self._descriptor, RECORDS * _RECORD.size, 0)
        whole = memoryview(data)[: len(data) // _RECORD.size * _RECORD.size]
        records = enumerate(_RECORD.iter_unpack(whole))
        return [(slot, record) for slot, record in records if record[3] in _STAGES and slot != self._slot]

    def _is_alive(self, slot: int) -> bool:
        return is_byte_locked(self._descriptor, slot * _RECORD.size)

    def _leave(self) -> None:
        """Say that the record means nothing any more, so that nobody need ask the kernel whether we live."""
        if self._slot is not None:
            with suppress(StorageError):
                self._change(_STAGE_AT, Stage.NONE)

    def _write(self) -> None:
        mine, slot = self._mine, self._slot
        assert mine is not None and slot is not None
        record = _RECORD.pack(mine.number, mine.memory, mine.pid, mine.stage, mine.background)
        with storage_errors(self._path):
            os.pwrite(self._descriptor, record, slot * _RECORD.size)

    def _change(self, offset: int, value: int) -> None:
        """One byte, so that whoever reads meanwhile reads the old or the new."""
        assert self._slot is not None
        with storage_errors(self._path):
            os.pwrite(self._descriptor, bytes([value]), self._slot * _RECORD.size + offset)
