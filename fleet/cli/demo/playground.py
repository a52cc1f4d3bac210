"""The clusters of the demo: simulated ones in this process, or real kube-apiservers where their binaries are."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fleet.aio import spawn
from fleet.sim.cluster import SimCluster
from fleet.sim.pod import Rules, run_pods
from fleet.sim.real import ControlPlane, rack


class Playground(Protocol):
    """Clusters by name, and what a person does to them behind fleet's back."""

    names: Sequence[str]

    def kubeconfig(self, name: str) -> Mapping[str, Any]:
        """Return an administrator's kubeconfig."""
        ...

    async def scale(self, name: str, namespace: str, deployment: str, replicas: int) -> None:
        """Scale a Deployment as kubectl does."""
        ...

    async def image(self, name: str, namespace: str, deployment: str) -> str:
        """Return the image that a Deployment runs; empty when there is none."""
        ...

    async def secret(self, name: str, namespace: str, secret: str, item: str) -> str:
        """Return the text of an item of a Secret; empty when there is none."""
        ...

    async def stop(self, name: str) -> None:
        """Make a cluster's API server unreachable; its content stays."""
        ...

    async def start(self, name: str) -> None:
        """Let a stopped API server answer again."""
        ...


class SimPlayground:
    """Simulated clusters on loopback, over TLS, so that kubectl may look at them too."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._clusters = {name: SimCluster(name, seed=number) for number, name in enumerate(names, 1)}

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, names: Sequence[str]) -> AsyncIterator["SimPlayground"]:
        """Serve the clusters for the length of the block."""
        playground = cls(names)
        try:
            for cluster in playground._clusters.values():
                await cluster.serve_tcp(tls=True)
            yield playground
        finally:
            for cluster in playground._clusters.values():
                await cluster.close()

    def kubeconfig(self, name: str) -> Mapping[str, Any]:
        """Return an administrator's kubeconfig."""
        return self._clusters[name].kubeconfig()

    async def scale(self, name: str, namespace: str, deployment: str, replicas: int) -> None:
        """Scale a Deployment as kubectl does."""
        self._clusters[name].kubectl(namespace).scale("Deployment", deployment, replicas)

    async def image(self, name: str, namespace: str, deployment: str) -> str:
        """Return the image that a Deployment runs; empty when there is none."""
        found = self._clusters[name].find("apps/v1", "Deployment", namespace, deployment)
        return _image_of(found) if found is not None else ""

    async def secret(self, name: str, namespace: str, secret: str, item: str) -> str:
        """Return the text of an item of a Secret; empty when there is none."""
        found = self._clusters[name].find("v1", "Secret", namespace, secret)
        return _item_of(found, item) if found is not None else ""

    async def stop(self, name: str) -> None:
        """Make a cluster's API server unreachable; its content stays."""
        self._clusters[name].die()

    async def start(self, name: str) -> None:
        """Let a stopped API server answer again."""
        await self._clusters[name].revive()


class RealPlayground:
    """Real kube-apiservers with controller managers; only kubelets are played."""

    def __init__(self, names: Sequence[str], planes: Sequence[ControlPlane]) -> None:
        self.names = names
        self._planes = dict(zip(names, planes, strict=True))

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, names: Sequence[str], binaries: Path, root: Path) -> AsyncIterator["RealPlayground"]:
        """Run the clusters for the length of the block; four seconds of a core each to start."""
        async with rack(binaries, root) as servers:
            planes = await servers.grow(len(names))
            async with asyncio.TaskGroup() as group:
                kubelets = [
                    spawn(group, f"pods/{p.name}", run_pods(p.url, ssl_context=p.ssl_context(), rules=Rules()))
                    for p in planes
                ]
                try:
                    yield cls(names, planes)
                finally:
                    for kubelet in kubelets:
                        kubelet.cancel()

    def kubeconfig(self, name: str) -> Mapping[str, Any]:
        """Return an administrator's kubeconfig."""
        return self._planes[name].kubeconfig()

    async def scale(self, name: str, namespace: str, deployment: str, replicas: int) -> None:
        """Scale a Deployment with kubectl."""
        await self._planes[name].kubectl("scale", f"deployment/{deployment}", f"--replicas={replicas}", "-n", namespace)

    async def image(self, name: str, namespace: str, deployment: str) -> str:
        """Return the image that a Deployment runs; empty when there is none."""
        command = ("get", "deployment", deployment, "-n", namespace, "-o", "json", "--ignore-not-found")
        shown = await self._planes[name].kubectl(*command)
        return _image_of(json.loads(shown)) if shown.strip() else ""

    async def secret(self, name: str, namespace: str, secret: str, item: str) -> str:
        """Return the text of an item of a Secret; empty when there is none."""
        command = ("get", "secret", secret, "-n", namespace, "-o", "json", "--ignore-not-found")
        shown = await self._planes[name].kubectl(*command)
        return _item_of(json.loads(shown), item) if shown.strip() else ""

    async def stop(self, name: str) -> None:
        """End a cluster's API server; etcd keeps its content."""
        await self._planes[name].stop()

    async def start(self, name: str) -> None:
        """Start the API server again, at the same address."""
        await self._planes[name].start()


def _image_of(deployment: Mapping[str, Any]) -> str:
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def _item_of(secret: Mapping[str, Any], item: str) -> str:
    return base64.b64decode(secret["data"].get(item, "")).decode()
