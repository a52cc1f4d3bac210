"""Whose a real cluster is: another identity, another hub; and one that is emptied on purpose."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.hub.service import HubService
from fleet.settings import Settings
from fleet.sim.real import ControlPlane
from tests.cluster.test_hub import CONFIG, WEB, get, release_leases
from tests.harness.fleet import ADA, Fleet, app_document, cluster_document, environment_document, repository_document


@pytest.fixture
async def fleet(tmp_path: Path, planes: list[ControlPlane], namespace: str) -> Fleet:
    """A place for a hub, with cluster `prod` in its inventory; one ConfigMap is in Git."""
    await release_leases(planes)
    made = Fleet(tmp_path)
    made.declare("fleet.yaml", repository_document(made.repository.path), environment_document())
    made.declare("apps.yaml", app_document("shop", "app"))
    made.declare("prod.yaml", cluster_document("prod", planes[0].kubeconfig_path))
    made.repository.commit("first", {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="red")})
    return made


async def reason(fleet: Fleet, hub: HubService, wanted: str, timeout_s: float = 90.0) -> str:
    """Wait until the only cluster is in a trouble; return the message."""
    found = await fleet.until(lambda: [c for c in hub.clusters() if c.reason == wanted], timeout_s=timeout_s)
    return found[0].message


async def uid_of(plane: ControlPlane) -> str:
    """The uid that identifies a cluster."""
    return await plane.kubectl("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")


async def marks(plane: ControlPlane, namespace: str) -> tuple[str, str, str]:
    """The hubs that Lease, parent and object name."""
    lease = await get(plane, "lease", "fleet-hub", "fleet-system")
    parent = await get(plane, "configmap", "fleet-app-shop", "fleet-system")
    settings = await get(plane, "configmap", "settings", namespace)
    assert lease is not None
    assert parent is not None
    assert settings is not None
    return (
        lease["spec"]["holderIdentity"],
        parent["metadata"]["annotations"]["fleet/hub"],
        settings["metadata"]["labels"]["fleet/hub"],
    )


@asynccontextmanager
async def second_hub(fleet: Fleet) -> AsyncIterator[tuple[Fleet, HubService]]:
    """Run another hub, with a data directory of its own, over the same inventory."""
    root = fleet.root / "second"
    root.mkdir()
    other = Fleet(root)
    other.inventory = fleet.inventory
    async with other.running() as hub:
        yield other, hub


class Hasty(Fleet):
    """A fleet whose hub renews its Leases every second."""

    @property
    def settings(self) -> Settings:
        """Settings of the hub."""
        return replace(super().settings, heartbeat_s=1.0)


async def test_the_lease_is_renewed_and_only_by_its_holder(
    fleet: Fleet, planes: list[ControlPlane], namespace: str
) -> None:
    """The heartbeat goes on while the Lease is ours; when it names another hub, the cluster is not written any more."""
    plane, hasty = planes[0], Hasty(fleet.root)
    times = set()

    async def renewed() -> bool:
        lease = await get(plane, "lease", "fleet-hub", "fleet-system")
        times.add(lease["spec"]["renewTime"] if lease is not None else "")
        return len(times) > 3

    async with hasty.running() as hub:
        await hasty.synced(("prod", "shop"))
        await hasty.until(renewed)
        assert [e.reason for e in await hub.events(kind="cluster")] == ["Connected"]
        patch = '{"spec":{"holderIdentity":"another-hub"}}'
        await plane.kubectl("patch", "lease", "fleet-hub", "-n", "fleet-system", "--type=merge", "-p", patch)
        assert "another-hub" in await reason(hasty, hub, "OwnedByAnotherHub")
        hasty.repository.commit("blue", {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="blue")})
        await plane.kubectl("delete", "configmap", "settings", "-n", namespace)
        await hasty.until(lambda: hub.targets()[0].desired_revision != hub.targets()[0].applied_revision)
        await asyncio.sleep(3)
        assert await get(plane, "configmap", "settings", namespace) is None


async def test_another_cluster_is_written_after_it_was_accepted(
    fleet: Fleet, planes: list[ControlPlane], namespace: str
) -> None:
    """A connection that leads to another API server writes nothing there, not even a Lease, until it is accepted."""
    other = planes[1]
    await other.kubectl("create", "namespace", namespace)
    async with fleet.running() as hub:
        await fleet.synced(("prod", "shop"))
        fleet.declare("prod.yaml", cluster_document("prod", other.kubeconfig_path))
        message = await reason(fleet, hub, "IdentityChanged")
        uid = await uid_of(other)
        assert f"fleet cluster accept prod --uid {uid}" in message
        assert await get(other, "configmap", "settings", namespace) is None
        assert await get(other, "lease", "fleet-hub", "fleet-system") is None
        await hub.accept_cluster("prod", uid=uid, reason="rebuilt", actor=ADA)
        await fleet.synced(("prod", "shop"))
        assert await get(other, "configmap", "settings", namespace) is not None
        assert not await hub.events(kind="drift")


async def test_a_second_hub_writes_nothing_until_it_takes_over(
    fleet: Fleet, planes: list[ControlPlane], namespace: str
) -> None:
    """It says whose the cluster is; after the takeover all marks are its own, and the first hub stops at once."""
    plane = planes[0]
    async with fleet.running() as first:
        await fleet.synced(("prod", "shop"))
        before = await get(plane, "configmap", "settings", namespace)
        async with second_hub(fleet) as (other, second):
            message = await reason(fleet, second, "OwnedByAnotherHub")
            assert first.status().hub_id in message
            assert "fleet cluster takeover prod" in message
            assert await get(plane, "configmap", "settings", namespace) == before
            await second.take_over_cluster("prod", reason="moving", actor=ADA)
            await other.synced(("prod", "shop"))
            await reason(fleet, first, "OwnedByAnotherHub")
            await other.synced(("prod", "shop"))
            own = second.status().hub_id
            assert await marks(plane, namespace) == (own, own, own)
            after = await get(plane, "configmap", "settings", namespace)
            assert before is not None
            assert after is not None
            assert after["metadata"]["uid"] == before["metadata"]["uid"]
            changed = {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="blue")}
            await other.synced(("prod", "shop"), revision=fleet.repository.commit("blue", changed))
            assert await marks(plane, namespace) == (own, own, own)


async def test_a_lease_that_was_deleted_gives_the_cluster_to_nobody(
    fleet: Fleet, planes: list[ControlPlane], namespace: str
) -> None:
    """The parents of its apps still name the hub; the one that is named goes on by itself."""
    plane = planes[0]
    async with fleet.running() as first:
        await fleet.synced(("prod", "shop"))
    await plane.kubectl("delete", "lease", "fleet-hub", "-n", "fleet-system")
    async with second_hub(fleet) as (_, second):
        assert first.status().hub_id in await reason(fleet, second, "OwnedByAnotherHub")
        assert await get(plane, "lease", "fleet-hub", "fleet-system") is None
    async with fleet.running() as first:
        await fleet.synced(("prod", "shop"))
        assert set(await marks(plane, namespace)) == {first.status().hub_id}


async def test_a_drained_cluster_is_empty_until_it_is_undrained(
    fleet: Fleet, planes: list[ControlPlane], namespace: str
) -> None:
    """What was applied goes, a namespace stays without our labels, and undrain brings everything back."""
    plane = planes[0]
    made = f"{namespace}-made"
    fleet.repository.commit(
        "more",
        {
            "app/web.yaml": WEB.format(namespace=namespace, image="example.com/web:1"),
            "app/made.yaml": f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {made}}}\n",
        },
    )
    async with fleet.running() as hub:
        await fleet.synced(("prod", "shop"))
        await fleet.until(lambda: hub.targets()[0].objects.total == 3)
        await hub.drain_cluster("prod", "", reason="retired", actor=ADA)
        row = await fleet.state("prod", "shop", "Paused", "Drained")
        assert "fleet cluster undrain prod" in row.message
        assert await get(plane, "configmap", "settings", namespace) is None
        assert await get(plane, "deployment", "web", namespace) is None
        kept: dict[str, Any] | None = await get(plane, "namespace", made, "")
        assert kept is not None
        assert "fleet/hub" not in kept["metadata"]["labels"]
        await hub.undrain_cluster("prod", "", actor=ADA)
        await fleet.synced(("prod", "shop"))
        assert await get(plane, "deployment", "web", namespace) is not None
        await plane.kubectl("delete", "namespace", made, "--wait=false")
