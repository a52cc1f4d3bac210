"""The schema moves forward, in order, once."""

import sqlite3
from pathlib import Path

import pytest

from fleet.errors import StoreError
from fleet.store import migration
from fleet.store.database import Database
from fleet.store.migration import load_migrations, migrate
from tests.integration.store.conftest import Open


async def tables(database: Database) -> set[str]:
    """Names of the tables."""
    return {str(name) for (name,) in await database.read("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_numbers_have_no_gaps() -> None:
    """Migrations are numbered 1, 2, 3 ... and each has statements."""
    found = load_migrations()
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    assert all(statements for _, statements in found)


async def test_an_empty_database_is_brought_up_to_date(bare: Database) -> None:
    """Every table is made; a second call changes nothing."""
    newest = load_migrations()[-1][0]
    assert await migrate(bare) == newest
    made = await tables(bare)
    assert {"cluster", "ledger", "release", "target", "pause", "event", "token"} <= made
    assert await migrate(bare) == newest
    assert await bare.read("PRAGMA user_version") == [(newest,)]


async def test_only_what_is_missing_runs(bare: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer fleet runs the migrations that the database has not seen."""
    one = (1, ["CREATE TABLE a (x)"])
    monkeypatch.setattr(migration, "load_migrations", lambda: [one])
    await migrate(bare)
    monkeypatch.setattr(migration, "load_migrations", lambda: [one, (2, ["CREATE TABLE b (x)", "DROP TABLE a"])])
    assert await migrate(bare) == 2
    assert await tables(bare) == {"b"}


async def test_a_migration_that_fails_leaves_no_half(bare: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements and number of a migration are one transaction."""
    broken = [(1, ["CREATE TABLE a (x)"]), (2, ["CREATE TABLE b (x)", "not SQL"])]
    monkeypatch.setattr(migration, "load_migrations", lambda: broken)
    with pytest.raises(StoreError):
        await migrate(bare)
    assert await tables(bare) == {"a"}
    assert await bare.read("PRAGMA user_version") == [(1,)]


async def test_a_newer_database_is_left_alone(open_database: Open, tmp_path: Path) -> None:
    """A database that a newer fleet wrote is refused with what to do, and not touched."""
    path = tmp_path / "fleet.db"
    async with open_database(path) as database:
        newest = await migrate(database)
        await database.write([])
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={newest + 1}")
    connection.close()
    with pytest.raises(StoreError, match=f"schema {newest + 1}, this fleet knows {newest}") as refused:
        async with open_database(path) as database:
            await migrate(database)
    assert refused.value.reason == "SchemaTooNew"
