"""With whose rights objects are written, and what is said when they do not suffice."""

import asyncio

import pytest

from fleet.errors import Forbidden
from fleet.sim.access import Denial
from fleet.sim.cluster import SimCluster
from tests.harness.fleet import ADA, app_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import WEB, colour, config

DEPLOYER = "system:serviceaccount:shop:deployer"
ACCOUNT = {"serviceAccount": "shop:deployer"}


def reviews(cluster: SimCluster) -> int:
    """How often a cluster was asked what somebody may do."""
    return sum("selfsubjectaccessreviews" in r.path for r in cluster.requests)


async def test_an_administrator_is_asked_once(stage: Stage) -> None:
    """Somebody who may everything costs one question per connection, however many kinds there are."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config(), "app/web.yaml": WEB.format(image="web:1")})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        await asyncio.sleep(120)
        assert reviews(cluster) == 1


async def test_every_missing_verb_is_named_before_a_write(stage: Stage) -> None:
    """Two verbs are denied: both are in the message, nothing was tried; when they are granted it goes on by itself."""
    cluster = await stage.add_cluster("one", impersonate=ACCOUNT)
    denied = [Denial(user=DEPLOYER, verb=verb, resource="configmaps") for verb in ("create", "delete")]
    cluster.access.denials += denied
    stage.repository.commit("first", {f"app/{n}.yaml": config(name=n) for n in "abcdefgh"})
    async with stage.running(stage.world) as hub:
        row = await stage.state("one", "shop", "Failed", "Forbidden")
        assert f"no right to create, delete configmaps in namespace default as {DEPLOYER}" in row.message
        assert "fleet cluster manifests one" in row.message
        await asyncio.sleep(5)
        assert not [r for r in cluster.requests if "/default/configmaps/" in r.path and r.verb == "patch"]
        assert reviews(cluster) < 30
        cluster.access.denials.clear()
        await stage.synced(("one", "shop"), timeout_s=60)
        assert not [e for e in await hub.events(kind="cluster") if e.reason == "Forbidden"]


async def test_rights_that_are_taken_away_are_noticed(stage: Stage) -> None:
    """A call that is refused although it was allowed once is explained as well as one that was not made."""
    cluster = await stage.add_cluster("one", impersonate=ACCOUNT)
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        cluster.access.denials.append(Denial(user=DEPLOYER, verb="patch", resource="configmaps"))
        stage.repository.commit("blue", {"app/settings.yaml": config("blue")})
        row = await stage.state("one", "shop", "Failed", "Forbidden")
        assert f"no right to patch configmaps in namespace default as {DEPLOYER}" in row.message
        cluster.access.denials.clear()
        await stage.until(lambda: colour(cluster) == "blue")


async def test_an_account_that_the_hub_may_not_use(stage: Stage) -> None:
    """The refusal of the impersonation itself is shown with the command that prints the rights."""
    cluster = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("shop", "app", impersonate=ACCOUNT))
    cluster.access.denials.append(Denial(user=DEPLOYER))
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world):
        row = await stage.state("one", "shop", "Failed", "Forbidden")
        assert "fleet cluster manifests one" in row.message


async def test_a_kind_that_the_hub_may_not_watch(stage: Stage) -> None:
    """The cluster says which kind, and which command prints the rights."""
    cluster = await stage.add_cluster("one")
    cluster.access.denials += [Denial(verb=verb, resource="configmaps", namespace="") for verb in ("list", "watch")]
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.until(lambda: [c for c in hub.clusters() if c.reason == "Forbidden"])
        assert "fleet cluster manifests one" in hub.clusters()[0].message


async def test_people_act_with_the_rights_of_the_app(stage: Stage) -> None:
    """A diff and a restart of a tenant's app can do no more than the tenant."""
    cluster = await stage.add_cluster("one", impersonate=ACCOUNT)
    stage.repository.commit("first", {"app/web.yaml": WEB.format(image="web:1")})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        cluster.access.denials.append(Denial(user=DEPLOYER, resource="deployments"))
        with pytest.raises(Forbidden, match=DEPLOYER):
            await hub.restart("one", "shop", kind="", namespace="", name="", actor=ADA)


async def test_what_an_app_may_not_contain_is_asked_of_nobody(stage: Stage) -> None:
    """Not one request is made about an object, or even a kind, that `allow` refuses."""
    cluster = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("shop", "app", allow={"namespaces": ["default"], "kinds": ["ConfigMap"]}))
    stray = config(name="stray").replace("namespace: default", "namespace: other")
    files = {"app/a.yaml": config(), "app/b.yaml": stray, "app/web.yaml": WEB.format(image="web:1")}
    stage.repository.commit("first", files)
    async with stage.running(stage.world):
        row = await stage.state("one", "shop", "Failed", "NotAllowed")
        assert "app/b.yaml" in row.message
        await stage.until(lambda: colour(cluster) == "red")
        await asyncio.sleep(120)
        assert not [r.path for r in cluster.requests if "/other/" in r.path or "deployments" in r.path]
