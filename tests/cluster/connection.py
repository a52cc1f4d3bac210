"""Our own client on a real control plane, as the hub opens it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.clock import SystemClock
from fleet.kube.api import KubeApi
from fleet.kube.client import Client
from fleet.kube.credential import Credential, Impersonation, KubeconfigFile, load_credential
from fleet.kube.discovery import Discovery
from fleet.kube.gate import Gate
from fleet.kube.watch import Scope, WatchEvent, run_watch
from fleet.net.reach import DirectReach
from fleet.object import GroupKind, Manifest, ObjectKey, encode_canonical, parse_gvk
from fleet.sim.real import ControlPlane


@dataclass
class Connection:
    """An open client with what it discovered."""

    client: Client
    discovery: Discovery
    api: KubeApi

    @asynccontextmanager
    async def watching(self, kind: GroupKind, scope: Scope) -> AsyncIterator["Log"]:
        """Run a watch for the length of the block."""
        resource = self.discovery.resource(kind)
        assert resource is not None
        log = Log()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(
                run_watch(self.client, resource, scope, log.append, clock=self.client.clock), name="watch"
            )
            yield log
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@dataclass
class Log:
    """What a watch told, and a way to wait for it."""

    events: list[WatchEvent] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def append(self, event: WatchEvent) -> None:
        self.events.append(event)
        self.changed.set()

    async def until(self, ready: Callable[[list[WatchEvent]], object], timeout_s: float = 120.0) -> None:
        """Wait until the events satisfy `ready`."""
        async with asyncio.timeout(timeout_s):
            while not ready(self.events):
                self.changed.clear()
                await self.changed.wait()

    def names(self, kind: type[Any]) -> list[str]:
        """Names of the objects in events of one kind, in order."""
        return [event.observed.key.name for event in self.events if isinstance(event, kind)]


async def admin_credential(plane: ControlPlane, **options: Any) -> Credential:
    """The admin's kubeconfig, loaded as the hub does."""
    return await load_credential(KubeconfigFile(path=Path(plane.kubeconfig_path)), **options)


@asynccontextmanager
async def connect(
    plane: ControlPlane, credential: Credential | None = None, *, impersonate: Impersonation | None = None
) -> AsyncIterator[Connection]:
    """Open a client on a control plane, by default with the admin's kubeconfig."""
    clock = SystemClock()
    chosen = credential or await admin_credential(plane)
    async with Client(chosen, DirectReach(), Gate(clock), clock, cluster=plane.name) as client:
        discovery = Discovery(client)
        await discovery.refresh()
        yield Connection(client, discovery, KubeApi(client, discovery, impersonate=impersonate))


def manifest(body: dict[str, Any]) -> Manifest:
    """Make a manifest of a decoded object."""
    metadata = body["metadata"]
    gvk = parse_gvk(body["apiVersion"], body["kind"])
    key = ObjectKey(gvk.group, gvk.kind, metadata.get("namespace", ""), metadata["name"])
    return Manifest(key=key, version=gvk.version, body=encode_canonical(body), digest=b"")


def config_map(namespace: str, name: str, data: dict[str, str], **labels: str) -> dict[str, Any]:
    """Write a ConfigMap."""
    metadata = {"name": name, "namespace": namespace, **({"labels": labels} if labels else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
