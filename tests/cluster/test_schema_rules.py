"""Definitions that change under their objects, on a real API server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fleet.kube.gate import Priority
from fleet.sim.real import ControlPlane
from tests.cluster.keeper import Keeper, definition, keeping, key, settings

COMMITS = 50
UNHELD = '{"metadata": {"finalizers": null}}'

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def group(plane: ControlPlane, namespace: str) -> AsyncIterator[str]:
    """An API group of the test's own; its definition goes at the end."""
    name = f"{namespace}.example.com"
    yield name
    await plane.kubectl("delete", "crd", f"widgets.{name}", "--ignore-not-found", "--wait=false")


def widget(group: str, namespace: str, version: str = "v1", **spec: Any) -> dict[str, Any]:
    """Write the Widget `w`."""
    metadata = {"name": "w", "namespace": namespace}
    return {"apiVersion": f"{group}/{version}", "kind": "Widget", "metadata": metadata, "spec": spec}


def fields(crd: dict[str, Any], version: int = 0) -> dict[str, Any]:
    """The fields of `spec` in a definition's schema."""
    schema = crd["spec"]["versions"][version]["schema"]["openAPIV3Schema"]
    found: dict[str, Any] = schema["properties"]["spec"]["properties"]
    return found


async def read(keeper: Keeper, group: str, field: Callable[[dict[str, Any]], Any]) -> Any:
    """Read a field of the Widget; None when there is none."""
    found = await keeper.connection.api.get(key("Widget", keeper.namespace, "w", group), priority=Priority.USER)
    return field(json.loads(found.body or b"")) if found is not None else None


def spec(body: dict[str, Any]) -> Any:
    """An object's spec."""
    return body["spec"]


async def test_a_field_and_its_first_use_fifty_times(plane: ControlPlane, namespace: str, group: str) -> None:
    """Each commit adds a field to the schema and sets it: none fails, none is lost, although schemas lag behind."""
    crd, used = definition(group), {}
    async with keeping(plane, namespace) as keeper:
        for number in range(COMMITS):
            fields(crd)[f"f{number}"] = {"type": "string"}
            used[f"f{number}"] = "x"
            keeper.want(crd, widget(group, namespace, **used))
            await keeper.done()
        assert await read(keeper, group, spec) == used
        assert keeper.notes == []


async def test_an_atomic_list_becomes_a_set(plane: ControlPlane, namespace: str, group: str) -> None:
    """When a list's kind of merging changes, it is applied once more, is no drift, and then others may add to it."""
    crd = definition(group)
    fields(crd)["tags"] = {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "atomic"}
    async with keeping(plane, namespace) as keeper:
        keeper.want(crd, widget(group, namespace, tags=["a", "b"]))
        await keeper.done()
        fields(crd)["tags"]["x-kubernetes-list-type"] = "set"
        before = keeper.written
        keeper.want(crd, widget(group, namespace, tags=["a", "b"]))
        await keeper.until(lambda report: report.complete and keeper.written == before + 2)  # and once more, the Widget
        theirs = json.dumps(widget(group, namespace, tags=["c"]))
        await plane.kubectl("apply", "--server-side", "--field-manager=operator", "-f", "-", stdin=theirs)
        keeper.want(crd, widget(group, namespace, tags=["a"]))
        await keeper.done()
        assert await read(keeper, group, spec) == {"tags": ["a", "c"]}
        assert keeper.notes == []


async def test_a_field_leaves_the_schema(plane: ControlPlane, namespace: str, group: str) -> None:
    """A field that the schema loses is refused by name while Git sets it; without it all is well, and no drift."""
    crd = definition(group)
    fields(crd)["colour"] = {"type": "string"}
    async with keeping(plane, namespace) as keeper:
        keeper.want(crd, widget(group, namespace, size=1, colour="red"), settings(namespace, k="1"))
        await keeper.done()
        del fields(crd)["colour"]
        keeper.want(crd, widget(group, namespace, size=2), settings(namespace, k="1"))
        await keeper.done()
        assert await read(keeper, group, spec) == {"size": 2}
        keeper.want(crd, widget(group, namespace, size=2, colour="red"), settings(namespace, k="2"))
        report = await keeper.until(lambda report: report.failures)
        assert [error.reason for error in report.failures.values()] == ["SchemaMismatch"]
        assert all("colour" in error.message for error in report.failures.values())
        assert await read(keeper, group, spec) == {"size": 2}
        keeper.want(crd, widget(group, namespace, size=3), settings(namespace, k="2"))
        await keeper.done()
        assert not [note for note in keeper.notes if note.kind == "drift"]


async def serve(plane: ControlPlane, crd: dict[str, Any], *versions: str) -> None:
    """Serve these versions of a definition only, the first of them stored, as an upgrade does it."""
    name = crd["metadata"]["name"]
    for each in crd["spec"]["versions"]:
        each["storage"] = each["name"] == versions[0]
        each["served"] = each["name"] in versions
    for status in ([], ["--subresource=status"]):
        if status:
            await migrate(plane, f"{crd['spec']['names']['plural']}.{crd['spec']['group']}")
        body = {"status": {"storedVersions": [versions[0]]}} if status else {"spec": crd["spec"]}
        await plane.kubectl("patch", "crd", name, "--type=merge", *status, "-p", json.dumps(body))
    kept = [each for each in crd["spec"]["versions"] if each["name"] in versions]
    await plane.kubectl("patch", "crd", name, "--type=merge", "-p", json.dumps({"spec": {"versions": kept}}))


