"""Every verb leaves its trace before it acts; what failed leaves one, too; secrets leave none."""

import asyncio
from datetime import timedelta

import msgspec
import pytest

from fleet.errors import StoreError, TargetError
from fleet.hub.view import AuditRow, PauseRequest, SyncRequest
from fleet.store.database import Statement
from fleet.store.token import Role
from tests.harness.fleet import ADA
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import WEB, config


async def last(stage: Stage) -> AuditRow:
    """The newest act."""
    return (await stage.hub.audit(limit=1))[-1]


async def test_a_pause_tells_what_it_was_before(stage: Stage) -> None:
    """Who, why, scope, and the pause that was replaced or ended; a resume of nothing is no act."""
    async with stage.running(stage.world) as hub:
        await hub.pause(PauseRequest(reason="night", app="shop"), ADA)
        row = await last(stage)
        assert (row.actor, row.action, row.app, row.subject, row.reason) == (
            "ada",
            "Paused",
            "shop",
            "app shop",
            "night",
        )
        assert (row.before, row.after["pause"], row.result) == ({}, "night", "done")
        await hub.pause(PauseRequest(reason="longer", app="shop"), ADA)
        assert (await last(stage)).before["pause"] == "night"
        assert await hub.resume(PauseRequest(reason="", app="shop"), ADA) == 1
        row = await last(stage)
        assert (row.action, row.before["pause"], row.before["by"]) == ("Resumed", "longer", "ada")
        assert await hub.resume(PauseRequest(reason="", app="shop"), ADA) == 0
        assert (await last(stage)).seq == row.seq
        assert (await hub.verify_audit()).intact


async def test_an_act_that_failed_says_so(stage: Stage) -> None:
    """The result is the reason and the message that the actor got."""
    async with stage.running(stage.world) as hub:
        await hub.create_token("ci", Role.VIEWER, (), None, ADA)
        with pytest.raises(StoreError):
            await hub.create_token("ci", Role.VIEWER, (), None, ADA)
        row = await last(stage)
        assert row.action == "TokenCreated"
        assert row.result.startswith("failed: TokenExists: ")


async def test_no_secret_is_in_the_log(stage: Stage) -> None:
    """A token's secret is not, and what somebody pastes into a reason is masked."""
    async with stage.running(stage.world) as hub:
        secret = await hub.create_token("ci", Role.OPERATOR, ("dev",), None, ADA)
        reason = f"with {secret} and https://ada:hunter2@git.example.com/x"
        await hub.pause(PauseRequest(reason=reason, app="shop"), ADA)
        assert [await hub.revoke_token("ci", ADA), await hub.revoke_token("ci", ADA)] == [True, True]
        rows = await stage.world.database.read("SELECT * FROM audit")
        written = msgspec.json.encode(rows).decode()
        assert secret not in written
        assert "hunter2" not in written
        assert [row.action for row in await hub.audit()] == ["TokenCreated", "Paused", "TokenRevoked"]
        created = (await hub.audit())[0]
        assert created.after == {"role": "operator", "environments": "dev", "expires": "never"}


async def test_nothing_is_done_that_cannot_be_logged(stage: Stage) -> None:
    """A log that cannot be written refuses the act."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/web.yaml": WEB.format(image="web:1")})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        await stage.world.database.write([Statement("ALTER TABLE audit RENAME TO lost")])
        cluster.forget_requests()
        with pytest.raises(StoreError):
            await hub.pause(PauseRequest(reason="night", app="shop"), ADA)
        with pytest.raises(StoreError):
            await hub.restart("one", "shop", kind="", namespace="", name="", actor=ADA)
        assert list(hub.status().pauses) == []
        assert [r for r in cluster.requests if "deployments" in r.path and r.verb == "patch"] == []


async def test_a_restart_names_what_it_restarts(stage: Stage) -> None:
    """The objects are in the log, with the target; one that is refused before it begins is no act."""
    await stage.add_cluster("one")
    stage.repository.commit("first", {"app/web.yaml": WEB.format(image="web:1")})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        await hub.restart("one", "shop", kind="", namespace="", name="", actor=ADA)
        row = await last(stage)
        assert (row.action, row.cluster, row.app, row.result) == ("Restarted", "one", "shop", "done")
        assert "web" in row.subject
        with pytest.raises(TargetError):
            await hub.restart("one", "shop", kind="Deployment", namespace="", name="none", actor=ADA)
        assert (await last(stage)).seq == row.seq


async def test_acts_are_events_too(stage: Stage) -> None:
    """Whoever follows events sees acts as they begin."""
    await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        await hub.sync(SyncRequest(app="shop"), ADA)
        await asyncio.sleep(1)
        assert [e.reason for e in await hub.events(kind="audit") if e.actor != "hub"] == ["Sync"]


async def test_the_log_outlives_a_restart_and_shows_what_was_altered(stage: Stage) -> None:
    """A second run goes on with the same chain; a row altered in between is named."""
    async with stage.running(stage.world) as hub:
        await hub.pause(PauseRequest(reason="night", app="shop"), ADA)
        head = (await hub.verify_audit()).head
    async with stage.running(stage.world) as hub:
        await hub.resume(PauseRequest(reason="", app="shop"), ADA)
        assert (await hub.verify_audit(head)).intact
        changes = ["DROP TRIGGER audit_keeps_values", "UPDATE audit SET actor = 'otto' WHERE seq = 1"]
        await stage.world.database.write([Statement(sql) for sql in changes])
        verdict = await hub.verify_audit()
        assert (verdict.intact, verdict.broken) == (False, 1)
        since = stage.world.clock.now() - timedelta(hours=1)
        assert [row.action for row in await hub.audit(since=since, actor="ada")] == ["Resumed"]
