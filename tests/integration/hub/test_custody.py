"""Whose a cluster is: another identity, another name, another hub; and a cluster that is emptied on purpose."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace

import pytest

from fleet.errors import TargetError
from fleet.hub.app import running_hub
from fleet.hub.service import HubService
from fleet.hub.view import ClusterRow
from fleet.sim.cluster import SimCluster
from fleet.store.database import InlineDatabase
from fleet.store.directory import hold_directory
from tests.harness.fleet import ADA, app_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import WEB, colour, config, writes


async def troubled(stage: Stage, hub: HubService, reason: str, name: str = "one") -> ClusterRow:
    """Wait until a cluster is in trouble; return its row."""

    def found() -> ClusterRow | None:
        return next((row for row in hub.clusters() if (row.name, row.reason) == (name, reason)), None)

    row = await stage.until(found)
    assert row is not None
    return row


async def swap(stage: Stage, name: str = "one") -> SimCluster:
    """Let another cluster answer at the address of one."""
    impostor = SimCluster(name, seed=99)
    stage.network.unlisten(f"{name}.example", 443)
    await impostor.register(stage.network, f"{name}.example")
    stage.clusters[f"{name}, before"] = stage.clusters[name]
    stage.clusters[name] = impostor
    stage.point_to(name)
    return impostor


@asynccontextmanager
async def second_hub(stage: Stage) -> AsyncIterator[HubService]:
    """Run another hub, with a data directory of its own, over the same inventory."""
    data = stage.root / "second"
    with hold_directory(data) as directory, closing(InlineDatabase(directory.database)) as database:
        world = replace(stage.world, database=database, directory=directory)
        async with running_hub(replace(stage.settings, data=data), world) as hub:
            yield hub


def uid_of(cluster: SimCluster) -> str:
    """The uid that identifies a cluster."""
    return str(cluster.get("v1", "Namespace", "", "kube-system")["metadata"]["uid"])


def holder(cluster: SimCluster) -> str:
    """Who holds a cluster."""
    lease = cluster.find("coordination.k8s.io/v1", "Lease", "fleet-system", "fleet-hub")
    return str(lease["spec"]["holderIdentity"]) if lease is not None else ""


def hub_of(cluster: SimCluster, kind: str, namespace: str, name: str) -> str:
    """Which hub an object names."""
    found = cluster.find("v1", kind, namespace, name)
    assert found is not None
    metadata = found["metadata"]
    return str({**metadata.get("annotations", {}), **metadata.get("labels", {})}["fleet/hub"])


async def test_another_cluster_is_written_after_it_was_accepted(stage: Stage) -> None:
    """Nothing is written before; then the ledger starts empty and the cluster gets everything, at once."""
    await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
    impostor = await swap(stage)
    async with stage.running(stage.world) as hub:
        row = await troubled(stage, hub, "IdentityChanged")
        await asyncio.sleep(60)
        assert impostor.count("create", "update", "patch", "delete") == 0
        uid = uid_of(impostor)
        assert f"fleet cluster accept one --uid {uid}" in row.message
        with pytest.raises(TargetError, match=uid):
            await hub.accept_cluster("one", uid="another", reason="rebuilt", actor=ADA)
        await hub.accept_cluster("one", uid=uid, reason="rebuilt", actor=ADA)
        await stage.synced(("one", "shop"), timeout_s=10)
        assert colour(impostor) == "red"
        assert (await hub.accept_cluster("one", uid=uid, reason="again", actor=ADA)).uid == uid
        events = await hub.events(kind="cluster")
        assert [e.message for e in events if e.reason == "IdentityAccepted" and "ada: rebuilt" in e.message]
        assert not await hub.events(kind="drift")


async def test_a_file_may_accept_another_cluster(stage: Stage) -> None:
    """A new `spec.uid` says that the cluster was replaced on purpose; nothing of the old one counts as drift."""
    await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
    impostor = await swap(stage)
    stage.point_to("one", uid=uid_of(impostor))
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        assert colour(impostor) == "red"
        assert not await hub.events(kind="drift")


async def test_a_cluster_that_is_exchanged_under_a_running_hub_is_not_written(stage: Stage) -> None:
    """Objects that vanish because another cluster answers are not made there: it is looked at first."""
    first = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        first.die()
        impostor = await swap(stage)
        await troubled(stage, hub, "IdentityChanged")
        stage.repository.commit("blue", {"app/settings.yaml": config("blue")})
        await asyncio.sleep(120)
        assert impostor.count("create", "update", "patch", "delete") == 0


async def test_a_renamed_cluster_keeps_what_is_known_of_it(stage: Stage) -> None:
    """With the old name gone from the inventory the new one goes on: nothing is written, and prunes still work."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/a.yaml": config(name="a"), "app/b.yaml": config(name="b")})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        cluster.forget_requests()
        stage.clusters["two"] = cluster
        stage.point_to("two")
        (stage.inventory / "one.yaml").unlink()
        await stage.synced(("two", "shop"), timeout_s=90)
        assert [row.name for row in hub.clusters()] == ["two"]
        assert writes(cluster) == []
        (stage.repository.path / "app/b.yaml").unlink()
        await stage.synced(("two", "shop"), revision=stage.repository.commit("less"))
        assert cluster.find("v1", "ConfigMap", "default", "b") is None


