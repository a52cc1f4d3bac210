"""These tests run in virtual time: a simulated cluster on a memory network, and a client of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from types import SimpleNamespace

import aiohttp
import pytest

from fleet.sim.cluster import SimCluster
from fleet.sim.loop import SimLoop, deterministic
from fleet.sim.network import MemoryNetwork, MemoryReach

HOST, PORT = "one.example", 443
FOREVER = aiohttp.ClientTimeout(total=None)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test below this directory runs in virtual time."""
    return {"virtual": SimLoop}


@pytest.fixture(autouse=True)
async def no_leaks() -> AsyncIterator[None]:
    """Keep real time and unseeded randomness out of the run."""
    with deterministic(asyncio.get_running_loop()):
        yield


@pytest.fixture
async def network() -> MemoryNetwork:
    """An empty memory network."""
    return MemoryNetwork(seed=1)


@pytest.fixture
async def cluster(network: MemoryNetwork) -> AsyncIterator[SimCluster]:
    """One cluster at one address of the network."""
    cluster = SimCluster("one", seed=1)
    await cluster.register(network, HOST, PORT)
    yield cluster
    await cluster.close()


@pytest.fixture
async def client(network: MemoryNetwork, cluster: SimCluster) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP session with the cluster, as its administrator."""
    connector = MemoryReach(network).connector(SimpleNamespace(host=HOST, port=PORT), limit=0)
    headers = {"Authorization": f"Bearer {cluster.token}"}
    async with aiohttp.ClientSession(cluster.url, connector=connector, headers=headers, timeout=FOREVER) as session:
        yield session
