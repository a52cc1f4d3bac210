"""Both databases on real files, and a clock that is moved by hand."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from fleet.store.database import Database, InlineDatabase, SqliteDatabase
from fleet.store.migration import migrate

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
Open = Callable[[Path], AbstractAsyncContextManager[Database]]


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.rng = Random(1)
        self._now = START

    def now(self) -> datetime:
        return self._now

    def move(self, **by: float) -> None:
        """Move forward."""
        self._now += timedelta(**by)


@contextlib.asynccontextmanager
async def open_inline(path: Path) -> AsyncIterator[Database]:
    """Open the database of simulated runs."""
    database = InlineDatabase(path)
    try:
        yield database
    finally:
        database.close()


@pytest.fixture(params=["threads", "inline"])
def open_database(request: pytest.FixtureRequest) -> Open:
    """How either database is opened."""
    return SqliteDatabase.open if request.param == "threads" else open_inline


@pytest.fixture
async def bare(open_database: Open, tmp_path: Path) -> AsyncIterator[Database]:
    """A database without tables."""
    async with open_database(tmp_path / "fleet.db") as database:
        yield database


@pytest.fixture
async def database(bare: Database) -> Database:
    """A database with fleet's tables."""
    await migrate(bare)
    return bare


@pytest.fixture
def clock() -> HandClock:
    """Wall time under the test's hand."""
    return HandClock()