async def test_a_second_hub_writes_nothing_and_says_whose_the_cluster_is(stage: Stage) -> None:
    """It is read-only there, for ever, and names the command to change that."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        cluster.forget_requests()
        async with second_hub(stage) as second:
            row = await troubled(stage, second, "OwnedByAnotherHub")
            assert hub.status().hub_id in row.message
            assert "fleet cluster takeover one" in row.message
            await asyncio.sleep(300)
            assert writes(cluster) == []
            assert holder(cluster) == hub.status().hub_id


async def test_a_takeover_ends_the_hub_before(stage: Stage) -> None:
    """Lease, parents and labels name the new hub; the old one sees it within a minute, stops, and does not fight."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config(), "app/more.yaml": config("green", "more")})
    async with stage.running(stage.world) as first:
        await stage.synced(("one", "shop"))
        async with second_hub(stage) as second:
            await troubled(stage, second, "OwnedByAnotherHub")
            await second.take_over_cluster("one", reason="moving", actor=ADA)
            await stage.until(lambda: [t for t in second.targets() if t.state == "Synced"], timeout_s=30)
            own = second.status().hub_id
            await troubled(stage, first, "OwnedByAnotherHub")
            assert own in first.clusters()[0].message
            assert holder(cluster) == own
            assert hub_of(cluster, "ConfigMap", "default", "settings") == own
            assert hub_of(cluster, "ConfigMap", "fleet-system", "fleet-app-shop") == own
            cluster.forget_requests()
            await stage.until(lambda: [t for t in second.targets() if t.state == "Synced"], timeout_s=90)
            await asyncio.sleep(300)
            assert writes(cluster) == []
            stage.repository.commit("blue", {"app/settings.yaml": config("blue")})
            await stage.until(lambda: colour(cluster) == "blue")
            assert holder(cluster) == own
            with pytest.raises(TargetError, match="no other hub holds cluster one"):
                await second.take_over_cluster("one", reason="again", actor=ADA)


async def test_a_hub_that_was_taken_back_from_does_not_take_again(stage: Stage) -> None:
    """A takeover is for once: when the first hub takes its cluster back, the second stays away."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as first:
        await stage.synced(("one", "shop"))
        async with second_hub(stage) as second:
            await troubled(stage, second, "OwnedByAnotherHub")
            await second.take_over_cluster("one", reason="moving", actor=ADA)
            await troubled(stage, first, "OwnedByAnotherHub")
            await first.take_over_cluster("one", reason="moving back", actor=ADA)
            await troubled(stage, second, "OwnedByAnotherHub")
            await stage.synced(("one", "shop"))
            await asyncio.sleep(300)
            assert holder(cluster) == first.status().hub_id
            assert hub_of(cluster, "ConfigMap", "default", "settings") == first.status().hub_id


async def test_a_cluster_whose_lease_was_deleted_still_names_its_hub(stage: Stage) -> None:
    """The parents of its apps say whose it is."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
    cluster.kubectl("fleet-system").delete("Lease", "fleet-hub")
    cluster.forget_requests()
    async with second_hub(stage) as second:
        row = await troubled(stage, second, "OwnedByAnotherHub")
        assert "fleet-app-shop" in row.message
        assert writes(cluster) == []
        await second.take_over_cluster("one", reason="the hub is lost", actor=ADA)
        await stage.until(lambda: [t for t in second.targets() if t.state == "Synced"])


