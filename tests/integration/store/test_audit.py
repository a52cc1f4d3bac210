"""The audit log takes rows and keeps them; what was done to it behind its back shows."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from fleet.errors import StoreError
from fleet.store.audit import Act, AuditStore, Verdict
from fleet.store.database import Database, Statement
from fleet.store.migration import migrate
from tests.integration.store.conftest import START, HandClock, Open

PAUSED = Act(action="Paused", actor="ada", cluster="one", app="shop", reason="night", after={"pause": "night"})
TRIGGERS = ("audit_keeps_rows", "audit_keeps_values", "audit_replaces_nothing")


@pytest.fixture
def store(database: Database, clock: HandClock) -> AuditStore:
    """An empty log."""
    return AuditStore(database, clock)


async def fill(store: AuditStore, count: int) -> None:
    """Record acts of ada and otto in turns, each done."""
    for number in range(count):
        act = Act(action="Sync", actor=("ada", "otto")[number % 2], app=f"app-{number}")
        await store.finish(await store.begin(act), act, "done")


async def tamper(database: Database, *statements: str) -> None:
    """Do to the log what somebody with the file can do."""
    dropped = [Statement(f"DROP TRIGGER {name}") for name in TRIGGERS]
    await database.write([*dropped, *map(Statement, statements)])


async def test_an_act_is_in_the_log_before_its_result(store: AuditStore, clock: HandClock) -> None:
    """An act that is under way, or that the hub did not live to end, is listed without a result."""
    seq = await store.begin(PAUSED)
    [begun] = await store.list()
    assert (begun.seq, begun.at, begun.act, begun.result, begun.finished_at) == (seq, START, PAUSED, "", None)
    clock.move(seconds=3)
    await store.finish(seq, PAUSED, "done")
    [ended] = await store.list()
    assert (ended.result, ended.finished_at) == ("done", START + timedelta(seconds=3))
    assert (ended.act, ended.hash) == (PAUSED, begun.hash)


async def test_acts_are_found_by_who_where_and_when(store: AuditStore, clock: HandClock) -> None:
    """Filters narrow the list; without a beginning the newest come, still oldest first."""
    await fill(store, 4)
    clock.move(hours=1)
    await store.begin(PAUSED)

    async def found(**query: object) -> list[str]:
        return [r.act.app for r in await store.list(**query)]  # type: ignore[arg-type]  # one test, many filters

    assert await found(actor="otto") == ["app-1", "app-3"]
    assert await found(app="app-2") == ["app-2"]
    assert await found(cluster="one") == ["shop"]
    assert await found(since=START + timedelta(minutes=1)) == ["shop"]
    assert await found(limit=2) == ["app-3", "shop"]
    assert await found(after=0, limit=2) == ["app-0", "app-1"]


async def test_a_log_nobody_touched_is_intact(store: AuditStore) -> None:
    """An empty log and a long one verify, and name their last row."""
    assert await store.verify() == Verdict(rows=0, head="")
    await fill(store, 150)
    verdict = await store.verify()
    assert (verdict.rows, verdict.broken) == (300, 0)
    assert verdict.head.startswith("300:")
    await fill(store, 1)
    assert (await store.verify(verdict.head)).broken == 0


@pytest.mark.parametrize(
    ("statements", "broken"),
    [
        (["UPDATE audit SET actor = 'eve' WHERE seq = 3"], 3),
        (["UPDATE audit SET reason = 'no' WHERE seq = 4", "UPDATE audit SET reason = 'no' WHERE seq = 6"], 4),
        (["UPDATE audit SET hash = 'x' WHERE seq = 8"], 8),
        (["DELETE FROM audit WHERE seq = 5"], 5),
        (["DELETE FROM audit WHERE seq > 6"], 7),
        (["DELETE FROM audit"], 1),
        (["DELETE FROM audit WHERE seq = 2", "UPDATE audit SET seq = seq - 1 WHERE seq > 2"], 2),
    ],
)
async def test_what_was_altered_by_hand_is_found(
    store: AuditStore, database: Database, statements: Sequence[str], broken: int
) -> None:
    """A changed value, a missing row, a cut end: the first row that is not as it was written is named."""
    await fill(store, 4)
    await tamper(database, *statements)
    verdict = await store.verify()
    assert verdict.broken == broken
    assert str(broken) in verdict.message or "is gone" in verdict.message


async def test_a_cut_end_still_shows_after_a_restart_and_new_acts(
    store: AuditStore, database: Database, clock: HandClock
) -> None:
    """The chain goes on from where it was, so that what was cut off cannot be covered by new rows."""
    await fill(store, 4)
    await tamper(database, "DELETE FROM audit WHERE seq > 6")
    await fill(AuditStore(database, clock), 2)
    assert (await store.verify()).broken == 7


async def test_a_chain_written_anew_does_not_hold_an_older_head(
    store: AuditStore, database: Database, clock: HandClock
) -> None:
    """Who rewrites everything cannot keep the hash that somebody has noted elsewhere."""
    await fill(store, 2)
    noted = (await store.verify()).head
    await tamper(database, "DELETE FROM audit", "DELETE FROM meta WHERE name = 'audit_head'")
    clock.move(seconds=1)
    await fill(AuditStore(database, clock), 4)
    assert (await store.verify()).broken == 0
    assert (await store.verify(noted)).broken == 4


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit SET actor = 'otto'",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit",
    ],
)
async def test_the_database_refuses_to_change_rows(store: AuditStore, database: Database, sql: str) -> None:
    """Nothing in fleet can alter what was written, not by a bug either."""
    await fill(store, 1)
    with pytest.raises(StoreError, match="append-only"):
        await database.write([Statement(sql)])
    assert (await store.verify()).broken == 0


async def test_acts_at_the_same_time_are_one_chain(store: AuditStore) -> None:
    """Twenty acts that begin at once are twenty rows in one order."""
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(store.begin(PAUSED))
    verdict = await store.verify()
    assert (verdict.rows, verdict.broken) == (20, 0)


async def test_the_chain_goes_on_after_a_restart(open_database: Open, tmp_path: Path, clock: HandClock) -> None:
    """Another process over the same file adds to the same chain."""
    for _ in range(3):
        async with open_database(tmp_path / "fleet.db") as database:
            await migrate(database)
            await AuditStore(database, clock).begin(PAUSED)
    async with open_database(tmp_path / "fleet.db") as database:
        verdict = await AuditStore(database, clock).verify()
    assert (verdict.rows, verdict.broken) == (3, 0)
