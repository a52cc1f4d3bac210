"""A hub whose database is lost, in virtual time: the marks in the clusters are enough to go on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace

import pytest

from fleet.errors import FleetError
from fleet.hub.service import HubService
from fleet.sim.cluster import SimCluster
from fleet.store.database import InlineDatabase
from tests.harness.fleet import ADA, app_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import WEB, colour, config


@asynccontextmanager
async def without_database(stage: Stage) -> AsyncIterator[HubService]:
    """Run the hub on its data directory, less the database."""
    path = stage.world.directory.database.with_name("second.db")
    with closing(InlineDatabase(path)) as database:
        async with stage.running(replace(stage.world, database=database)) as hub:
            yield hub


async def test_a_lost_database_writes_nothing(stage: Stage) -> None:
    """Healthy objects are recognised without a write, and drift is repaired as before."""
    cluster = await stage.add_cluster("one")
    files = {"app/settings.yaml": config(), "app/web.yaml": WEB.format(image="web:1")}
    stage.repository.commit("first", files)
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
    cluster.forget_requests()
    async with without_database(stage) as hub:
        await stage.synced(("one", "shop"))
        assert (_real_writes(cluster), hub.recovery()) == ([], [])
        events = await stage.until(lambda: hub.events(kind="cluster"))
        assert "2 objects of shop" in next(e.message for e in events if e.reason == "LedgerRebuilt")
        cluster.kubectl().patch("ConfigMap", "settings", {"data": {"colour": "pink"}})
        await stage.until(lambda: colour(cluster) == "red")


def _real_writes(cluster: SimCluster) -> list[str]:
    """Paths of writes, without dry runs and Leases."""
    verbs = ("create", "update", "patch", "delete")
    asked = [r for r in cluster.requests if r.verb in verbs and "dryRun" not in r.query]
    return [r.path for r in asked if "/leases/" not in r.path and "authorization.k8s.io" not in r.path]


async def test_what_is_not_in_git_waits_for_a_person(stage: Stage) -> None:
    """A file, and a whole app, that left Git while the hub was away are listed, kept, and pruned once confirmed."""
    cluster = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("shop", "app"), app_document("gone", "gone"))
    stage.repository.commit("first", {f"app/{n}.yaml": config("red", n) for n in ("a", "b")})
    stage.repository.commit("second", {"gone/c.yaml": config("red", "c")})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"), ("one", "gone"))
    stage.repository.git("rm", "-q", "app/b.yaml")
    stage.repository.commit("less", {"app/a.yaml": config("blue", "a")})
    stage.declare("apps.yaml", app_document("shop", "app"))
    async with without_database(stage) as hub:
        row = await stage.state("one", "shop", "Waiting", "RecoverPending")
        assert "fleet recover" in row.message
        await stage.until(lambda: colour(cluster, "a") == "blue")
        await stage.until(lambda: len(hub.recovery()) == 2)
        assert [(r.app, r.name) for r in hub.recovery()] == [("gone", "c"), ("shop", "b")]
        assert (colour(cluster, "b"), colour(cluster, "c")) == ("red", "red")
    async with without_database(stage) as hub:
        await stage.until(lambda: len(hub.recovery()) == 2)
        confirmed = await hub.recover(cluster="", app="shop", reason="disk lost", actor=ADA)
        assert [r.name for r in confirmed] == ["b"]
        await stage.until(lambda: colour(cluster, "b") is None)
        await stage.synced(("one", "shop"))
        assert colour(cluster, "c") == "red"


async def test_a_cluster_that_is_away_cannot_be_confirmed(stage: Stage) -> None:
    """Nothing is confirmed for a cluster that does not answer."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {f"app/{n}.yaml": config("red", n) for n in ("a", "b")})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
    stage.repository.git("rm", "-q", "app/b.yaml")
    stage.repository.commit("less")
    async with without_database(stage) as hub:
        await stage.until(lambda: len(hub.recovery()) == 1)
        await cluster.close()
        await stage.until(lambda: hub.clusters()[0].state != "Ready", timeout_s=300)
        with pytest.raises(FleetError, match="fleet status --cluster one"):
            await hub.recover(cluster="", app="", reason="r", actor=ADA)
