"""A whole hub in virtual time: simulated clusters, memory network, inline database and workers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
import yaml

from fleet.child import InlineWorkers
from fleet.hub.world import World
from fleet.sim.cluster import SimCluster
from fleet.sim.loop import SimLoop, deterministic
from fleet.sim.network import MemoryNetwork, MemoryReach
from fleet.store.database import InlineDatabase
from fleet.store.directory import hold_directory
from tests.harness.fleet import Fleet, app_document, cluster_document, environment_document, repository_document


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test below this directory runs in virtual time."""
    return {"virtual": SimLoop}


class VirtualClock:
    """The loop's wall time and a seeded generator."""

    def __init__(self) -> None:
        self.rng = Random(1)

    def now(self) -> datetime:
        """Return virtual wall time."""
        return cast("SimLoop", asyncio.get_running_loop()).now()


class PolledChanges:
    """Says once a second that something may have changed."""

    async def wait(self) -> None:
        """Return after a second."""
        await asyncio.sleep(1.0)


class Stage(Fleet):
    """A Fleet whose clusters are simulated; `world` is the outside of the hub."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.network = MemoryNetwork(seed=1)
        self.clusters: dict[str, SimCluster] = {}
        self.world: World

    async def add_cluster(self, name: str, **spec: Any) -> SimCluster:
        """Start a cluster and name it in the inventory."""
        cluster = SimCluster(name, seed=len(self.clusters) + 1)
        await cluster.register(self.network, f"{name}.example")
        self.clusters[name] = cluster
        self.point_to(name, **spec)
        return cluster

    def point_to(self, name: str, **spec: Any) -> None:
        """Write the Cluster document of a running cluster."""
        kubeconfig = self.root / f"{name}.kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(self.clusters[name].kubeconfig()))
        self.declare(f"{name}.yaml", cluster_document(name, kubeconfig, **spec))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """One repository, one environment, app `shop` from directory `app` on every cluster; no cluster yet."""
    made = Stage(tmp_path)
    made.declare("fleet.yaml", repository_document(made.repository.path), environment_document())
    made.declare("apps.yaml", app_document("shop", "app"))
    with (
        deterministic(asyncio.get_running_loop()),
        hold_directory(made.settings.data) as directory,
        closing(InlineDatabase(directory.database)) as database,
    ):
        made.world = World(
            clock=VirtualClock(),
            reach=MemoryReach(made.network),
            workers=InlineWorkers(),
            database=database,
            changes=PolledChanges(),
            directory=directory,
        )
        yield made
    for cluster in made.clusters.values():
        await cluster.close()
