"""A clone that is damaged on disk while the hub runs."""

import shutil

from tests.harness.fleet import app_document, environment_document, repository_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import colour, config


async def test_a_clone_damaged_under_a_running_hub_is_replaced(stage: Stage) -> None:
    """A render that finds the clone damaged has it fetched anew, without a new commit or a restart."""
    cluster = await stage.add_cluster("one")
    stage.declare("fleet.yaml", repository_document(stage.repository.path, interval="1h"), environment_document())
    stage.repository.commit("first", {"app/settings.yaml": config(), "other/settings.yaml": config("blue")})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        for objects in (stage.root / "data" / "git").glob("*/*/objects"):
            shutil.rmtree(objects)
            objects.mkdir()
        stage.declare("apps.yaml", app_document("shop", "other"))
        await stage.until(lambda: colour(cluster) == "blue", timeout_s=600)
        await stage.synced(("one", "shop"))
