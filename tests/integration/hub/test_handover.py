"""Objects that move between apps of one repository, in one commit or over time."""

import asyncio
from dataclasses import replace

import pytest

from fleet.child import InlineWorkers, Job
from fleet.sim.cluster import SimCluster
from tests.harness.fleet import app_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import config


def uid(cluster: SimCluster, name: str) -> str | None:
    """The uid of a ConfigMap; None when it is absent."""
    found = cluster.find("v1", "ConfigMap", "default", name)
    return str(found["metadata"]["uid"]) if found is not None else None


class SlowWorkers(InlineWorkers):
    """Takes its time with whatever is rendered from a path."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path.encode()

    async def call(self, job: Job, payload: bytes, *, deadline_s: float) -> bytes:
        """Do a job, perhaps seconds later."""
        if job.function == "render" and self._path in payload:
            await asyncio.sleep(5)
        return await super().call(job, payload, deadline_s=deadline_s)


@pytest.mark.parametrize(("old", "new"), [("alpha", "omega"), ("omega", "alpha")])
async def test_a_file_moves_between_apps(stage: Stage, old: str, new: str) -> None:
    """A manifest that one commit moves from one app to another stays the same object throughout."""
    cluster = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("alpha", "alpha"), app_document("omega", "omega"))
    files = {
        f"{old}/moved.yaml": config(name="moved"),
        f"{old}/a.yaml": config(name="a"),
        f"{new}/b.yaml": config(name="b"),
    }
    stage.repository.commit("first", files)
    async with stage.running(replace(stage.world, workers=SlowWorkers(new))):
        await stage.synced(("one", old), ("one", new))
        before = uid(cluster, "moved")
        (stage.repository.path / old / "moved.yaml").unlink()
        revision = stage.repository.commit("move", {f"{new}/moved.yaml": config(name="moved")})
        await stage.synced(("one", old), ("one", new), revision=revision)
        await asyncio.sleep(120)
        assert uid(cluster, "moved") == before
        assert cluster.count("delete") == 0
        stage.repository.commit("empty", {f"{new}/b.yaml": config(name="b"), f"{old}/a.yaml": config("blue", "a")})
        await stage.synced(("one", old), ("one", new))


async def test_a_duplicate_is_taken_as_soon_as_it_is_let_go(stage: Stage) -> None:
    """An object that two apps render goes to the second when the first, slow to render, drops it; it is never deleted."""
    cluster = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("shop", "slow"), app_document("zoo", "zoo"))
    stage.repository.commit("first", {"slow/a.yaml": config(), "slow/b.yaml": config("red", "other")})
    async with stage.running(replace(stage.world, workers=SlowWorkers("slow"))):
        await stage.synced(("one", "shop"))
        stage.repository.commit("twice", {"zoo/a.yaml": config()})
        await stage.state("one", "zoo", "Failed", "Duplicate")
        before = uid(cluster, "settings")
        await asyncio.sleep(60)
        stage.repository.git("rm", "-q", "slow/a.yaml")
        stage.repository.commit("once")
        await stage.synced(("one", "zoo"), timeout_s=12)
        assert uid(cluster, "settings") == before