async def migrate(plane: ControlPlane, resource: str) -> None:
    """Have the server store every object of a kind again, at the version it stores now."""
    await asyncio.sleep(2)  # nothing tells when the server has taken up the new storage version
    stored = await plane.kubectl("get", resource, "-A", "-o", "json")
    await plane.kubectl("replace", "-f", "-", stdin=stored)


async def test_a_version_that_is_gone(plane: ControlPlane, namespace: str, group: str) -> None:
    """While Git names a version that is gone nothing is pruned and those served are named; moved in Git, it goes on.

    What others had set under the old version is still theirs, and what Git had set and leaves out goes.
    """
    crd = definition(group, versions=("v1beta1", "v1"))
    for version in range(2):
        fields(crd, version)["colour"] = {"type": "string"}
    await plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(crd))
    await plane.kubectl("wait", "--for=condition=Established", f"crd/{crd['metadata']['name']}")
    theirs = widget(group, namespace, "v1beta1")
    theirs["metadata"] |= {"annotations": {"team": "a"}, "finalizers": ["example.com/hold"]}
    await plane.kubectl("create", "-f", "-", stdin=json.dumps(theirs))
    async with keeping(plane, namespace) as keeper:
        keeper.want(widget(group, namespace, "v1beta1", size=1, colour="red"), settings(namespace, k="1"))
        await keeper.done()
        await serve(plane, crd, "v1")
        keeper.want(widget(group, namespace, "v1beta1", size=2, colour="red"))
        report = await keeper.until(lambda report: report.failures)
        assert [error.reason for error in report.failures.values()] == ["VersionNotServed"]
        assert all("v1" in error.message for error in report.failures.values())
        kept = await keeper.connection.api.get(key("ConfigMap", namespace, "settings"), priority=Priority.USER)
        assert kept is not None
        uid = await read(keeper, group, lambda body: body["metadata"]["uid"])
        keeper.want(widget(group, namespace, size=2), settings(namespace, k="1"))
        await keeper.done()
        assert await read(keeper, group, spec) == {"size": 2}
        await plane.kubectl("annotate", f"widgets.{group}", "w", "-n", namespace, "added=x")
        await keeper.noted("drift")
        await keeper.done()
        after = await read(keeper, group, lambda body: body["metadata"])
        assert (after["uid"], after["annotations"], after["finalizers"]) == (uid, {"team": "a"}, ["example.com/hold"])
        await plane.kubectl("patch", f"widgets.{group}", "w", "-n", namespace, "--type=merge", "-p", UNHELD)


async def test_another_version_is_the_same_object(plane: ControlPlane, namespace: str, group: str) -> None:
    """A manifest that moves from v1beta1 to v1, both served, configures its object and never prunes it."""
    crd = definition(group, versions=("v1", "v1beta1"))
    for version in range(2):
        fields(crd, version)["colour"] = {"type": "string"}
    async with keeping(plane, namespace) as keeper:
        keeper.want(crd, widget(group, namespace, "v1beta1", size=1, colour="red"))
        await keeper.done()
        uid = await read(keeper, group, lambda body: body["metadata"]["uid"])
        keeper.want(crd, widget(group, namespace, "v1", size=1, colour="red"))
        await keeper.done()
        assert await read(keeper, group, lambda body: body["metadata"]["uid"]) == uid
        keeper.want(crd, widget(group, namespace, "v1", size=1))
        await keeper.done()
        assert await read(keeper, group, spec) == {"size": 1}
        assert keeper.notes == []


async def test_a_kind_that_is_gone(plane: ControlPlane, namespace: str, group: str) -> None:
    """A definition deleted by hand is created again with its objects; one of somebody else's is waited for."""
    crd, name = definition(group), f"widgets.{group}"
    async with keeping(plane, namespace) as keeper:
        keeper.want(crd, widget(group, namespace, size=1))
        await keeper.done()
        which = key("Widget", namespace, "w", group)
        uid = keeper.target.entries[which].uid
        await plane.kubectl("delete", "crd", name)
        await keeper.until(lambda report: report.complete and keeper.target.entries[which].uid != uid)
        assert await read(keeper, group, spec) == {"size": 1}
    await plane.kubectl("delete", "crd", name)
    async with keeping(plane, namespace) as keeper:
        keeper.want(widget(group, namespace, size=2), settings(namespace, k="2"))
        report = await keeper.until(lambda report: report.waits_for)
        assert "MissingKind" in {change.reason for change in report.changes}
        await plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(crd))
        await keeper.done()
        assert await read(keeper, group, spec) == {"size": 2}


async def test_what_went_with_its_kind(plane: ControlPlane, namespace: str, group: str) -> None:
    """Objects of a definition that somebody deleted wait for it by name while they are in Git, and are done when not."""
    name = f"widgets.{group}"
    await plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(definition(group)))
    await plane.kubectl("wait", "--for=condition=Established", f"crd/{name}")
    async with keeping(plane, namespace) as keeper:
        keeper.want(widget(group, namespace, size=1), settings(namespace, k="1"))
        await keeper.done()
        await plane.kubectl("delete", "crd", name)
        kind = key("Widget", namespace, "w", group).group_kind
        while keeper.connection.discovery.resource(kind) is not None:
            await asyncio.sleep(0.1)
        keeper.want(widget(group, namespace, size=1), settings(namespace, k="2"))
        report = await keeper.until(lambda report: report.waits_for)
        assert "MissingKind" in {change.reason for change in report.changes}
        keeper.want(settings(namespace, k="2"))
        await keeper.done()
        assert [each.kind for each in keeper.target.entries] == ["ConfigMap"]
