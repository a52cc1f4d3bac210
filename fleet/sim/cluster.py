"""A simulated cluster as tests, benches and the demo hold it in their hands.

cluster = SimCluster("dev-1", seed=1)
url = await cluster.serve_tcp()
cluster.kubectl("shop").scale("Deployment", "web", 5)
await cluster.close()
"""

import asyncio
import base64
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

from aiohttp import web

from fleet.sim import budget, kubelet, machinery, schema, workload
from fleet.sim.access import ADMIN, Access
from fleet.sim.controller import Engine
from fleet.sim.deletion import delete
from fleet.sim.fault import Faults
from fleet.sim.kubectl import Kubectl
from fleet.sim.loop import SimLoop
from fleet.sim.network import MemoryNetwork
from fleet.sim.reading import read, read_list
from fleet.sim.representation import encode
from fleet.sim.request import Request, Target
from fleet.sim.resource import Registry, Resource, builtin_resources
from fleet.sim.server import ApiServer, Logged
from fleet.sim.state import State
from fleet.sim.storage import Backup, Object, Storage
from fleet.sim.tls import Tls
from fleet.sim.writing import Written, create, patch, update

APPLY: Final = "application/apply-patch+yaml"
_NAMESPACES: Final = ("default", "kube-system", "kube-public", "kube-node-lease")


