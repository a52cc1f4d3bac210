"""`apply: report` means that nothing is written, whatever happens to the App."""

import asyncio

from tests.harness.fleet import app_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import colour, config, writes


async def test_a_report_only_app_that_is_removed_deletes_nothing(stage: Stage) -> None:
    """What it applied before stays and is shown, until its document says otherwise; then removing it prunes."""
    cluster = await stage.add_cluster("one")
    stage.declare("other.yaml", app_document("other", "other"))
    stage.repository.commit("first", {"app/a.yaml": config(), "other/b.yaml": config("blue", "other")})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"), ("one", "other"))
        stage.declare("apps.yaml", app_document("shop", "app", apply="report"))
        await asyncio.sleep(30)
        cluster.forget_requests()
        (stage.inventory / "apps.yaml").unlink()
        await asyncio.sleep(120)
        assert writes(cluster) == []
        assert colour(cluster) == "red"
        row = await stage.state("one", "shop", "Waiting", "ReportOnly")
        assert "onRemove: orphan" in row.message
        stage.declare("apps.yaml", app_document("shop", "app"))
        await stage.synced(("one", "shop"))
        (stage.inventory / "apps.yaml").unlink()
        await stage.until(lambda: [r.app for r in hub.targets()] == ["other"], timeout_s=120)
        assert colour(cluster) is None


async def test_a_report_only_app_that_wrote_nothing_leaves_no_trace(stage: Stage) -> None:
    """One that was never allowed to write is gone from the status when its document is."""
    cluster = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("shop", "app", apply="report"))
    stage.declare("other.yaml", app_document("other", "other"))
    stage.repository.commit("first", {"app/a.yaml": config(), "other/b.yaml": config("blue", "other")})
    async with stage.running(stage.world) as hub:
        await stage.state("one", "shop", "Waiting", "ReportOnly")
        (stage.inventory / "apps.yaml").unlink()
        await stage.until(lambda: [r.app for r in hub.targets()] == ["other"], timeout_s=120)
        assert colour(cluster) is None


async def test_a_report_only_app_may_let_go(stage: Stage) -> None:
    """With `onRemove: orphan` removing it takes our labels off, and deletes nothing."""
    cluster = await stage.add_cluster("one")
    stage.declare("other.yaml", app_document("other", "other"))
    stage.repository.commit("first", {"app/a.yaml": config(), "other/b.yaml": config("blue", "other")})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"), ("one", "other"))
        stage.declare("apps.yaml", app_document("shop", "app", apply="report", onRemove="orphan"))
        await asyncio.sleep(30)
        (stage.inventory / "apps.yaml").unlink()
        await stage.until(lambda: [r.app for r in hub.targets()] == ["other"], timeout_s=120)
        assert colour(cluster) == "red"
        assert "fleet/hub" not in (
            cluster.get("v1", "ConfigMap", "default", "settings")["metadata"].get("labels") or {}
        )
