"""What `fleet diff` gets from a hub, for objects that fleet leaves as they are."""

from fleet.hub.view import PlannedRow, SyncRequest
from tests.harness.fleet import ADA, app_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import config

OPTED_OUT = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: default, annotations: {fleet/reconcile: disabled}}
data: {colour: red}
"""


def found(rows: list[PlannedRow]) -> list[tuple[str, str, list[tuple[str, str, str]]]]:
    """Cut rows down to action, reason and fields."""
    return [(r.action, r.reason, [(f.path, f.live, f.desired) for f in r.fields]) for r in rows]


async def test_drift_that_is_only_reported_is_told_once_per_field(stage: Stage) -> None:
    """A changed value and an added one have a line each, though nothing will be written."""
    stage.declare("apps.yaml", app_document("shop", "app", drift="report"))
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        cluster.kubectl().patch("ConfigMap", "settings", {"data": {"colour": "pink", "size": "1"}})
        await stage.state("one", "shop", "Drifted")
        (row,) = found(list(await hub.diff("one", "shop")))
        assert row[:2] == ("skip", "Drifted")
        assert sorted(row[2]) == [(".data.colour", '"pink"', '"red"'), (".data.size", "(added)", "")]


async def test_an_object_that_opted_out_differs_only_when_it_was_changed(stage: Stage) -> None:
    """The annotation that ends writing is no difference by itself; a changed value is."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        second = stage.repository.commit("second", {"app/settings.yaml": OPTED_OUT})
        await stage.until(lambda: (row := stage.row("one", "shop")) and row.desired_revision == second)
        await stage.until(lambda: _reason(stage) == "OptedOut")
        assert found(list(await hub.diff("one", "shop"))) == [("skip", "OptedOut", [])]
        cluster.kubectl().patch("ConfigMap", "settings", {"data": {"colour": "pink"}})
        rows = found(list(await hub.diff("one", "shop")))
        assert rows == [("skip", "OptedOut", [(".data.colour", '"pink"', '"red"')])]


def _reason(stage: Stage) -> str:
    detail = stage.hub.target("one", "shop")
    return detail.objects[0].reason if detail is not None and detail.objects else ""


async def test_an_object_that_may_not_be_written_differs(stage: Stage) -> None:
    """The row says what would be done, and why the server would refuse it."""
    cluster = await stage.add_cluster("one")
    cluster.faults.fail(403, verb="patch", path="configmaps/settings")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.state("one", "shop", "Failed")
        (row,) = await hub.diff("one", "shop")
        assert (row.action, row.reason) == ("create", "Absent")
        assert "the API server would refuse it" in row.message


async def test_a_repository_that_cannot_be_fetched_is_failed_when_sync_returns(stage: Stage) -> None:
    """Whoever waits for a sync can tell at once that nothing new came."""
    await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        stage.repository.path.rename(stage.root / "away")
        assert [row.state for row in await hub.sync(SyncRequest(app="shop"), ADA)] == ["Synced"]
        assert [row.state for row in hub.status().repositories] == ["Failed"]
