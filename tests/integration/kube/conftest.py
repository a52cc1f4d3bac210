"""Our client on a simulated API server, in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any, cast

import pytest
from aiohttp import web

from fleet.aio import spawn
from fleet.kube.api import KubeApi
from fleet.kube.client import Client
from fleet.kube.credential import Credential, StaticToken
from fleet.kube.discovery import Discovery
from fleet.kube.gate import Gate
from fleet.kube.watch import Scope, WatchEvent, run_watch
from fleet.object import GroupKind, Manifest, ObjectKey, encode_canonical, parse_gvk
from fleet.sim.cluster import SimCluster
from fleet.sim.loop import SimLoop, deterministic
from fleet.sim.network import MemoryNetwork, MemoryReach

HOST, PORT = "one.example", 443


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test below this directory runs in virtual time."""
    return {"virtual": SimLoop}


@pytest.fixture(autouse=True)
async def no_leaks() -> AsyncIterator[None]:
    """Keep real time and unseeded randomness out of the run."""
    with deterministic(asyncio.get_running_loop()):
        yield


class VirtualClock:
    """The loop's wall time and a seeded generator."""

    def __init__(self) -> None:
        self.rng = Random(1)

    def now(self) -> datetime:
        return cast("SimLoop", asyncio.get_running_loop()).now()


@dataclass
class Log:
    """What a watch told, and a way to wait for it."""

    events: list[WatchEvent] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def append(self, event: WatchEvent) -> None:
        self.events.append(event)
        self.changed.set()

    async def until(self, ready: Callable[[list[WatchEvent]], object], timeout_s: float = 3600.0) -> None:
        """Wait until the events satisfy `ready`."""
        async with asyncio.timeout(timeout_s):
            while not ready(self.events):
                self.changed.clear()
                await self.changed.wait()

    def count(self, kind: type[Any]) -> int:
        """How often one kind of event was told."""
        return sum(isinstance(event, kind) for event in self.events)

    def names(self, kind: type[Any]) -> list[str]:
        """Names of the objects in events of one kind, in order."""
        return [event.observed.key.name for event in self.events if isinstance(event, kind)]


@dataclass
class Connection:
    """An open client with what it discovered."""

    client: Client
    discovery: Discovery
    api: KubeApi
    gate: Gate

    @asynccontextmanager
    async def watching(self, kind: GroupKind, scope: Scope | None = None) -> AsyncIterator[Log]:
        """Run a watch for the length of the block."""
        resource = self.discovery.resource(kind)
        assert resource is not None
        log = Log()
        async with asyncio.TaskGroup() as group:
            running = run_watch(self.client, resource, scope or Scope(), log.append, clock=self.client.clock)
            task = spawn(group, "watch", running)
            yield log
            task.cancel()


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


@asynccontextmanager
async def open_client(network: MemoryNetwork, token: str = "", **options: Any) -> AsyncIterator[Client]:
    """Open a client on whatever listens at the address."""
    clock = VirtualClock()
    credential = Credential(
        server=f"http://{HOST}:{PORT}", token=StaticToken(f"Bearer {token}") if token else None, **options
    )
    async with Client(credential, MemoryReach(network), Gate(clock), clock, cluster="one") as client:
        yield client


@pytest.fixture
async def connection(network: MemoryNetwork, cluster: SimCluster) -> AsyncIterator[Connection]:
    """A client of the cluster, as its administrator, with discovery done and the request log empty."""
    async with open_client(network, cluster.token) as client:
        discovery = Discovery(client)
        await discovery.refresh()
        cluster.forget_requests()
        yield Connection(client, discovery, KubeApi(client, discovery), client.gate)


Handler = Callable[[web.BaseRequest], Any]


@pytest.fixture
def serve(network: MemoryNetwork) -> Callable[[Handler], None]:
    """Put a hand-written server at the address: for replies that no API server would give."""

    def listen(handler: Handler) -> None:
        network.listen(HOST, PORT, web.Server(handler, access_log=None))

    return listen


def manifest(body: dict[str, Any], **options: Any) -> Manifest:
    """Make a manifest of a decoded object."""
    metadata = body["metadata"]
    gvk = parse_gvk(body["apiVersion"], body["kind"])
    key = ObjectKey(gvk.group, gvk.kind, metadata.get("namespace", ""), metadata["name"])
    return Manifest(key=key, version=gvk.version, body=encode_canonical(body), digest=b"", **options)


def config_map(name: str, **data: str) -> dict[str, Any]:
    """Write a ConfigMap in `default`."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}
