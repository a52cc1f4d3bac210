"""Deletions on a real API server: held, approved, forced, let go, and those that never end."""

import json
import shutil
from pathlib import Path

import pytest

from fleet.sim.real import ControlPlane
from tests.cluster.test_hub import get, release_leases
from tests.harness.fleet import ADA, Fleet, app_document, cluster_document, environment_document, repository_document

CONFIG = """\
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}, namespace: {namespace}}}
data: {{colour: {colour}}}
"""
LETTERS = "abcdefgh"


@pytest.fixture
async def fleet(tmp_path: Path, plane: ControlPlane) -> Fleet:
    """A place for a hub; apps `shop` and `other` of one repository go to one cluster."""
    await release_leases([plane])
    made = Fleet(tmp_path)
    made.declare("fleet.yaml", repository_document(made.repository.path), environment_document())
    made.declare("apps.yaml", app_document("shop", "app"), app_document("other", "other"))
    made.declare(f"{plane.name}.yaml", cluster_document(plane.name, plane.kubeconfig_path))
    return made


def config(namespace: str, name: str, colour: str = "red") -> str:
    """A ConfigMap."""
    return CONFIG.format(namespace=namespace, name=name, colour=colour)


def files(namespace: str, directory: str, names: str) -> dict[str, str]:
    """One ConfigMap per letter, and a marker that keeps the directory."""
    found = {f"{directory}/{n}.yaml": config(namespace, f"{directory}-{n}") for n in names}
    return {**found, f"{directory}/README.md": "x"}


def remove(fleet: Fleet, *paths: str) -> str:
    """Commit the removal of files."""
    for path in paths:
        (fleet.repository.path / path).unlink()
    return fleet.repository.commit("less")


async def there(plane: ControlPlane, namespace: str) -> dict[str, str]:
    """The uids of the ConfigMaps of apps that are not being deleted, by name."""
    out = await plane.kubectl("get", "configmaps", "-n", namespace, "-o", "json")
    items = [item["metadata"] for item in json.loads(out)["items"]]
    return {
        m["name"]: m["uid"] for m in items if m["name"].startswith(("app-", "other-")) and "deletionTimestamp" not in m
    }


async def approve(fleet: Fleet, plane: ControlPlane, app: str = "shop") -> None:
    """Approve what waits for an app."""
    row = next(row for row in fleet.hub.approvals() if (row.cluster, row.app) == (plane.name, app))
    await fleet.hub.approve(plane.name, app, digest=row.digest, reason="meant so", actor=ADA)


