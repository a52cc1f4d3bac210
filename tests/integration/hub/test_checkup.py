"""The daily audit in virtual time: what it finds, how often it looks, and that it writes nothing where nothing differs.

A day of a whole hub is long even in virtual time: the hours are proved with the schedule alone, the rest with short days.
"""

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from fleet.aio import spawn
from fleet.errors import Unreachable
from fleet.hub import checkup
from fleet.hub.checkup import Checkups
from fleet.object import TargetId
from fleet.sim.cluster import SimCluster
from fleet.store.checkup import CheckupStore
from fleet.store.migration import migrate
from tests.harness.fleet import app_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import colour, config, writes

HOUR_S = 3600.0
SHORT_S = 300.0
SHOP, BLOG = TargetId("one", "shop"), TargetId("one", "blog")


async def follow(stage: Stage, hours: float, *, fails: bool = False) -> list[tuple[str, float]]:
    """Run the schedule of two targets over the stage's database; return what it audited, and at which hour."""
    loop, made = asyncio.get_running_loop(), list[tuple[str, float]]()

    async def audit(target: TargetId) -> None:
        made.append((target.app, loop.time() / HOUR_S))
        await asyncio.sleep(30)
        if fails:
            raise Unreachable("cut off")

    store = CheckupStore(stage.world.database)
    checkups = Checkups("one", store, stage.world.clock, targets=lambda: [SHOP, BLOG], audit=audit)
    async with asyncio.TaskGroup() as group:
        task = spawn(group, "checkups", checkups.run())
        await asyncio.sleep(hours * HOUR_S)
        task.cancel()
    return made


@pytest.mark.parametrize("fails", [False, True])
async def test_each_target_is_audited_once_in_a_day(stage: Stage, fails: bool) -> None:
    """Ten days are ten audits of each target, 24 hours apart, at an hour of its own; one that fails is not made up for."""
    await migrate(stage.world.database)
    made = await follow(stage, 240, fails=fails)
    hours = {app: [hour for name, hour in made if name == app] for app in ("shop", "blog")}
    for found in hours.values():
        assert len(found) == 10
        assert all(23.9999 < later - earlier < 24.1 for earlier, later in pairwise(found))
    assert abs(hours["shop"][0] - hours["blog"][0]) > 0.1


async def test_restarts_make_it_neither_more_nor_less(stage: Stage) -> None:
    """A hub that is restarted every five hours audits once in a day all the same."""
    await migrate(stage.world.database)
    made = [each for _ in range(48) for each in await follow(stage, 5)]
    found = [hour for app, hour in made if app == "shop"]
    assert len(found) == 10
    assert all(23.9999 < later - earlier < 24.1 for earlier, later in pairwise(found))


@pytest.fixture
def short_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a day last five minutes."""
    monkeypatch.setattr(checkup, "EVERY", timedelta(seconds=SHORT_S))
    monkeypatch.setattr(checkup, "LOOK_S", 5.0)


def twist(cluster: SimCluster, value: str) -> None:
    """Change a value as admission does inside somebody else's request: nobody's managedFields tell of it."""
    found = cluster.get("v1", "ConfigMap", "default", "settings")
    changed = {**found, "data": {"colour": value}}
    cluster.state.storage.put(("", "configmaps"), ("default", "settings"), changed)


def version(cluster: SimCluster, name: str = "settings") -> str:
    """Return a ConfigMap's resourceVersion."""
    return str(cluster.get("v1", "ConfigMap", "default", name)["metadata"]["resourceVersion"])


def audits(cluster: SimCluster, name: str) -> list[Any]:
    """Reads and dry runs of one ConfigMap."""
    return [r for r in cluster.requests if r.path.endswith(f"/configmaps/{name}")]


@pytest.mark.usefixtures("short_days")
async def test_where_nothing_differs_nothing_is_written(stage: Stage) -> None:
    """An audit is one read and one dry run per object; the objects stay as they were."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {f"app/{n}.yaml": config(name=n) for n in "ab"})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        before = [version(cluster, name) for name in "ab"]
        cluster.forget_requests()
        await asyncio.sleep(2 * SHORT_S)
        for name in "ab":
            made = audits(cluster, name)
            assert [r.verb for r in made] == ["get", "patch"] * (len(made) // 2)
            assert len(made) in (2, 4)
            assert {r.query.get("dryRun") for r in made if r.verb == "patch"} == {"All"}
        assert [path for path in writes(cluster) if "/configmaps/" not in path] == []
        assert [version(cluster, name) for name in "ab"] == before


@pytest.mark.usefixtures("short_days")
async def test_what_nobody_took_is_found_and_repaired(stage: Stage) -> None:
    """A value that was changed beside all ownership is drift after a day at most, repaired by one write, and told."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        twist(cluster, "pink")
        await stage.until(lambda: colour(cluster) == "red", timeout_s=2 * SHORT_S)
        await stage.synced(("one", "shop"))
        repaired = version(cluster)
        await asyncio.sleep(2 * SHORT_S)
        assert version(cluster) == repaired
        [event] = [e for e in await hub.events(kind="drift") if e.reason == "AuditDrift"]
        assert ".data.colour" in event.message


@pytest.mark.usefixtures("short_days")
async def test_with_drift_report_it_is_shown_and_left(stage: Stage) -> None:
    """The target is Drifted for the reason AuditDrift until an audit finds it as Git says."""
    cluster = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("shop", "app", drift="report"))
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        twist(cluster, "pink")
        row = await stage.state("one", "shop", "Drifted", "AuditDrift", timeout_s=2 * SHORT_S)
        assert ".data.colour" in row.message
        assert colour(cluster) == "pink"
        twist(cluster, "red")
        await stage.synced(("one", "shop"), timeout_s=2 * SHORT_S)


@pytest.mark.usefixtures("short_days")
async def test_ignored_paths_are_left_to_others(stage: Stage) -> None:
    """What `ignore` names may have any value."""
    cluster = await stage.add_cluster("one")
    ignore = [{"kind": "ConfigMap", "paths": ["/data/colour"]}]
    stage.declare("apps.yaml", app_document("shop", "app", ignore=ignore))
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        twist(cluster, "pink")
        await asyncio.sleep(2 * SHORT_S)
        assert colour(cluster) == "pink"
        await stage.synced(("one", "shop"))
