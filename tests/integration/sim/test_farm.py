"""Sets of simulated clusters: over TLS with kubeconfig files, and in memory."""

import asyncio
import json
import ssl
import stat
from base64 import b64decode
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fleet.sim.cluster import SimCluster
from fleet.sim.farm import memory_farm, memory_host, tcp_farm
from fleet.sim.loop import run_virtual
from fleet.sim.network import MemoryNetwork, MemoryReach

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}, "data": {}}


def read_kubeconfig(path: Path) -> tuple[str, str, ssl.SSLContext | None]:
    """URL, token and trust of a kubeconfig file."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    config: Any = json.loads(path.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    ca = cluster.get("certificate-authority-data")
    context = ssl.create_default_context(cadata=b64decode(ca).decode()) if ca else None
    return cluster["server"], user["token"], context


async def fetch(path: Path, what: str) -> Any:
    """GET through a kubeconfig file, on a connection of its own."""
    url, token, context = read_kubeconfig(path)
    connector = aiohttp.TCPConnector(ssl=context or True, force_close=True)
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url + what, headers=headers) as reply:
        return await reply.json()


async def test_clusters_over_tls(tmp_path: Path) -> None:
    """Each kubeconfig leads to its own cluster."""
    async with tcp_farm(["one", "two"], tmp_path) as clusters:
        clusters["two"].create(CONFIG_MAP)
        path = "/api/v1/namespaces/default/configmaps/a"
        replies = [await fetch(tmp_path / f"{name}.kubeconfig", path) for name in clusters]
        assert [reply.get("reason", "found") for reply in replies] == ["NotFound", "found"]


async def test_a_cluster_dies_and_comes_back(tmp_path: Path) -> None:
    """A dead cluster refuses connections; back again, it has its address and its objects."""
    async with tcp_farm(["one"], tmp_path) as clusters:
        cluster, kubeconfig = clusters["one"], tmp_path / "one.kubeconfig"
        cluster.create(CONFIG_MAP)
        url = cluster.url
        cluster.die()
        with pytest.raises(aiohttp.ClientConnectorError):
            await fetch(kubeconfig, "/version")
        await cluster.revive()
        assert cluster.url == url
        found = await fetch(kubeconfig, "/api/v1/namespaces/default/configmaps/a")
        assert found["metadata"]["name"] == "a"


def test_clusters_in_memory(tmp_path: Path) -> None:
    """In memory a cluster is reached by its name, in virtual time, whatever the network does to it."""

    async def play() -> tuple[list[str], float]:
        loop = asyncio.get_running_loop()
        network = MemoryNetwork(seed=1)
        async with memory_farm(network, ["one", "two"], tmp_path) as clusters:
            network.conditions(memory_host("two"), 443).latency_s = 10.0
            return [await _uid_of(network, cluster) for cluster in clusters.values()], loop.time()

    uids, seconds = run_virtual(play())
    assert len(set(uids)) == 2
    assert seconds >= 40.0
    assert read_kubeconfig(tmp_path / "one.kubeconfig")[0] == "http://one.example:443"


async def _uid_of(network: MemoryNetwork, cluster: SimCluster) -> str:
    connector = MemoryReach(network).connector(_At(memory_host(cluster.name)), limit=1)
    headers, url = {"Authorization": f"Bearer {cluster.token}"}, f"{cluster.url}/api/v1/namespaces/kube-system"
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url, headers=headers) as reply:
        return str((await reply.json())["metadata"]["uid"])


class _At:
    """An address of the memory network."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.port = 443
