"""Batches: whole or not at all, whoever writes beside them and whoever is cancelled."""

import asyncio
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fleet.aio import spawn
from fleet.errors import ExpectationFailed, StoreError
from fleet.store import database as database_module
from fleet.store.database import Database, SqliteDatabase, Statement, run_batches
from tests.integration.store.conftest import Open

CREATE = Statement("CREATE TABLE t (k TEXT PRIMARY KEY, v INTEGER)")


def put(key: object, value: object = 0, expect: int | None = None) -> Statement:
    """Insert a row."""
    return Statement("INSERT INTO t (k, v) VALUES (?, ?)", (key, value), expect)


def move(key: str, before: int, after: int) -> Statement:
    """Compare and set."""
    return Statement("UPDATE t SET v = ? WHERE k = ? AND v = ?", (after, key, before), expect=1)


@pytest.fixture
async def db(bare: Database) -> Database:
    """A database with one table."""
    await bare.write([CREATE])
    return bare


async def rows(db: Database) -> list[tuple[Any, ...]]:
    """Read the table."""
    return await db.read("SELECT k, v FROM t ORDER BY k")


async def test_rows_come_back_per_statement(db: Database) -> None:
    """Each statement of a batch has its rows, empty without RETURNING; reads see what was written."""
    returned = await db.write(
        [put("a", 1), Statement("INSERT INTO t VALUES ('b', 2), ('c', 3) RETURNING k, v"), put("d", None)]
    )
    assert returned == [[], [("b", 2), ("c", 3)], []]
    assert await db.read("SELECT k FROM t WHERE v > ?", (1,)) == [("b",), ("c",)]
    assert await db.write([]) == []


async def test_a_failed_expectation_undoes_the_whole_batch(db: Database) -> None:
    """Compare-and-set: where a row count is another, nothing of the batch has happened, before or after it."""
    await db.write([put("a", 1)])
    with pytest.raises(ExpectationFailed):
        await db.write([put("before"), move("a", 7, 8), put("after")])
    assert await rows(db) == [("a", 1)]
    await db.write([put("before"), move("a", 1, 2)])
    assert await rows(db) == [("a", 2), ("before", 0)]


@pytest.mark.parametrize(
    "broken",
    [
        put("a", 1),
        Statement("INSERT INTO absent VALUES (1)"),
        Statement("not SQL"),
        Statement("INSERT INTO t VALUES (?)", ("too", "many")),
        put(object()),
        put("x", 2**80),
        put("\udcff"),
        put("n", 0, expect=2),
    ],
    ids=lambda s: s.sql[:20] + str(s.args)[:12],
)
async def test_a_broken_batch_fails_alone(db: Database, broken: Statement) -> None:
    """Whatever is wrong with a batch is a StoreError of its writer; batches beside and after it are written."""
    await db.write([put("a", 1)])
    outcomes: list[str] = []

    async def write(batch: list[Statement]) -> None:
        try:
            await db.write(batch)
        except StoreError:
            outcomes.append("refused")

    async with asyncio.TaskGroup() as group:
        spawn(group, "good/1", write([put("b")]))
        spawn(group, "bad", write([put("half"), broken, put("other half")]))
        spawn(group, "good/2", write([put("c")]))
    await db.write([put("d")])
    assert outcomes == ["refused"]
    assert [key for key, _ in await rows(db)] == ["a", "b", "c", "d"]


async def test_a_broken_read_is_a_store_error(db: Database) -> None:
    """A query that cannot run says so; the next one runs."""
    for sql, args in [("SELECT * FROM absent", ()), ("SELECT ?", ("too", "many")), ("SELECT ?", (object(),))]:
        with pytest.raises(StoreError):
            await db.read(sql, args)
    assert await rows(db) == []


async def test_what_was_written_survives(open_database: Open, tmp_path: Path) -> None:
    """A file that is opened again holds every batch that was acknowledged."""
    path = tmp_path / "fleet.db"
    async with open_database(path) as db:
        await db.write([CREATE, put("a")])
    async with open_database(path) as db:
        assert await rows(db) == [("a", 0)]


async def test_only_the_owner_may_read(open_database: Open, tmp_path: Path) -> None:
    """The database and the files SQLite puts beside it have mode 0600, also when the file was there before."""
    path = tmp_path / "fleet.db"
    path.touch(mode=0o644)
    path.chmod(0o644)
    async with open_database(path) as db:
        await db.write([CREATE])
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}, modes


async def test_not_a_database(open_database: Open, tmp_path: Path) -> None:
    """A damaged file is a StoreError that says where to look, and everything is closed."""
    path = tmp_path / "fleet.db"
    path.write_bytes(b"This is no database. " * 100)
    with pytest.raises(StoreError, match=r"fleet\.db is not a database; move it away"):
        async with open_database(path) as db:
            await db.read("SELECT 1")


