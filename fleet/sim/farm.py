"""Many simulated clusters at once: over TCP with kubeconfig files for the demo, in memory for tests in virtual time."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from fleet.sim.cluster import SimCluster
from fleet.sim.network import MemoryNetwork
from fleet.sim.program import free_port

_ATTEMPTS: Final = 5

Clusters = Mapping[str, SimCluster]
"""Clusters by name, in the order they were asked for."""


def memory_host(name: str) -> str:
    """Return the host of a cluster in a memory network; the port is 443."""
    return f"{name}.example"


@asynccontextmanager
async def tcp_farm(
    names: Iterable[str], directory: Path, *, seed: int = 0, nodes: int = 1, pace_s: float = 0.05, tls: bool = True
) -> AsyncIterator[Clusters]:
    """Serve clusters on loopback ports for the length of the block; `directory/NAME.kubeconfig` leads to each."""
    async with AsyncExitStack() as stack:
        clusters = {}
        for name in names:
            cluster = clusters[name] = SimCluster(name, seed=seed, nodes=nodes, pace_s=pace_s)
            stack.push_async_callback(cluster.close)
            await _serve(cluster, tls=tls)
            write_kubeconfig(cluster, directory)
        yield clusters


async def _serve(cluster: SimCluster, *, tls: bool) -> None:
    """Listen outside the ephemeral range, where no outgoing connection takes the port of a cluster that is down."""
    for _ in range(_ATTEMPTS):
        try:
            await cluster.serve_tcp(port=free_port(), tls=tls)
        except OSError:
            continue
        return
    await cluster.serve_tcp(tls=tls)


@asynccontextmanager
async def memory_farm(
    network: MemoryNetwork,
    names: Iterable[str],
    directory: Path | None = None,
    *,
    seed: int = 0,
    nodes: int = 1,
    pace_s: float = 0.05,
) -> AsyncIterator[Clusters]:
    """Serve clusters in a memory network, each at `memory_host(name)`; kubeconfig files go to `directory` if given."""
    async with AsyncExitStack() as stack:
        clusters = {}
        for name in names:
            cluster = clusters[name] = SimCluster(name, seed=seed, nodes=nodes, pace_s=pace_s)
            stack.push_async_callback(cluster.close)
            await cluster.register(network, memory_host(name))
            if directory is not None:
                write_kubeconfig(cluster, directory)
        yield clusters


def write_kubeconfig(cluster: SimCluster, directory: Path) -> Path:
    """Write a cluster's kubeconfig (JSON, which is YAML), readable by its owner only; return its path."""
    path = directory / f"{cluster.name}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(cluster.kubeconfig(), indent=2))
    return path
