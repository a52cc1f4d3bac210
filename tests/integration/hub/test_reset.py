"""A person who deletes what the hub keeps in a cluster for itself."""

from tests.harness.fleet import app_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import colour, config


async def test_a_deleted_fleet_system_comes_back_and_work_goes_on(stage: Stage) -> None:
    """With a removal under way and namespace fleet-system deleted, the session begins again and repairs as before."""
    cluster = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("shop", "app"))
    stage.declare("more.yaml", app_document("more", "more"))
    stage.repository.commit("first", {"app/a.yaml": config(), "more/b.yaml": config("blue", "more")})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"), ("one", "more"))
        (stage.inventory / "more.yaml").unlink()
        cluster.delete("v1", "Namespace", "", "fleet-system")
        await stage.until(lambda: colour(cluster, "more") is None, timeout_s=300)
        cluster.kubectl().delete("ConfigMap", "settings")
        await stage.until(lambda: colour(cluster) == "red", timeout_s=300)
        await stage.until(
            lambda: cluster.find("coordination.k8s.io/v1", "Lease", "fleet-system", "fleet-hub"), timeout_s=300
        )
        revision = stage.repository.commit("green", {"app/a.yaml": config("green")})
        await stage.synced(("one", "shop"), revision=revision, timeout_s=300)