async def test_a_mass_change_waits_for_approval(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """Six of ten objects stay until somebody agrees, also across a restart; then they go, and the rest stays."""
    fleet.repository.commit("first", {**files(namespace, "app", LETTERS), **files(namespace, "other", "ab")})
    async with fleet.running():
        await fleet.synced((plane.name, "shop"), (plane.name, "other"))
        before = await there(plane, namespace)
        revision = remove(fleet, *(f"app/{n}.yaml" for n in LETTERS[:6]))
        row = await fleet.state(plane.name, "shop", "Waiting", "MassChange")
        assert f"fleet approve {plane.name}/shop --digest" in row.message
        assert await there(plane, namespace) == before
    async with fleet.running() as hub:
        await fleet.state(plane.name, "shop", "Waiting", "MassChange")
        assert await there(plane, namespace) == before
        await approve(fleet, plane)
        await fleet.synced((plane.name, "shop"), revision=revision)
        assert set(await there(plane, namespace)) == {"app-g", "app-h", "other-a", "other-b"}
        await fleet.until(lambda: not hub.approvals())


async def test_a_removed_app_and_an_empty_render_wait(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """Neither an App document that goes nor a directory without manifests deletes anything before it is approved."""
    fleet.repository.commit("first", {**files(namespace, "app", "a"), **files(namespace, "other", "ab")})
    async with fleet.running() as hub:
        await fleet.synced((plane.name, "shop"), (plane.name, "other"))
        before = await there(plane, namespace)
        revision = remove(fleet, "app/a.yaml")
        fleet.declare("apps.yaml", app_document("shop", "app"))
        await fleet.state(plane.name, "shop", "Waiting", "EmptyRender")
        await fleet.state(plane.name, "other", "Waiting", "MassChange")
        assert await there(plane, namespace) == before
        await approve(fleet, plane)
        await fleet.synced((plane.name, "shop"), revision=revision)
        assert set(await there(plane, namespace)) == {"other-a", "other-b"}
        await approve(fleet, plane, "other")
        await fleet.until(lambda: [row.app for row in hub.targets()] == ["shop"])
        assert await there(plane, namespace) == {}


async def test_a_renamed_app_and_a_moved_manifest_delete_nothing(
    fleet: Fleet, plane: ControlPlane, namespace: str
) -> None:
    """The objects stay the same ones, by uid, under a new app name and in another app's directory."""
    fleet.repository.commit("first", {**files(namespace, "app", "abc"), **files(namespace, "other", "a")})
    async with fleet.running() as hub:
        await fleet.synced((plane.name, "shop"), (plane.name, "other"))
        before = await there(plane, namespace)
        fleet.declare("apps.yaml", app_document("store", "app"), app_document("other", "other"))
        await fleet.synced((plane.name, "store"))
        await fleet.until(lambda: sorted(row.app for row in hub.targets()) == ["other", "store"])
        assert await there(plane, namespace) == before
        for letter in "bc":
            fleet.repository.git("mv", f"app/{letter}.yaml", f"other/{letter}.yaml")
        revision = fleet.repository.commit("move")
        await fleet.synced((plane.name, "store"), (plane.name, "other"), revision=revision)
        assert await there(plane, namespace) == before


async def test_an_unmounted_inventory_deletes_nothing(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """A directory that is gone, then empty, then back: its apps' objects stay, and drift is repaired all the while."""
    fleet.repository.commit("first", {**files(namespace, "app", "a"), **files(namespace, "other", "a")})
    async with fleet.running() as hub:
        await fleet.synced((plane.name, "shop"), (plane.name, "other"))
        before = await there(plane, namespace)
        away = fleet.root / "away"
        shutil.move(fleet.inventory, away)
        fleet.inventory.mkdir()
        await fleet.until(lambda: hub.status().problems)
        await plane.kubectl("delete", "configmap", "app-a", "-n", namespace)

        async def healed() -> bool:
            return await get(plane, "configmap", "app-a", namespace) is not None

        await fleet.until(healed)
        assert (await there(plane, namespace)).keys() == before.keys()
        fleet.inventory.rmdir()
        shutil.move(away, fleet.inventory)
        await fleet.until(lambda: not hub.status().problems)
        await fleet.synced((plane.name, "shop"), (plane.name, "other"))
        assert (await there(plane, namespace)).keys() == before.keys()


POLICY = """\
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: one-route-{namespace}}}
spec:
  paramKind: {{apiVersion: v1, kind: ConfigMap}}
  matchConstraints:
    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}
    resourceRules: [{{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}}]
  validations: [{{expression: "object.metadata.name != 'app-new'", message: "the host is taken by app-old"}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: one-route-{namespace}}}
spec:
  policyName: one-route-{namespace}
  validationActions: [Deny]
  paramRef: {{name: app-old, namespace: {namespace}, parameterNotFoundAction: Allow}}
"""


async def test_prune_now_makes_room(fleet: Fleet, plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """A refusal that names what would be pruned blocks the prune; the status says so, and the command solves it."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.format(namespace=namespace))
    fleet.declare("apps.yaml", app_document("shop", "app"))
    old = {"app/old.yaml": config(namespace, "app-old"), "app/stay.yaml": config(namespace, "app-stay")}
    fleet.repository.commit("first", old)
    async with fleet.running() as hub:
        await fleet.synced((plane.name, "shop"))
        await plane.kubectl("apply", "-f", str(policy))
        try:
            await fleet.until(lambda: _is_refused(plane, namespace))
            fleet.repository.git("mv", "app/old.yaml", "app/new.yaml")
            revision = fleet.repository.commit("rename", {"app/new.yaml": config(namespace, "app-new")})
            row = await fleet.state(plane.name, "shop", "Failed")
            assert "it names ConfigMap" in row.message
            assert f"fleet prune {plane.name}/shop --now" in row.message
            assert set(await there(plane, namespace)) == {"app-old", "app-stay"}
            assert await hub.prune(plane.name, "shop", reason="the host can be had once", actor=ADA) == 1
            await fleet.synced((plane.name, "shop"), revision=revision, timeout_s=90)
            assert set(await there(plane, namespace)) == {"app-new", "app-stay"}
            assert [e.reason for e in await hub.events(kind="audit") if e.actor == "ada"] == ["PruneNow"]
        finally:
            await plane.kubectl("delete", "-f", str(policy))


async def _is_refused(plane: ControlPlane, namespace: str) -> bool:
    """The policy counts some seconds after it was written."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app-new"}}
    path = f"/api/v1/namespaces/{namespace}/configmaps?dryRun=All"
    return (await plane.request("POST", path, body)).code != 201


async def test_what_may_not_be_deleted_is_let_go(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """`onRemove: orphan` and a namespace: no deletion, no approval, no label of ours left, and the event is kept."""
    made = f"{namespace}-made"
    space = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {made}}}\n"
    fleet.declare("apps.yaml", app_document("shop", "app"), app_document("other", "other", onRemove="orphan"))
    first = {**files(namespace, "app", "a"), **files(namespace, "other", "ab"), "app/space.yaml": space}
    fleet.repository.commit("first", first)
    try:
        async with fleet.running() as hub:
            await fleet.synced((plane.name, "shop"), (plane.name, "other"))
            fleet.declare("apps.yaml", app_document("shop", "app"))
            await fleet.until(lambda: [row.app for row in hub.targets()] == ["shop"])
            await fleet.synced((plane.name, "shop"), revision=remove(fleet, "app/space.yaml"))
            for kind, name in (("configmap", "other-a"), ("configmap", "other-b"), ("namespace", made)):
                found = await get(plane, kind, name, namespace)
                assert found is not None
                assert not {"fleet/hub", "applyset.kubernetes.io/part-of"} & set(found["metadata"].get("labels") or {})
            events = await fleet.until(lambda: hub.events(kind="prune", reason="Orphaned"))
            assert sorted(e.object for e in events) == [
                f"ConfigMap {namespace}/other-a",
                f"ConfigMap {namespace}/other-b",
                f"Namespace {made}",
            ]
    finally:
        await plane.kubectl("delete", "namespace", made, "--wait=false")


async def test_a_deletion_that_never_ends_is_shown(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """A finalizer holds a pruned object: the target waits, naming it, and is done when it lets go."""
    fleet.declare("apps.yaml", app_document("shop", "app"))
    fleet.repository.commit("first", files(namespace, "app", "ab"))
    async with fleet.running() as hub:
        await fleet.synced((plane.name, "shop"))
        hold = '{"metadata":{"finalizers":["example.com/hold"]}}'
        await plane.kubectl("patch", "configmap", "app-a", "-n", namespace, "--type=merge", "-p", hold)
        revision = remove(fleet, "app/a.yaml")
        row = await fleet.state(plane.name, "shop", "Waiting", "Terminating")
        assert "example.com/hold" in row.message
        detail = hub.target(plane.name, "shop")
        assert detail is not None
        assert [o.health for o in detail.objects if o.name == "app-a"] == ["Terminating"]
        free = '{"metadata":{"finalizers":null}}'
        await plane.kubectl("patch", "configmap", "app-a", "-n", namespace, "--type=merge", "-p", free)
        await fleet.synced((plane.name, "shop"), revision=revision)
        assert set(await there(plane, namespace)) == {"app-b"}
