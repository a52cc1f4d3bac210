"""Numbered migrations: `sql/NNNN_name.sql`, each run once, in order, in one transaction with its number."""

import sqlite3
from collections.abc import Iterator
from importlib import resources

from fleet.errors import StoreError
from fleet.store.database import Database, Statement


def load_migrations() -> list[tuple[int, list[str]]]:
    """Read the numbered files: (number, statements), ascending."""
    files = [entry for entry in resources.files("fleet.store.sql").iterdir() if entry.name.endswith(".sql")]
    return sorted((int(file.name[:4]), list(_split(file.read_text()))) for file in files)


def _split(text: str) -> Iterator[str]:
    """Yield statements; those inside a trigger do not end it."""
    statement = ""
    for part in text.split(";")[:-1]:
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""


async def migrate(database: Database) -> int:
    """Bring the schema up to date; returns its number. Idempotent.

    Raises: StoreError when the database was written by a newer fleet.
    """
    current = int((await database.read("PRAGMA user_version"))[0][0])
    migrations = load_migrations()
    newest = migrations[-1][0]
    if current > newest:
        raise StoreError(
            f"the database has schema {current}, this fleet knows {newest}; run the newer fleet, or restore its backup",
            reason="SchemaTooNew",
        )
    for number, statements in migrations:
        if number > current:
            await database.write([*map(Statement, statements), Statement(f"PRAGMA user_version={number}")])
    return newest
