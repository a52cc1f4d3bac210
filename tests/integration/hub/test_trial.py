"""What a person meets in the first hours: each of these once told them less than the truth."""

from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import colour, config


async def test_an_error_goes_with_the_object_it_is_about(stage: Stage) -> None:
    """When a refused manifest is taken out of Git, its error goes too, and what is wrong now is named."""
    await stage.add_cluster("one")
    bad = config().replace("name: settings", "name: B_b")
    stage.repository.commit("refused", {"app/a.yaml": config("red", "fine"), "app/b.yaml": bad})
    async with stage.running(stage.world):
        await stage.state("one", "shop", "Failed", "Invalid")
        lost = config().replace("namespace: default", "namespace: nowhere")
        stage.repository.commit("elsewhere", {"app/b.yaml": lost})
        row = await stage.state("one", "shop", "Waiting", timeout_s=30)
        assert "nowhere" in row.message
        assert "B_b" not in row.message


async def test_an_edit_of_the_inventory_is_an_event(stage: Stage) -> None:
    """Documents that come, change and go are named, so that the event log tells who got what since when."""
    await stage.add_cluster("one")
    stage.repository.commit("first", {"app/a.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        await stage.add_cluster("two")
        await stage.synced(("two", "shop"))
        (stage.inventory / "two.yaml").unlink()
        await stage.until(lambda: len(hub.clusters()) == 1)

        async def told() -> list[str]:
            return [e.message for e in await hub.events(kind="inventory") if e.reason == "InventoryChanged"]

        assert await stage.until(told) == ["added cluster two", "removed cluster two"]


async def test_a_kind_that_may_not_be_watched_fails_alone(stage: Stage) -> None:
    """A cluster that forbids one kind is Ready nevertheless; its reason names the kind; other objects are healed."""
    cluster = await stage.add_cluster("one")
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: default}\nstringData: {a: b}\n"
    stage.repository.commit("first", {"app/a.yaml": config(), "app/s.yaml": secret})
    cluster.faults.fail(403, path="/secrets")
    async with stage.running(stage.world) as hub:
        await stage.until(lambda: hub.clusters() and hub.clusters()[0].reason == "Forbidden")
        assert hub.clusters()[0].state == "Ready"
        assert "Secret" in hub.clusters()[0].message
        await stage.until(lambda: colour(cluster) == "red")
        cluster.kubectl().patch("ConfigMap", "settings", {"data": {"colour": "pink"}})
        await stage.until(lambda: colour(cluster) == "red")