async def test_a_drained_cluster_is_empty_and_stays_so(stage: Stage) -> None:
    """Everything that was applied is deleted, what may not be deleted is let go; a restart does not bring it back."""
    cluster = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("shop", "app", onRemove="orphan"), app_document("base", "base"))
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n"
    kept = config(name="kept").replace("name: kept", 'name: kept, annotations: {"fleet/prune": disabled}')
    stage.repository.commit(
        "first",
        {
            "app/settings.yaml": config(),
            "app/kept.yaml": kept,
            "app/web.yaml": WEB.format(image="web:1"),
            "base/team.yaml": namespace,
            "base/base.yaml": config(name="base"),
        },
    )
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"), ("one", "base"))
        row = await hub.drain_cluster("one", "", reason="retired", actor=ADA)
        assert row.objects == 5
        shown = await stage.state("one", "shop", "Paused", "Drained")
        assert "ada: retired" in shown.message
        assert "fleet cluster undrain one" in shown.message
        assert shown.applied_revision == ""
        await stage.state("one", "base", "Paused", "Drained")
        assert colour(cluster) is None
        assert cluster.find("apps/v1", "Deployment", "default", "web") is None
        for kind, where, name in (("ConfigMap", "default", "kept"), ("Namespace", "", "team")):
            found = cluster.find("v1", kind, where, name)
            assert found is not None
            assert "fleet/hub" not in found["metadata"].get("labels", {})
        assert cluster.find("v1", "ConfigMap", "fleet-system", "fleet-app-shop") is None
        assert "ada: retired" in hub.clusters()[0].drained
    async with stage.running(stage.world) as hub:
        await stage.state("one", "shop", "Paused", "Drained")
        stage.repository.commit("blue", {"app/settings.yaml": config("blue")})
        await asyncio.sleep(120)
        assert colour(cluster) is None
        assert await hub.undrain_cluster("one", "", actor=ADA) == 1
        await stage.synced(("one", "shop"), ("one", "base"))
        assert colour(cluster) == "blue"


async def test_one_app_is_drained(stage: Stage) -> None:
    """The others stay; an app that others need goes after them."""
    cluster = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("shop", "app", dependsOn=[{"app": "base"}]), app_document("base", "base"))
    stage.repository.commit("first", {"app/settings.yaml": config(), "base/base.yaml": config(name="base")})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"), ("one", "base"))
        await hub.drain_cluster("one", "shop", reason="broken", actor=ADA)
        await stage.state("one", "shop", "Paused", "Drained")
        await stage.synced(("one", "base"))
        assert (colour(cluster), colour(cluster, "base")) == (None, "red")
        with pytest.raises(TargetError, match="does not go to"):
            await hub.drain_cluster("one", "nothing", reason="x", actor=ADA)
        assert await hub.undrain_cluster("one", "shop", actor=ADA) == 1
        await stage.synced(("one", "shop"))
        await hub.drain_cluster("one", "", reason="all", actor=ADA)
        await stage.state("one", "base", "Paused", "Drained")
        await stage.state("one", "shop", "Paused", "Drained")
        gone = [r.path.rpartition("/")[2] for r in cluster.requests if r.verb == "delete" and "/default/" in r.path]
        assert gone[-2:] == ["settings", "base"]
        with pytest.raises(TargetError, match="fleet cluster undrain one"):
            await hub.undrain_cluster("one", "base", actor=ADA)
