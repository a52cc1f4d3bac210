"""What a real API server serves, and how new kinds are noticed."""

import asyncio
import json
from typing import Any

import pytest

from fleet.aio import spawn
from fleet.errors import NotFound
from fleet.kube import discovery as discovery_module
from fleet.kube.discovery import Discovery, run_discovery
from fleet.kube.gate import Priority
from fleet.object import GroupKind, Gvk
from fleet.sim.real import ControlPlane
from tests.cluster.connection import Connection, connect, manifest

WIDGET = GroupKind("fleet.example.com", "Widget")


def widget_crd(**properties: Any) -> dict[str, Any]:
    """Write a CRD with two versions."""
    schema = {
        "openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}
    }
    versions = [{"name": name, "served": True, "storage": name == "v1", "schema": schema} for name in ("v1", "v1beta1")]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.fleet.example.com"},
        "spec": {
            "group": "fleet.example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": versions,
        },
    }


async def until_served(c: Connection, wanted: bool) -> None:
    """Wait until discovery says that widgets are served, or not."""
    async with asyncio.timeout(60):
        while (c.discovery.resource(WIDGET) is not None) != wanted:
            c.discovery.invalidate()
            await asyncio.sleep(0.1)


async def test_new_kinds_are_noticed(plane: ControlPlane, namespace: str) -> None:
    """A CRD makes its kind known after `invalidate`, its schema hash changes with it, and its deletion makes it go."""
    async with connect(plane) as c, asyncio.TaskGroup() as group:
        running = spawn(group, "discovery", run_discovery(c.discovery, c.client))
        assert c.discovery.resource(WIDGET) is None
        body = {
            "apiVersion": "fleet.example.com/v1",
            "kind": "Widget",
            "metadata": {"name": "a", "namespace": namespace},
            "spec": {"size": 1},
        }
        try:
            with pytest.raises(NotFound):
                await c.api.apply(manifest(body), priority=Priority.USER)
            await plane.kubectl("apply", "-f", "-", stdin=json.dumps(widget_crd(size={"type": "integer"})))
            await until_served(c, True)
            resource = c.discovery.resource(WIDGET)
            assert resource is not None
            assert (resource.gvk.version, resource.plural, resource.namespaced) == ("v1", "widgets", True)
            assert set(resource.served_versions) == {"v1", "v1beta1"}
            other = c.discovery.resource_for(Gvk("fleet.example.com", "v1beta1", "Widget"))
            assert other is not None
            assert not other.preferred
            async with asyncio.timeout(60):
                while not (before := await c.discovery.schema_hash("fleet.example.com", "v1")):
                    await asyncio.sleep(0.1)
            await plane.kubectl("apply", "-f", "-", stdin=json.dumps(widget_crd(size={"type": "string"})))
            async with asyncio.timeout(60):
                while await c.discovery.schema_hash("fleet.example.com", "v1") == before:
                    await asyncio.sleep(0.1)
        finally:
            await plane.kubectl("delete", "crd", "widgets.fleet.example.com", "--ignore-not-found")
        await until_served(c, False)
        running.cancel()


async def test_unchanged_discovery_is_not_sent_again(plane: ControlPlane) -> None:
    """A second refresh is answered by 304 and changes nothing."""
    async with connect(plane) as c:
        before = c.discovery.generation
        reply = await c.client.request(
            "GET",
            "/apis",
            accept=discovery_module.AGGREGATED,
            headers={"If-None-Match": c.discovery._documents["/apis"].etag},
            priority=Priority.USER,
        )
        assert reply.status == 304
        await c.discovery.refresh()
        assert c.discovery.generation == before


async def test_old_documents_say_the_same(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without the aggregated document is read group by group, with equal results."""
    async with connect(plane) as c:
        monkeypatch.setattr(discovery_module, "AGGREGATED", "application/json")
        old = Discovery(c.client)
        await old.refresh()
        assert set(old.kinds()) == set(c.discovery.kinds())
        for kind in old.kinds():
            before, now = old.resource(kind), c.discovery.resource(kind)
            assert before is not None
            assert now is not None
            assert (before.gvk, before.plural, before.namespaced) == (now.gvk, now.plural, now.namespaced)
            assert before.subresources == now.subresources
            assert before.verbs == now.verbs
