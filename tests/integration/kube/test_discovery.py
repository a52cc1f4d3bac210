"""What is served, while servers come, go, lie and fall silent. In virtual time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from fleet.aio import spawn
from fleet.errors import Forbidden, KubeError, Unauthorized, Unreachable
from fleet.kube.discovery import Discovery, run_discovery
from fleet.object import GroupKind, Gvk
from fleet.sim.cluster import SimCluster
from fleet.sim.network import MemoryNetwork
from tests.integration.kube.conftest import HOST, PORT, Connection, Handler, open_client

Serve = Callable[[Handler], None]
CONFIG_MAP, WIDGET = GroupKind("", "ConfigMap"), GroupKind("example.com", "Widget")


def crd() -> dict[str, Any]:
    """Define Widget.example.com."""
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": names,
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


@asynccontextmanager
async def running(connection: Connection) -> AsyncIterator[list[int]]:
    """Keep discovery fresh for the length of the block; yields the generations that were announced."""
    announced: list[int] = []
    connection.discovery.on_change = lambda: announced.append(connection.discovery.generation)
    async with asyncio.TaskGroup() as group:
        task = spawn(group, "discovery", run_discovery(connection.discovery, connection.client))
        yield announced
        task.cancel()


async def test_a_new_kind_is_found_when_somebody_asks(cluster: SimCluster, connection: Connection) -> None:
    """A CRD shows within seconds of an invalidation, is announced once, and goes again when it is deleted."""
    async with running(connection) as announced:
        cluster.create(crd())
        connection.discovery.invalidate()
        await asyncio.sleep(5)
        assert connection.discovery.resource(WIDGET) is not None
        assert len(announced) == 1
        cluster.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "widgets.example.com")
        connection.discovery.invalidate()
        await asyncio.sleep(10)
        assert connection.discovery.resource(WIDGET) is None
        assert len(announced) == 2


async def test_a_new_kind_is_found_without_a_hint(cluster: SimCluster, connection: Connection) -> None:
    """Every ten minutes the server is asked, whoever forgot to say something."""
    async with running(connection):
        cluster.create(crd())
        await asyncio.sleep(800)
        assert connection.discovery.resource(WIDGET) is not None


async def test_idle_discovery_is_cheap(cluster: SimCluster, connection: Connection) -> None:
    """A quiet day costs two conditional requests every ten minutes and announces nothing."""
    async with running(connection) as announced:
        await asyncio.sleep(24 * 3600)
    assert announced == []
    assert 2 * 110 <= len(cluster.requests) <= 2 * 190


async def test_a_kind_that_comes_late_is_not_lost_behind_another(network: MemoryNetwork, serve: Serve) -> None:
    """Two definitions at once, one served five seconds after the other: both are found, by one invalidation."""
    served = [group("early.example", "Early")]

    async def handle(request: web.BaseRequest) -> web.Response:
        return aggregated(group("", "ConfigMap")) if request.path == "/api" else aggregated(*served)

    serve(handle)
    async with open_client(network) as client, asyncio.TaskGroup() as tasks:
        discovery = Discovery(client)
        running = spawn(tasks, "discovery", run_discovery(discovery, client))
        discovery.invalidate()
        await asyncio.sleep(5)
        served.append(group("example.com", "Widget"))
        await asyncio.sleep(10)
        assert set(discovery.kinds()) == {CONFIG_MAP, GroupKind("early.example", "Early"), WIDGET}
        running.cancel()


async def test_a_kind_that_is_missed_is_asked_for_less_and_less(network: MemoryNetwork, serve: Serve) -> None:
    """While a definition's kind is not served the server is asked again, ever later, at last as seldom as always."""
    asked = 0

    async def handle(request: web.BaseRequest) -> web.Response:
        nonlocal asked
        asked += request.path == "/apis"
        return aggregated(group("", "ConfigMap"))

    serve(handle)
    async with open_client(network) as client, asyncio.TaskGroup() as tasks:
        discovery = Discovery(client)
        discovery.is_missing = lambda: True
        running = spawn(tasks, "discovery", run_discovery(discovery, client))
        discovery.invalidate()
        await asyncio.sleep(60)
        assert asked > 6
        await asyncio.sleep(3600)
        before, asked = asked, 0
        assert before < 30
        await asyncio.sleep(3600)
        assert asked < 12
        running.cancel()


@pytest.mark.parametrize("code", [401, 403, 410, 500, 503])
async def test_a_refused_refresh_keeps_what_was_known(cluster: SimCluster, connection: Connection, code: int) -> None:
    """An error is the caller's; kinds never disappear because nobody could be asked."""
    kinds = connection.discovery.kinds()
    cluster.faults.fail(code, path="^/apis?$")
    with pytest.raises(KubeError):
        await connection.discovery.refresh()
    assert connection.discovery.kinds() == kinds
    cluster.faults.rules.clear()
    await connection.discovery.refresh()
    assert connection.discovery.kinds() == kinds


