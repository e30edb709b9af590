"""The sandboxes of one data folder, in SQLite: rows that several processes read and write at once.

Every change is one `BEGIN IMMEDIATE` transaction, so that two processes never work on the same stale row; the journal
is a WAL and readers only read, so that they wait for nobody. Nothing here waits for anything but the database: callers
on an event loop use a worker thread.

A row whose owner is dead lies. Whoever comes across it puts it right before going on (`reconcile`), so that nobody ever
sees the lie.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from trio_sandbox.errors import SandboxAlreadyExistsError, SandboxNotFoundError, StorageError
from trio_sandbox.home import Home
from trio_sandbox.lifecycle import End, EndReason, State
from trio_sandbox.state.owner import Owner
from trio_sandbox.state.rows import RunRow, SandboxRow

BUSY_TIMEOUT = 30.0
"""Seconds that a transaction waits for those of other processes, which last for a millisecond each."""
RUNS_KEPT = 100
"""Runs of one sandbox that are remembered."""

MIGRATIONS = (
    """
    CREATE TABLE sandbox (
        name TEXT PRIMARY KEY, config TEXT NOT NULL, state TEXT NOT NULL,
        created_ns INTEGER NOT NULL, updated_ns INTEGER NOT NULL,
        ephemeral INTEGER NOT NULL, detached INTEGER NOT NULL, chain_id TEXT NOT NULL,
        owner_pid INTEGER, owner_start INTEGER, owner_boot TEXT, socket TEXT NOT NULL
    ) STRICT;
    CREATE TABLE label (
        name TEXT NOT NULL REFERENCES sandbox(name) ON DELETE CASCADE,
        key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name, key)
    ) STRICT;
    CREATE INDEX label_by_value ON label (key, value);
    CREATE TABLE run (
        number INTEGER PRIMARY KEY, name TEXT NOT NULL REFERENCES sandbox(name) ON DELETE CASCADE,
        started_ns INTEGER NOT NULL, ended_ns INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT '',
        reason TEXT NOT NULL DEFAULT '', exit_code INTEGER NOT NULL DEFAULT 0, console_tail TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE INDEX run_by_name ON run (name, number);
    """,
)
"""What makes version n + 1 of the tables from version n; `user_version` counts."""


Tidy = Callable[[str, bool], None]


def _nothing(name: str, forgotten: bool) -> None:
    """For a store without files beside it."""


@attrs.frozen
class Store:
    """The database of one data folder. Every method opens it for itself: it costs 0.2 ms and holds nothing open.

    tidy: called, within the transaction, with the name of a sandbox whose owner died, and whether the sandbox is
    forgotten with it or stays: to remove what a dead process leaves on disk.
    """

    path: Path
    tidy: Tidy = attrs.field(default=_nothing, eq=False)

    @classmethod
    def of(cls, home: Home, tidy: Tidy = _nothing) -> Store:
        """The store of a data folder."""
        return cls(home.folder("db") / "state.db", tidy)

    # -- sandboxes

    def add(self, row: SandboxRow) -> None:
        """A new sandbox. Raises SandboxAlreadyExistsError, StorageError."""
        with self._transaction() as database:
            if self._find(database, row.name) is not None:
                raise SandboxAlreadyExistsError(row.name)
            database.execute(
                "INSERT INTO sandbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(row.name, row.config, row.state, row.created_ns, row.updated_ns),
                    *(row.ephemeral, row.detached, row.chain_id, *_owner_columns(row.owner), row.socket),
                ),
            )
            database.executemany(
                "INSERT INTO label VALUES (?, ?, ?)", [(row.name, *pair) for pair in row.labels.items()]
            )

    def get(self, name: str) -> SandboxRow:
        """One sandbox. Raises SandboxNotFoundError, StorageError."""
        with self._reading() as database:
            row = self._find(database, name, reconciled=False)
        if row is not None and row.is_orphaned:
            with self._transaction() as database:
                row = self._find(database, name)
        if row is None:
            raise SandboxNotFoundError(name)
        return row

    def all(self, labels: Mapping[str, str] | None = None) -> list[SandboxRow]:
        """All sandboxes that have these labels, oldest first."""
        rows = self._find_all()
        while any(row.is_orphaned for row in rows):
            self.reconcile()
            rows = self._find_all()
        wanted = (labels or {}).items()
        return [row for row in rows if wanted <= row.labels.items()]

    def update(self, name: str, **changes: Any) -> SandboxRow:
        """Change fields of a row: `state`, `owner`, `socket`, `detached`, `chain_id`, `config`. Raises
        SandboxNotFoundError.
        """
        with self._transaction() as database:
            return self._update(database, name, **changes)

    def remove(self, name: str) -> SandboxRow:
        """Forget a sandbox, with its runs; the row as it was. Raises SandboxNotFoundError."""
        with self._transaction() as database:
            if (row := self._find(database, name)) is None:
                raise SandboxNotFoundError(name)
            database.execute("DELETE FROM sandbox WHERE name = ?", (name,))
            return row

    def condemn(self, name: str, owner: Owner) -> None:
        """Have a sandbox go with `owner`, which is about to remove it. Harmless for one that is not known."""
        with self._transaction() as database:
            if self._find(database, name, reconciled=False) is not None:
                self._update(database, name, state=State.STOPPING, ephemeral=True, owner=owner, socket="")

    def discard(self, name: str) -> None:
        """Forget a sandbox, if it is known."""
        with self._transaction() as database:
            database.execute("DELETE FROM sandbox WHERE name = ?", (name,))

    def claim(self, name: str, owner: Owner, **changes: Any) -> SandboxRow:
        """Begin to own a sandbox that does not run, as CREATING; the row as it was. Raises SandboxNotFoundError, and
        ValueError with the state of one that is owned.
        """
        with self._transaction() as database:
            if (row := self._find(database, name)) is None:
                raise SandboxNotFoundError(name)
            if row.is_live:
                raise ValueError(row.state)
            self._update(database, name, state=State.CREATING, owner=owner, **changes)
            return row

    # -- runs

    def begin_run(self, name: str, labels: Mapping[str, str] | None = None, **changes: Any) -> int:
        """The sandbox runs; the number of the run. labels: it gets those that it has not. changes: as for `update`.
        Raises SandboxNotFoundError.
        """
        with self._transaction() as database:
            self._update(database, name, state=State.RUNNING, **changes)
            pairs = [(name, *pair) for pair in (labels or {}).items()]
            database.executemany("INSERT OR IGNORE INTO label VALUES (?, ?, ?)", pairs)
            database.execute(
                "DELETE FROM run WHERE number IN "
                "(SELECT number FROM run WHERE name = ? ORDER BY number DESC LIMIT -1 OFFSET ?)",
                (name, RUNS_KEPT - 1),
            )
            cursor = database.execute("INSERT INTO run (name, started_ns) VALUES (?, ?)", (name, time.time_ns()))
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def end_run(self, name: str, end: End) -> None:
        """The sandbox has ended: nobody owns it any more. An ephemeral one is forgotten. Harmless for one that ended
        before, or was removed.
        """
        with self._transaction() as database:
            if (row := self._find(database, name, reconciled=False)) is not None and row.is_live:
                self._over(database, row, end)

    def runs(self, name: str) -> tuple[RunRow, ...]:
        """The runs of a sandbox, oldest first. Raises SandboxNotFoundError."""
        self.get(name)  # puts it right
        with self._reading() as database:
            if self._find(database, name, reconciled=False) is None:
                raise SandboxNotFoundError(name)
            query = "SELECT * FROM run WHERE name = ? ORDER BY number"
            return tuple(RunRow(*values) for values in database.execute(query, (name,)))

    # -- the truth

    def reconcile(self) -> list[str]:
        """Put every row right whose owner is dead; the names."""
        names = [row.name for row in self._find_all() if row.is_orphaned]
        if not names:  # the rule: nobody need wait for a writer
            return []
        with self._transaction() as database:
            return [name for name in names if self._put_right(database, name)]

    def _put_right(self, database: sqlite3.Connection, name: str) -> bool:
        row = self._find(database, name, reconciled=False)
        if row is None or not row.is_orphaned:
            return False
        last = self._last_run(database, name)
        if row.state is not State.CREATING:
            self._over(database, row, End(EndReason.VMM_EXITED, -9))
        elif last is None:  # it never was
            self._forget(database, name)
        else:  # a start that came to nothing: it is what it was
            self._update(database, name, state=State(last.state), owner=None, socket="")
            self.tidy(name, False)
        return True

    def _over(self, database: sqlite3.Connection, row: SandboxRow, end: End) -> None:
        if row.ephemeral:
            self._forget(database, row.name)
        else:
            self._end(database, row.name, end)
            self.tidy(row.name, False)

    def _forget(self, database: sqlite3.Connection, name: str) -> None:
        database.execute("DELETE FROM sandbox WHERE name = ?", (name,))
        self.tidy(name, True)

    def _last_run(self, database: sqlite3.Connection, name: str) -> RunRow | None:
        query = "SELECT * FROM run WHERE name = ? ORDER BY number DESC LIMIT 1"
        values = database.execute(query, (name,)).fetchone()
        return None if values is None else RunRow(*values)

    def _end(self, database: sqlite3.Connection, name: str, end: End) -> None:
        self._update(database, name, state=end.state, owner=None, socket="")
        database.execute(
            "UPDATE run SET ended_ns = ?, state = ?, reason = ?, exit_code = ?, console_tail = ? "
            "WHERE name = ? AND ended_ns = 0",
            (time.time_ns(), end.state, end.reason, end.exit_code, end.console_tail, name),
        )

    def _find_all(self) -> list[SandboxRow]:
        """All rows as they are, oldest first."""
        with self._reading() as database:
            names = [name for (name,) in database.execute("SELECT name FROM sandbox ORDER BY created_ns, name")]
            return [row for name in names if (row := self._find(database, name, reconciled=False)) is not None]

    def _find(self, database: sqlite3.Connection, name: str, *, reconciled: bool = True) -> SandboxRow | None:
        if reconciled:
            self._put_right(database, name)
        values = database.execute("SELECT * FROM sandbox WHERE name = ?", (name,)).fetchone()
        if values is None:
            return None
        labels = dict(database.execute("SELECT key, value FROM label WHERE name = ? ORDER BY key", (name,)))
        (_, config, state, created, updated, ephemeral, detached, chain_id, pid, start, boot, socket) = values
        return SandboxRow(
            name=name,
            config=config,
            state=State(state),
            created_ns=created,
            updated_ns=updated,
            ephemeral=bool(ephemeral),
            detached=bool(detached),
            chain_id=chain_id,
            owner=None if pid is None else Owner(pid, start, boot),
            socket=socket,
            labels=labels,
        )

    def _update(self, database: sqlite3.Connection, name: str, **changes: Any) -> SandboxRow:
        columns: dict[str, object] = {"updated_ns": time.time_ns()}
        for key, value in changes.items():
            if key == "owner":
                columns.update(zip(("owner_pid", "owner_start", "owner_boot"), _owner_columns(value), strict=True))
            else:
                columns[key] = value
        assignments = ", ".join(f"{column} = ?" for column in columns)
        query = f"UPDATE sandbox SET {assignments} WHERE name = ?"  # noqa: S608 - the columns are ours
        if database.execute(query, (*columns.values(), name)).rowcount == 0:
            raise SandboxNotFoundError(name)
        row = self._find(database, name, reconciled=False)
        assert row is not None
        return row

    # -- the database

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction; what raises in it changes nothing."""
        with self._begun("BEGIN IMMEDIATE") as database:
            yield database

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A view of one moment. It waits for no writer, not even for one that was stopped in the middle: whoever wants
        to kill that must be able to look it up.
        """
        with self._begun("BEGIN DEFERRED") as database:
            yield database

    @contextmanager
    def _begun(self, begin: str) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None)
            try:
                self._prepare(database)
                database.execute(begin)
                try:
                    yield database
                except BaseException:
                    database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")
            finally:
                database.close()
        except sqlite3.Error as error:
            raise StorageError(str(self.path), 0, f"the state of the sandboxes: {error}") from error

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("PRAGMA synchronous = NORMAL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == len(MIGRATIONS):
            return
        if version > len(MIGRATIONS):
            raise StorageError(str(self.path), 0, f"it has the form {version} of a newer version of this package")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN IMMEDIATE")  # somebody else may have migrated it meanwhile
        (version,) = database.execute("PRAGMA user_version").fetchone()
        for number in range(version, len(MIGRATIONS)):
            for statement in MIGRATIONS[number].split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {number + 1}")
        database.execute("COMMIT")


def _owner_columns(owner: Owner | None) -> tuple[int | None, int | None, str | None]:
    return (None, None, None) if owner is None else (owner.pid, owner.start_ticks, owner.boot_id)