async def test_errors_of_the_owner_pass_unwrapped(open_database: Open, tmp_path: Path) -> None:
    """What is raised while a database is open is raised as it is."""
    with pytest.raises(StoreError, match="mine"):
        async with open_database(tmp_path / "fleet.db"):
            raise StoreError("mine")


# from here on: the writer with its thread


@pytest.fixture
async def threads(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    """The hub's database with one table."""
    async with SqliteDatabase.open(tmp_path / "fleet.db") as db:
        await db.write([CREATE])
        yield db


async def test_batches_that_wait_share_one_commit(threads: SqliteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers that come while one is at work become a single transaction, in their order."""
    sizes: list[int] = []

    def count(connection: sqlite3.Connection, batches: Any) -> Any:
        sizes.append(len(batches))
        return run_batches(connection, batches)

    monkeypatch.setattr(database_module, "run_batches", count)
    async with asyncio.TaskGroup() as group:
        for n in range(200):
            spawn(group, f"writer/{n}", threads.write([put(f"{n:03}", n)]))
    assert sum(sizes) == 200
    assert len(sizes) <= 3
    order = await threads.read("SELECT v FROM t ORDER BY rowid")
    assert [v for (v,) in order] == list(range(200))


async def test_cancelled_writers_leave_whole_batches(threads: SqliteDatabase) -> None:
    """A cancelled writer gets its cancellation after its batch is in, and never half of it."""
    batch = [put("a"), put("b"), put("c")]
    async with asyncio.TaskGroup() as group:
        task = spawn(group, "writer", threads.write(batch))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert await rows(threads) == [("a", 0), ("b", 0), ("c", 0)]
    assert task.cancelled()


async def test_closing_writes_what_waits(tmp_path: Path) -> None:
    """A batch that was handed in before the end is written before the file is closed."""
    path = tmp_path / "fleet.db"
    async with asyncio.TaskGroup() as group:
        async with SqliteDatabase.open(path) as db:
            await db.write([CREATE])
            task = spawn(group, "writer", db.write([put("late")]))
            await asyncio.sleep(0)
        await task
    async with SqliteDatabase.open(path) as db:
        assert await rows(db) == [("late", 0)]


async def test_a_stuck_disk_fails_the_writers_and_nothing_else(
    threads: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write past its deadline is a StoreError; when the disk answers again, the database goes on."""
    monkeypatch.setattr(database_module, "WRITE_DEADLINE_S", 0.05)
    stuck = threading.Event()

    def wait(connection: sqlite3.Connection, batches: Any) -> Any:
        stuck.wait(20)
        return run_batches(connection, batches)

    monkeypatch.setattr(database_module, "run_batches", wait)
    with pytest.raises(StoreError, match="in time"):
        await threads.write([put("slow")])
    with pytest.raises(StoreError, match="in time"):
        await threads.write([put("behind it")])
    stuck.set()
    monkeypatch.setattr(database_module, "WRITE_DEADLINE_S", 20)
    await threads.write([put("after")])
    assert ("after", 0) in await rows(threads)


async def test_a_full_disk_refuses_and_recovers(threads: SqliteDatabase) -> None:
    """SQLite undoes the whole group when it has no room; the writers learn of it, and later ones succeed."""
    (pages,) = (await threads.read("PRAGMA page_count"))[0]
    await threads._writer.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreError, match="disk space"):
        await threads.write([put("big", "x" * 100_000)])
    await threads._writer.execute("PRAGMA max_page_count=100000")
    await threads.write([put("small")])
    assert await rows(threads) == [("small", 0)]


async def test_reading_does_not_wait_for_a_writer(threads: SqliteDatabase) -> None:
    """A reader sees the last committed state while a transaction is open."""
    await threads.write([put("a")])
    await threads._writer.execute("BEGIN IMMEDIATE")
    await threads._writer.execute("INSERT INTO t VALUES ('b', 0)")
    assert await rows(threads) == [("a", 0)]
    await threads._writer.execute("ROLLBACK")


async def test_scrubbing_leaves_nothing_of_what_was_deleted(open_database: Open, tmp_path: Path) -> None:
    """Neither in the file nor in its log, while the database stays open; what is not deleted stays."""
    async with open_database(tmp_path / "fleet.db") as database:
        await database.write([Statement("CREATE TABLE t (x BLOB)")])
        await database.write(
            [Statement("INSERT INTO t VALUES (?)", (each,)) for each in (b"canary" * 50, b"kept" * 50)]
        )
        await database.write([Statement("DELETE FROM t WHERE x = ?", (b"canary" * 50,))])
        assert any(b"canary" in path.read_bytes() for path in tmp_path.iterdir())
        await database.scrub()
        assert not any(b"canary" in path.read_bytes() for path in tmp_path.iterdir())
        assert await database.read("SELECT x FROM t") == [(b"kept" * 50,)]
