"""Sealing keys on a whole hub: made when a cluster is met, never in place of a lost one, bound to who a cluster is."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.errors import SealError
from fleet.hub.keyview import SealKeyRow
from fleet.hub.service import HubService
from fleet.secrets.key import Algorithm
from fleet.sim.cluster import SimCluster
from tests.harness.fleet import ADA
from tests.harness.keys import box_key, native_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_custody import swap, troubled, uid_of
from tests.integration.hub.test_main_job import config


def password(cluster: SimCluster) -> str:
    """What the Secret in the cluster says; empty without one."""
    found = cluster.find("v1", "Secret", "default", "db")
    return base64.b64decode(found["data"]["password"]).decode() if found is not None else ""


async def keys(stage: Stage, hub: HubService, wanted: Callable[[SealKeyRow], bool]) -> SealKeyRow:
    """Wait for a key that is as wanted."""

    async def find() -> SealKeyRow | None:
        return next(filter(wanted, await hub.keys.list()), None)

    found = await stage.until(find)
    assert found is not None
    return found


async def in_use(stage: Stage, hub: HubService) -> SealKeyRow:
    """Confirm a backup, and wait for the key that values are sealed with."""
    await keys(stage, hub, lambda row: row.state in ("pending", "active"))
    backup = await hub.keys.back_up("", ADA)
    await hub.keys.confirm_backup(backup.digest, "safe", ADA)
    return await keys(stage, hub, lambda row: row.state == "active")


def seal(stage: Stage, value: str = "hunter2") -> str:
    """Seal a value with the key that the hub offers for cluster one."""
    offered = stage.hub.keys.keeper.keyring.offered("one", Algorithm.X25519)  # type: ignore[attr-defined]
    assert offered is not None
    [key] = stage.hub.keys.keeper.keyring.every("one", offered.kid)  # type: ignore[attr-defined]
    return native_document({"password": value}, key)


async def test_a_cluster_gets_its_key_when_it_is_met(stage: Stage) -> None:
    """It waits for a backup, is no problem, and both the making and the backup are in the audit log."""
    await stage.add_cluster("one")
    stage.repository.commit("first", {"app/a.yaml": config()})
    async with stage.running(stage.world) as hub:
        row = await keys(stage, hub, lambda row: row.cluster == "one")
        assert (row.state, row.environment, row.uid) == ("pending", "dev", uid_of(stage.clusters["one"]))
        assert hub.status().problems == ()
        active = await in_use(stage, hub)
        assert active.kid == row.kid
        acts = [(act.actor, act.action) for act in await hub.audit()]
        for act in (
            ("hub", "KeyMade"),
            ("ada", "KeyBackupMade"),
            ("ada", "KeyBackupConfirmed"),
            ("hub", "KeyActivated"),
        ):
            assert act in acts


async def test_no_key_is_made_where_git_needs_a_lost_one(stage: Stage) -> None:
    """A hub with an empty database over sealed values says which key is missing; only a person begins anew."""
    await stage.add_cluster("one")
    lost = box_key("one")
    stage.repository.commit("first", {"app/a.yaml": config(), "app/db.yaml": native_document({"password": "x"}, lost)})
    async with stage.running(stage.world) as hub:
        await stage.until(lambda: [p for p in hub.status().problems if lost.public.kid in p.message])
        [problem] = hub.status().problems
        assert "fleet keys restore" in problem.message
        assert await hub.keys.list() == ()
        await hub.keys.rotate("one", Algorithm.X25519, reason="begin anew", actor=ADA)
        await keys(stage, hub, lambda row: row.cluster == "one")


async def test_a_hub_without_its_master_key_runs_and_says_so(stage: Stage, tmp_path: Path) -> None:
    """What is not sealed is applied; the problem says what to do; nothing is made in place of the lost file."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/a.yaml": config()})
    master = tmp_path / "data" / "master.key"
    async with stage.running(stage.world) as hub:
        await in_use(stage, hub)
        stage.repository.commit("sealed", {"app/db.yaml": seal(stage)})
        await stage.until(lambda: password(cluster) == "hunter2")
    saved = master.read_bytes()
    master.unlink()
    revision = stage.repository.commit("blue", {"app/a.yaml": config("blue")})
    async with stage.running(stage.world) as hub:
        await stage.until(lambda: [p for p in hub.status().problems if "put it back" in p.message])
        with pytest.raises(SealError, match="put it back"):
            hub.keys.bundle()
        row = await stage.until(lambda: (r := stage.row("one", "shop")) and r.reason == "KeysLocked" and r)
        assert row
        assert row.state == "Degraded"
        assert password(cluster) == "hunter2"
        assert not master.exists()
        master.write_bytes(saved)
        master.chmod(0o600)
        await stage.synced(("one", "shop"), revision=revision, timeout_s=120)
        assert hub.status().problems == ()


async def test_nothing_is_opened_for_another_cluster(stage: Stage) -> None:
    """An impostor under the name gets nothing; once accepted, the cluster that took its place gets what was sealed."""
    await stage.add_cluster("one")
    stage.repository.commit("first", {"app/a.yaml": config()})
    async with stage.running(stage.world) as hub:
        await in_use(stage, hub)
        stage.repository.commit("sealed", {"app/db.yaml": seal(stage)})
        await stage.until(lambda: password(stage.clusters["one"]) == "hunter2")
    impostor = await swap(stage)
    async with stage.running(stage.world) as hub:
        await troubled(stage, hub, "IdentityChanged")
        assert password(impostor) == ""
        await hub.accept_cluster("one", uid=uid_of(impostor), reason="rebuilt", actor=ADA)
        await stage.until(lambda: password(impostor) == "hunter2")
        assert [row.uid for row in await hub.keys.list()] == [uid_of(impostor)]


async def test_a_backup_that_cannot_be_written_is_a_problem(stage: Stage, tmp_path: Path) -> None:
    """The hub goes on, and says where it wanted to write."""
    stage.keys_backup = str(tmp_path / "safe")
    (tmp_path / "safe").write_text("in the way")
    await stage.add_cluster("one")
    stage.repository.commit("first", {"app/a.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.until(lambda: [p for p in hub.status().problems if "--keys-backup" in p.message])
        (tmp_path / "safe").unlink()
        await keys(stage, hub, lambda row: row.state == "active")
        assert hub.status().problems == ()