async def test_discovery_outlives_an_outage(cluster: SimCluster, connection: Connection) -> None:
    """While the server is down or hangs nothing is forgotten; what is new is found afterwards."""
    async with running(connection) as announced:
        cluster.die()
        connection.discovery.invalidate()
        await asyncio.sleep(3600)
        await cluster.revive()
        cluster.faults.hang(path="^/apis?$")
        await asyncio.sleep(3600)
        assert connection.discovery.resource(CONFIG_MAP) is not None
        assert announced == []
        cluster.faults.rules.clear()
        cluster.create(crd())
        await asyncio.sleep(1200)
        assert connection.discovery.resource(WIDGET) is not None


async def test_errors_are_typed(cluster: SimCluster, network: MemoryNetwork, connection: Connection) -> None:
    """Without rights, without credentials and without a server, the three are told apart."""
    async with open_client(network, "wrong") as stranger:
        with pytest.raises(Unauthorized):
            await Discovery(stranger).refresh()
    cluster.faults.fail(403, path="^/apis?$", times=1)
    with pytest.raises(Forbidden):
        await connection.discovery.refresh()
    network.conditions(HOST, PORT).hang = True
    cluster.die()
    with pytest.raises(Unreachable):
        await connection.discovery.refresh()


def aggregated(*groups: dict[str, Any]) -> web.Response:
    """Answer as a server with aggregated discovery."""
    return web.json_response({"kind": "APIGroupDiscoveryList", "items": list(groups)})


def group(name: str, kind: str, *, freshness: str = "Current", empty: bool = False) -> dict[str, Any]:
    """One group with one kind."""
    entry = {
        "resource": f"{kind.lower()}s",
        "responseKind": {"group": name, "version": "v1", "kind": kind},
        "scope": "Namespaced",
        "verbs": ["get", "list", "watch"],
    }
    version = {"version": "v1", "freshness": freshness, "resources": [] if empty else [entry]}
    return {"metadata": {"name": name}, "versions": [version]}


async def test_a_group_whose_server_is_down_is_kept(network: MemoryNetwork, serve: Serve) -> None:
    """An aggregated API whose own server does not answer keeps its kinds, is named, and comes back."""
    down = False

    async def handle(request: web.BaseRequest) -> web.Response:
        if request.path == "/api":
            return aggregated(group("", "ConfigMap"))
        return aggregated(group("metrics.example", "Sample", freshness="Stale" if down else "Current", empty=down))

    serve(handle)
    sample = GroupKind("metrics.example", "Sample")
    async with open_client(network) as client:
        discovery = Discovery(client)
        await discovery.refresh()
        assert (discovery.resource(sample) is not None, discovery.partial) == (True, frozenset())
        down = True
        await discovery.refresh()
        assert (discovery.resource(sample) is not None, discovery.partial) == (
            True,
            frozenset({"metrics.example"}),
        )
        down = False
        await discovery.refresh()
        assert (discovery.resource(sample) is not None, discovery.partial) == (True, frozenset())


async def test_old_servers_are_asked_group_by_group(network: MemoryNetwork, serve: Serve) -> None:
    """Where there is no aggregated document, one group that fails keeps what was known of it."""
    broken = False

    async def handle(request: web.BaseRequest) -> web.Response:
        match request.path:
            case "/api":
                return web.json_response({"kind": "APIVersions", "versions": ["v1"]})
            case "/apis":
                version = {"groupVersion": "example.com/v1", "version": "v1"}
                groups = [{"name": "example.com", "versions": [version], "preferredVersion": version}]
                return web.json_response({"kind": "APIGroupList", "groups": groups})
            case "/api/v1":
                return resources("configmaps", "ConfigMap")
            case _:
                return web.Response(status=503) if broken else resources("widgets", "Widget")

    def resources(name: str, kind: str) -> web.Response:
        entry = {"name": name, "kind": kind, "namespaced": True, "verbs": ["list", "watch"]}
        return web.json_response({"kind": "APIResourceList", "resources": [entry]})

    serve(handle)
    async with open_client(network) as client:
        discovery = Discovery(client)
        await discovery.refresh()
        assert discovery.kinds() == (CONFIG_MAP, WIDGET)
        broken = True
        await discovery.refresh()
        assert discovery.kinds() == (CONFIG_MAP, WIDGET)
        assert discovery.partial == {"example.com"}
        assert discovery.resource_for(Gvk("example.com", "v1", "Widget")) is not None


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"kind":"APIGroupDiscoveryList","items":[{"versions":7}]}', b"\xff"]
)
async def test_a_document_of_another_shape_forgets_nothing(network: MemoryNetwork, serve: Serve, body: bytes) -> None:
    """An answer from something else than an API server is an error, and what was known stays."""
    spoiled = False

    async def handle(request: web.BaseRequest) -> web.Response:
        if spoiled:
            return web.Response(body=body)
        return aggregated(group("", "ConfigMap") if request.path == "/api" else group("example.com", "Widget"))

    serve(handle)
    async with open_client(network) as client:
        discovery = Discovery(client)
        await discovery.refresh()
        spoiled = True
        with pytest.raises(KubeError):
            await discovery.refresh()
        assert set(discovery.kinds()) == {CONFIG_MAP, WIDGET}