@dataclass(slots=True)
class _TcpDoor:
    host: str
    port: int
    listener: web.Server
    context: ssl.SSLContext | None = None
    socket: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://{self.host}:{self.port}"

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self.socket = await loop.create_server(self.listener, self.host, self.port, ssl=self.context)
        self.port = self.socket.sockets[0].getsockname()[1]

    def shut(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        for connection in self.listener.connections:
            if connection.transport is not None:
                connection.transport.abort()


@dataclass(slots=True)
class _MemoryDoor:
    host: str
    port: int
    listener: web.Server
    network: MemoryNetwork

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def open(self) -> None:
        self.network.listen(self.host, self.port, self.listener)

    def shut(self) -> None:
        self.network.unlisten(self.host, self.port)
        self.network.cut(self.host, self.port)


class SimCluster:
    """One API server with its controllers, and everything a test may want to see or break.

    Args:
        name: Name in the kubeconfig and in the content of the cluster (uids depend on it and on `seed`).
        seed: Seed of ids, names and controller timing.
        clock: Wall time; virtual in a `SimLoop`, else real, unless given.
        window: Changes kept per kind; an older watch is 410.
        nodes: How many nodes there are, for DaemonSets.
        pace_s: How long a pod takes from one step of its life to the next.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int = 0,
        clock: Callable[[], datetime] | None = None,
        window: int = 4096,
        nodes: int = 1,
        pace_s: float = 0.05,
    ) -> None:
        self.name = name
        self.access = Access(tokens={f"{name}-admin-token": ADMIN})
        self.faults = Faults()
        self.tls = Tls(name)
        registry = Registry()
        self.state = State(
            name=name,
            now=clock or _clock(),
            rng=Random(f"{name}/{seed}"),
            storage=Storage(window=window),
            registry=registry,
        )
        for resource in builtin_resources():
            registry.add(resource)
            path = (resource.group, resource.version, resource.kind)
            self.state.schemas[path] = schema.builtin(*path)
        self.server = ApiServer(self.state, self.access, self.faults)
        self.controllers = Engine(
            self.state,
            [*machinery.triggers(), *workload.triggers(), *budget.triggers(), *kubelet.triggers()],
            pace_s=pace_s,
        )
        self._doors: list[_TcpDoor | _MemoryDoor] = []
        self._furnish(nodes)

    # Reaching it.

    async def serve_tcp(self, host: str = "127.0.0.1", port: int = 0, *, tls: bool = False) -> str:
        """Listen on a TCP port (0: any free one) and return the URL.

        Without TLS kubectl sends no token and so gets 401; other clients do.
        """
        context = self.tls.server_context(host) if tls else None
        door = _TcpDoor(host, port, self.server.listener(), context)
        await door.open()
        self._doors.append(door)
        return self.url

    async def register(self, network: MemoryNetwork, host: str, port: int = 443) -> str:
        """Listen at an address of a memory network and return the URL."""
        door = _MemoryDoor(host, port, self.server.listener(), network)
        await door.open()
        self._doors.append(door)
        return self.url

    @property
    def url(self) -> str:
        """The last address served."""
        return self._doors[-1].url

    @property
    def token(self) -> str:
        """A bearer token of the cluster's administrator."""
        return next(token for token, user in self.access.tokens.items() if user == ADMIN)

    def kubeconfig(self) -> dict[str, Any]:
        """Return a kubeconfig document for the last address served, with the administrator's token."""
        cluster = {"server": self.url}
        if self.url.startswith("https"):
            cluster["certificate-authority-data"] = base64.b64encode(self.tls.authority.cert_pem).decode()
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": self.name, "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "admin", "context": {"cluster": self.name, "user": "admin"}}],
            "current-context": "admin",
        }

    def die(self) -> None:
        """Drop every connection and accept none, keeping all data."""
        for door in self._doors:
            door.shut()

    async def revive(self) -> None:
        """Accept connections again, at the same addresses."""
        for door in self._doors:
            await door.open()

    async def close(self) -> None:
        """Stop serving and stop the controllers."""
        self.controllers.stop()
        self.die()
        for door in self._doors:
            await door.listener.shutdown(0)
        self._doors.clear()

    def cut_watches(self) -> None:
        """Break every watch stream in the middle of a line."""
        self.server.cut_watches()

    def compact(self) -> None:
        """Forget history: watches resumed from before now are 410."""
        self.state.storage.compact()

    def backup(self) -> Backup:
        """Return the content, for `restore`."""
        return self.state.storage.backup()

    def restore(self, backup: Backup) -> None:
        """Put a backup back as a restored etcd does: versions go back and nobody is told."""
        self.state.storage.restore(backup)

    @property
    def requests(self) -> Sequence[Logged]:
        """The requests served so far, oldest first."""
        return self.server.requests

    def forget_requests(self) -> None:
        """Empty the log of requests."""
        self.server.requests.clear()

    def count(self, *verbs: str, manager: str = "") -> int:
        """Return how many logged requests had one of the verbs (any, if none is given) and this manager."""
        return sum(
            1
            for logged in self.server.requests
            if (not verbs or logged.verb in verbs) and (not manager or logged.manager == manager)
        )

    # Acting on it directly, as an administrator, without HTTP.

    def kubectl(self, namespace: str = "default") -> Kubectl:
        """Return a person with kubectl."""
        return Kubectl(self, namespace)

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object:
        """Return an object. Raises ApiError (404)."""
        return read(self.state, self._request("get", (api_version, kind), (namespace, name)))

    def find(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        """Return an object, or None."""
        resource = self._resource(api_version, kind)
        return self.state.storage.get(resource.collection, (namespace if resource.namespaced else "", name))

    def list(self, api_version: str, kind: str, namespace: str = "", *, labels: str = "") -> list[Object]:
        """Return the objects of a kind, of one namespace or all, picked by a label selector."""
        query = {"labelSelector": labels} if labels else {}
        items: list[Object] = read_list(
            self.state, self._request("list", (api_version, kind), (namespace, ""), query=query)
        )["items"]
        return items

    def create(self, obj: Object, *, manager: str = "test", user_agent: str = "") -> Object:
        """Create an object. Raises ApiError."""
        where = (obj["metadata"].get("namespace", ""), "")
        kind = (obj["apiVersion"], obj["kind"])
        return self.call("create", kind, where, obj, query={"fieldManager": manager}, user_agent=user_agent)

    def replace(self, obj: Object, *, manager: str = "test", subresource: str = "") -> Object:
        """Replace an object, or with a subresource its status. Raises ApiError."""
        where = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        kind = (obj["apiVersion"], obj["kind"])
        return self.call("update", kind, where, obj, subresource=subresource, query={"fieldManager": manager})

    def apply(self, obj: Object, *, manager: str = "test", force: bool = False, user_agent: str = "") -> Object:
        """Apply an object server-side. Raises ApiError."""
        where = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        kind = (obj["apiVersion"], obj["kind"])
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        return self.call("patch", kind, where, obj, media=APPLY, query=query, user_agent=user_agent)

    def patch_as(
        self, api_version: str, kind: str, namespace: str, name: str, body: Any, *, manager: str, subresource: str = ""
    ) -> Object:
        """Send a JSON merge patch (or with a list a JSON patch) under a manager's name. Raises ApiError."""
        media = "application/json-patch+json" if isinstance(body, list) else "application/merge-patch+json"
        where, query = (namespace, name), {"fieldManager": manager}
        return self.call("patch", (api_version, kind), where, body, media=media, subresource=subresource, query=query)

    def delete(self, api_version: str, kind: str, namespace: str, name: str, **options: Any) -> Object:
        """Delete an object; `options` are fields of DeleteOptions. Raises ApiError."""
        return self.call("delete", (api_version, kind), (namespace, name), options)

    def call(
        self,
        verb: str,
        kind: tuple[str, str],
        where: tuple[str, str],
        body: Any = None,
        *,
        media: str = "application/json",
        subresource: str = "",
        query: Mapping[str, str] | None = None,
        user_agent: str = "",
    ) -> Object:
        """Do one write as its request would. `kind` is (apiVersion, kind), `where` (namespace, name)."""
        request = self._request(
            verb, kind, where, body, media=media, subresource=subresource, query=query, user_agent=user_agent
        )
        if verb == "delete":
            return delete(self.state, request)
        write: Callable[[State, Request], Written] = {"create": create, "update": update, "patch": patch}[verb]
        return write(self.state, request).obj

    def kind(self, text: str) -> tuple[str, str]:
        """Return (apiVersion, kind) for ``Deployment`` or ``apps/v1/Deployment``."""
        api_version, _, kind = text.rpartition("/")
        if api_version:
            return api_version, kind
        found = next((r for r in self.state.registry.collections() if r.kind == kind), None)
        if found is None:
            raise LookupError(f"{self.name} serves no kind {text}")
        return found.api_version, kind

    def _request(
        self,
        verb: str,
        kind: tuple[str, str],
        where: tuple[str, str],
        body: Any = None,
        *,
        media: str = "application/json",
        subresource: str = "",
        query: Mapping[str, str] | None = None,
        user_agent: str = "",
    ) -> Request:
        resource = self._resource(*kind)
        namespace = where[0] if resource.namespaced else ""
        return Request(
            verb=verb,
            target=Target(resource=resource, namespace=namespace, name=where[1], subresource=subresource),
            query=query or {},
            user=ADMIN,
            user_agent=user_agent or "sim",
            content_type=media,
            body=b"" if body is None else encode(body),
        )

    def _resource(self, api_version: str, kind: str) -> Resource:
        resource = self.state.registry.find_kind(api_version, kind)
        if resource is None:
            raise LookupError(f"{self.name} serves no {kind} in {api_version}")
        return resource

    def _furnish(self, nodes: int) -> None:
        for name in _NAMESPACES:
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for number in range(nodes):
            self.create(_node(f"node-{number + 1}"))
        self.controllers.settle()
        self.compact()


def _clock() -> Callable[[], datetime]:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    return loop.now if isinstance(loop, SimLoop) else lambda: datetime.now(UTC)


def _node(name: str) -> Object:
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"conditions": [ready], "capacity": {"cpu": "8", "memory": "32Gi", "pods": "110"}},
    }
