"""The database seam: batches in, rows out.

A batch is written in one hop to the writer as one transaction, grouped with the batches that queued meanwhile: one fsync
for all of them. A batch whose expectation fails is rolled back alone. There are no interactive transactions: a task
cancelled between two statements must not leave half of them to the next writer.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiosqlite

from fleet.aio import finish, spawn
from fleet.errors import ExpectationFailed, StoreError

Row = tuple[Any, ...]
BUSY_MS = 10_000
WRITE_DEADLINE_S = 30.0
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA busy_timeout={BUSY_MS}",
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement. `expect` is the number of rows it must touch; anything else undoes its whole batch."""

    sql: str
    args: Sequence[object] = ()
    expect: int | None = None


class Database(Protocol):
    """Portable SQL over batches; SQLite now."""

    async def write(self, batch: Sequence[Statement]) -> list[list[Row]]:
        """Run a batch as one transaction; returns each statement's rows (RETURNING).

        Raises: ExpectationFailed, StoreError; then nothing of the batch happened.
        Cancelled: the batch happens whole or not at all, before the cancellation is raised.
        """
        ...

    async def read(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """Run one query outside any transaction."""
        ...


@contextlib.contextmanager
def _translate() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"the database refused: {error}; check disk space and permissions of the data directory"
        ) from error


def run_batch(connection: sqlite3.Connection, batch: Sequence[Statement]) -> list[list[Row]]:
    """Run one batch inside a savepoint of the open transaction. Raises: ExpectationFailed, sqlite3.Error."""
    connection.execute("SAVEPOINT batch")
    try:
        rows = [_run(connection, statement) for statement in batch]
    except BaseException:
        connection.execute("ROLLBACK TO batch")
        connection.execute("RELEASE batch")
        raise
    connection.execute("RELEASE batch")
    return rows


def _run(connection: sqlite3.Connection, statement: Statement) -> list[Row]:
    cursor = connection.execute(statement.sql, tuple(statement.args))
    rows: list[Row] = cursor.fetchall()
    touched = cursor.rowcount if cursor.description is None else len(rows)
    if statement.expect is not None and touched != statement.expect:
        raise ExpectationFailed(
            f"{touched} rows instead of {statement.expect}: {statement.sql.split('(', 1)[0].strip()}"
        )
    return rows


def run_batches(
    connection: sqlite3.Connection, batches: Sequence[Sequence[Statement]]
) -> list[list[list[Row]] | Exception]:
    """Run several batches in one transaction: one outcome per batch, in order."""
    connection.execute("BEGIN IMMEDIATE")
    outcomes: list[list[list[Row]] | Exception] = []
    try:
        for batch in batches:
            try:
                outcomes.append(run_batch(connection, batch))
            except (ExpectationFailed, sqlite3.IntegrityError) as error:
                outcomes.append(error)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return outcomes


class SqliteDatabase:
    """SQLite in WAL mode with synchronous=FULL: one writer, one reader, each on a thread of its own."""

    def __init__(self, writer: aiosqlite.Connection, reader: aiosqlite.Connection, group: asyncio.TaskGroup) -> None:
        self._writer = writer
        self._reader = reader
        self._waiting: list[tuple[Sequence[Statement], asyncio.Future[list[list[Row]]]]] = []
        self._wake = asyncio.Event()
        self._task = spawn(group, "database/writer", self._run())

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator["SqliteDatabase"]:
        """Open or create the file with mode 0600; always closed, else aiosqlite's threads would hold the process."""
        path.touch(mode=0o600, exist_ok=True)
        path.chmod(0o600)
        old = os.umask(0o077)
        try:
            writer = await _connect(path)
            reader = await _connect(path)
        finally:
            os.umask(old)
        try:
            async with asyncio.TaskGroup() as group:
                database = cls(writer, reader, group)
                try:
                    yield database
                finally:
                    await database._drain()
        finally:
            await finish(_close(writer, reader))

    async def write(self, batch: Sequence[Statement]) -> list[list[Row]]:
        """Run a batch as one transaction, grouped with others. See `Database.write`."""
        return await finish(self._submit(batch), WRITE_DEADLINE_S)

    async def _submit(self, batch: Sequence[Statement]) -> list[list[Row]]:
        done: asyncio.Future[list[list[Row]]] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, done))
        self._wake.set()
        return await done

    async def read(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """Run one query on the reader."""
        with _translate():
            return [tuple(row) for row in await self._reader.execute_fetchall(sql, tuple(args))]

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await finish(self._flush(), WRITE_DEADLINE_S)

    async def _flush(self) -> None:
        taken, self._waiting = self._waiting, []
        if not taken:
            return
        try:
            with _translate():
                outcomes = await self._writer._execute(run_batches, self._writer._conn, [batch for batch, _ in taken])  # type: ignore[no-untyped-call]  # noqa: SLF001 - one hop
        except StoreError as error:
            outcomes = [error] * len(taken)
        for (_, done), outcome in zip(taken, outcomes, strict=True):
            if done.done():
                continue
            if isinstance(outcome, StoreError):
                done.set_exception(outcome)
            elif isinstance(outcome, Exception):
                done.set_exception(StoreError(f"the database refused: {outcome}"))
            else:
                done.set_result(outcome)

    async def _drain(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._flush()


async def _connect(path: Path) -> aiosqlite.Connection:
    with _translate():
        connection = await aiosqlite.connect(path, isolation_level=None)
        for pragma in _PRAGMAS:
            await connection.execute(pragma)
        return connection


async def _close(*connections: aiosqlite.Connection) -> None:
    for connection in connections:
        await connection.close()


class InlineDatabase:
    """The same on the caller's thread, for simulated runs: no threads, no grouping."""

    def __init__(self, path: Path | str = ":memory:") -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in _PRAGMAS:
            self._connection.execute(pragma)

    async def write(self, batch: Sequence[Statement]) -> list[list[Row]]:
        """Run a batch as one transaction."""
        with _translate():
            outcome = run_batches(self._connection, [batch])[0]
        if isinstance(outcome, StoreError):
            raise outcome
        if isinstance(outcome, Exception):
            raise StoreError(f"the database refused: {outcome}") from outcome
        return outcome

    async def read(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """Run one query."""
        with _translate():
            return self._connection.execute(sql, tuple(args)).fetchall()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
