"""The database seam: batches in, rows out.

A batch is written in one hop to the writer as one transaction, grouped with the batches that queued meanwhile: one fsync
for all of them. A batch whose expectation fails is rolled back alone. There are no interactive transactions: a task
cancelled between two statements must not leave half of them to the next writer.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiosqlite

from fleet.aio import finish
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

    async def scrub(self) -> None:
        """Rewrite the database's files, so that nothing deleted or replaced is left in them. Raises: StoreError."""
        ...


@contextlib.contextmanager
def _translate(path: Path | None = None) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, ValueError, OverflowError, TypeError) as error:
        if path is not None and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise StoreError(f"{path} is not a database; move it away, or put a backup in its place") from error
        raise _describe(error) from error


def _describe(error: Exception) -> StoreError:
    """Return what a failed batch or query means; values that SQLite cannot hold are not its own errors."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.IntegrityError):
        return StoreError(f"the database refused: {error}; check disk space and permissions of the data directory")
    return StoreError(f"the database refused: {error}")


def run_batch(connection: sqlite3.Connection, batch: Sequence[Statement]) -> list[list[Row]]:
    """Run one batch inside a savepoint of the open transaction; whatever it raises has undone it."""
    connection.execute("SAVEPOINT batch")
    try:
        rows = [_run(connection, statement) for statement in batch]
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it already
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
    """Run several batches in one transaction: one outcome per batch, in order.

    Raises: sqlite3.Error when the transaction as a whole failed; then nothing of any batch happened.
    """
    connection.execute("BEGIN IMMEDIATE")
    outcomes: list[list[list[Row]] | Exception] = []
    try:
        for batch in batches:
            try:
                outcomes.append(run_batch(connection, batch))
            except Exception as error:
                if not connection.in_transaction:
                    raise
                outcomes.append(error)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return outcomes


def run_scrub(connection: sqlite3.Connection) -> None:
    """Rewrite the file and empty the write-ahead log, where old pages would stay."""
    connection.execute("PRAGMA secure_delete=ON")
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class SqliteDatabase:
    """SQLite in WAL mode with synchronous=FULL: one writer, one reader, each on a thread of its own."""

    def __init__(self, writer: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self._writer = writer
        self._reader = reader
        self._waiting: list[tuple[Sequence[Statement], asyncio.Future[list[list[Row]]]]] = []
        self._turn = asyncio.Lock()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator["SqliteDatabase"]:
        """Open or create the file with mode 0600; always closed, else aiosqlite's threads would hold the process.

        Raises: StoreError.
        """
        _prepare(path)
        async with _connect(path) as writer, _connect(path) as reader:
            database = cls(writer, reader)
            try:
                yield database
            finally:
                await finish(database._settle(), WRITE_DEADLINE_S)

    async def write(self, batch: Sequence[Statement]) -> list[list[Row]]:
        """Run a batch as one transaction, grouped with others. See `Database.write`."""
        try:
            return await finish(self._submit(batch), WRITE_DEADLINE_S)
        except TimeoutError as error:
            raise StoreError(
                f"the database did not answer in time ({WRITE_DEADLINE_S:g} s); check the disk of the data directory"
            ) from error

    async def _submit(self, batch: Sequence[Statement]) -> list[list[Row]]:
        """Queue a batch; whoever's turn it is writes everything that waits."""
        done: asyncio.Future[list[list[Row]]] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, done))
        async with self._turn:
            if not done.done():
                await self._flush()
        return await done

    async def read(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """Run one query on the reader. Raises: StoreError."""
        with _translate():
            return [tuple(row) for row in await self._reader.execute_fetchall(sql, tuple(args))]

    async def scrub(self) -> None:
        """Rewrite the files between two transactions. See `Database.scrub`."""
        async with self._turn:
            with _translate():
                await self._writer._execute(run_scrub, self._writer._conn)  # type: ignore[no-untyped-call]  # noqa: SLF001 - one hop

    async def _flush(self) -> None:
        taken, self._waiting = self._waiting, []
        batches = [batch for batch, _ in taken]
        outcomes: Sequence[list[list[Row]] | Exception]
        try:
            outcomes = await self._writer._execute(run_batches, self._writer._conn, batches)  # type: ignore[no-untyped-call]  # noqa: SLF001 - one hop
        except Exception as error:  # noqa: BLE001 - every waiting writer learns of it
            outcomes = [error] * len(taken)
        for (_, done), outcome in zip(taken, outcomes, strict=True):
            if done.done():
                continue
            if isinstance(outcome, Exception):
                done.set_exception(_describe(outcome))
            else:
                done.set_result(outcome)

    async def _settle(self) -> None:
        """Return when every batch handed in so far is written: turns are in order."""
        async with self._turn:
            pass


def _prepare(path: Path) -> None:
    """Make the file private before SQLite opens it: what SQLite puts beside it gets the same mode."""
    try:
        path.touch(mode=0o600, exist_ok=True)
        path.chmod(0o600)
    except OSError as error:
        raise StoreError(f"the database {path} cannot be used: {error.strerror}; check the data directory") from error


@contextlib.asynccontextmanager
async def _connect(path: Path) -> AsyncIterator[aiosqlite.Connection]:
    with _translate():
        connection = await aiosqlite.connect(path, isolation_level=None)
    try:
        with _translate(path):
            for pragma in _PRAGMAS:
                await connection.execute(pragma)
        yield connection
    finally:
        await finish(connection.close(), WRITE_DEADLINE_S)


class InlineDatabase:
    """The same on the caller's thread, for simulated runs: no threads, no grouping."""

    def __init__(self, path: Path | None = None) -> None:
        """Open a file, or memory for none. Raises: StoreError."""
        if path is not None:
            _prepare(path)
        self._connection = sqlite3.connect(path or ":memory:", isolation_level=None)
        try:
            with _translate(path):
                for pragma in _PRAGMAS:
                    self._connection.execute(pragma)
        except StoreError:
            self.close()
            raise

    async def write(self, batch: Sequence[Statement]) -> list[list[Row]]:
        """Run a batch as one transaction. See `Database.write`."""
        with _translate():
            outcome = run_batches(self._connection, [batch])[0]
        if isinstance(outcome, Exception):
            raise _describe(outcome) from outcome
        return outcome

    async def read(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """Run one query. Raises: StoreError."""
        with _translate():
            return self._connection.execute(sql, tuple(args)).fetchall()

    async def scrub(self) -> None:
        """Rewrite the files. See `Database.scrub`."""
        with _translate():
            run_scrub(self._connection)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
