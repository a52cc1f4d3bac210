"""The main job on real API servers: clusters.d and Git in, clusters equal to them out."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fleet.hub.view import PauseRequest
from fleet.sim.behaviour import Behaviour, Kind
from fleet.sim.pod import Rules
from fleet.sim.real import ControlPlane
from tests.harness.fleet import ADA, Fleet, app_document, cluster_document, environment_document, repository_document

CONFIG = """\
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings, namespace: {namespace}}}
data: {{colour: {colour}}}
"""
WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {namespace}, labels: {{app: web}}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
        - {{name: web, image: "{image}", env: [{{name: MODE, value: plain}}]}}
"""


async def release_leases(planes: list[ControlPlane]) -> None:
    """Take the clusters from whichever hub an earlier test ran."""
    for plane in planes:
        await plane.kubectl("delete", "lease,configmap", "--all", "-n", "fleet-system")


@pytest.fixture
async def fleet(tmp_path: Path, plane: ControlPlane) -> Fleet:
    """A place for a hub, with one cluster in its inventory."""
    await release_leases([plane])
    made = Fleet(tmp_path)
    made.declare("fleet.yaml", repository_document(made.repository.path), environment_document())
    made.declare("apps.yaml", app_document("shop", "app"))
    made.declare(f"{plane.name}.yaml", cluster_document(plane.name, plane.kubeconfig_path))
    return made


async def get(plane: ControlPlane, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
    """Read an object as kubectl sees it."""
    out = await plane.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
    return json.loads(out) if out.strip() else None


async def test_a_commit_reaches_every_cluster(
    fleet: Fleet, planes: list[ControlPlane], plane: ControlPlane, namespace: str
) -> None:
    """Two clusters get what is in Git; a commit changes both; a deleted file is pruned on both."""
    other = next(p for p in planes if p is not plane)
    await release_leases([other])
    await other.kubectl("create", "namespace", namespace)
    fleet.declare(f"{other.name}.yaml", cluster_document(other.name, other.kubeconfig_path))
    targets = [(p.name, "shop") for p in planes]
    fleet.repository.commit(
        "first",
        {
            "app/settings.yaml": CONFIG.format(namespace=namespace, colour="red"),
            "app/web.yaml": WEB.format(namespace=namespace, image="example.com/web:1"),
        },
    )
    async with fleet.running():
        await fleet.synced(*targets)
        changed = {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="blue")}
        await fleet.synced(*targets, revision=fleet.repository.commit("blue", changed))
        for each in planes:
            found = await get(each, "configmap", "settings", namespace)
            assert found is not None
            assert found["data"] == {"colour": "blue"}
        fleet.repository.git("rm", "-q", "app/settings.yaml")
        await fleet.synced(*targets, revision=fleet.repository.commit("less"))
        assert [await get(each, "configmap", "settings", namespace) for each in planes] == [None, None]


EDITS = {
    "scale": ["scale", "deployment/web", "--replicas=5"],
    "set image": ["set", "image", "deployment/web", "web=example.com/other:9"],
    "set env": ["set", "env", "deployment/web", "MODE=fancy"],
    "label": ["label", "deployment/web", "app=other", "--overwrite"],
    "patch": ["patch", "deployment", "web", "-p", '{"spec":{"paused":true}}'],
    "annotate": ["annotate", "deployment/web", "note=mine"],
    "delete": ["delete", "deployment", "web"],
}


@pytest.mark.parametrize("edit", EDITS)
async def test_an_edit_by_hand_is_undone(edit: str, fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """What kubectl changes, adds or deletes is as in Git again, and an event says who did it."""
    fleet.repository.commit("first", {"app/web.yaml": WEB.format(namespace=namespace, image="example.com/web:1")})
    async with fleet.running() as hub:
        await fleet.synced((plane.name, "shop"))
        before = await get(plane, "deployment", "web", namespace)
        assert before is not None
        await plane.kubectl(*EDITS[edit], "-n", namespace)

        async def healed() -> bool:
            now = await get(plane, "deployment", "web", namespace)
            return now is not None and _essence(now) == _essence(before)

        await fleet.until(healed)
        events = await fleet.until(lambda: hub.events(kind="drift"))
        assert "repaired in" in events[-1].message
        await fleet.synced((plane.name, "shop"))


def _essence(deployment: dict[str, Any]) -> Any:
    """What Git and defaults say of a Deployment, without what the controller writes."""
    metadata = deployment["metadata"]
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if "deployment.kubernetes.io" not in k}
    return deployment["spec"], metadata["labels"], annotations


async def test_a_restart_writes_nothing(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """A hub that stops and starts again finds everything as it left it: no object gets a new resourceVersion."""
    files = {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="red")}
    files["app/web.yaml"] = WEB.format(namespace=namespace, image="example.com/web:1")
    fleet.repository.commit("first", files)
    async with fleet.running():
        await fleet.synced((plane.name, "shop"))
    before = [await get(plane, *each, namespace) for each in (("configmap", "settings"), ("deployment", "web"))]
    async with fleet.running() as hub:
        await fleet.synced((plane.name, "shop"))
        row = fleet.row(plane.name, "shop")
        assert row is not None
        assert row.release == "shop#1"
        assert not await hub.events(kind="drift")
    after = [await get(plane, *each, namespace) for each in (("configmap", "settings"), ("deployment", "web"))]
    assert [o and o["metadata"]["resourceVersion"] for o in before] == [
        o and o["metadata"]["resourceVersion"] for o in after
    ]


async def test_a_dead_cluster_harms_no_other(
    fleet: Fleet, planes: list[ControlPlane], plane: ControlPlane, namespace: str
) -> None:
    """While one API server is down the other follows Git, the status says why, and the dead one catches up."""
    other = next(p for p in planes if p is not plane)
    await release_leases([other])
    await other.kubectl("create", "namespace", namespace)
    fleet.declare(f"{other.name}.yaml", cluster_document(other.name, other.kubeconfig_path))
    fleet.repository.commit("first", {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="red")})
    async with fleet.running() as hub:
        await fleet.synced((plane.name, "shop"), (other.name, "shop"))
        await other.stop()
        await fleet.until(lambda: [c for c in hub.clusters() if c.name == other.name and c.state == "Connecting"])
        changed = {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="blue")}
        revision = fleet.repository.commit("blue", changed)
        await fleet.synced((plane.name, "shop"), revision=revision)
        assert all(check.ok for check in hub.checks())
        await other.start()
        await fleet.synced((other.name, "shop"), revision=revision, timeout_s=90)


async def test_a_cluster_file_added_while_running_is_brought_up(
    fleet: Fleet, planes: list[ControlPlane], plane: ControlPlane, namespace: str
) -> None:
    """A new Cluster document brings the cluster to the apps' releases; removing it touches nothing there."""
    other = next(p for p in planes if p is not plane)
    await release_leases([other])
    await other.kubectl("create", "namespace", namespace)
    fleet.repository.commit("first", {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="red")})
    async with fleet.running() as hub:
        await fleet.synced((plane.name, "shop"))
        fleet.declare(f"{other.name}.yaml", cluster_document(other.name, other.kubeconfig_path))
        await fleet.synced((other.name, "shop"))
        (fleet.inventory / f"{other.name}.yaml").unlink()
        await fleet.until(lambda: other.name not in [c.name for c in hub.clusters()])
        assert await get(other, "configmap", "settings", namespace) is not None


async def test_an_app_taken_off_a_cluster_is_pruned_there(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """When an App document goes, what it applied goes, and nothing of it is shown any more."""
    fleet.declare("apps.yaml", app_document("shop", "app"), app_document("other", "other"))
    other = CONFIG.format(namespace=namespace, colour="green").replace("settings", "others")
    fleet.repository.commit(
        "first",
        {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="red"), "other/others.yaml": other},
    )
    async with fleet.running() as hub:
        await fleet.synced((plane.name, "shop"), (plane.name, "other"))
        fleet.declare("apps.yaml", app_document("shop", "app"))
        await fleet.until(lambda: [row.app for row in hub.targets()] == ["shop"])
        assert await get(plane, "configmap", "others", namespace) is None
        assert await get(plane, "configmap", "settings", namespace) is not None


async def test_a_crashing_workload_is_degraded_with_its_reason(
    fleet: Fleet, plane: ControlPlane, namespace: str, rules: Rules
) -> None:
    """A crash loop shows as Degraded, naming pod, container and exit code; a good image makes it Synced again."""
    take_back = rules.add(_runs("example.com/web:bad"), Behaviour(kind=Kind.CRASH, exit_code=3))
    fleet.repository.commit("bad", {"app/web.yaml": WEB.format(namespace=namespace, image="example.com/web:bad")})
    async with fleet.running():
        row = await fleet.state(plane.name, "shop", "Degraded")
        assert row.reason == "CrashLoopBackOff"
        assert "container web" in row.message
        assert "exit code 3" in row.message
        good = {"app/web.yaml": WEB.format(namespace=namespace, image="example.com/web:2")}
        await fleet.synced((plane.name, "shop"), revision=fleet.repository.commit("good", good))
    take_back()


def _runs(image: str) -> Callable[[Mapping[str, Any]], bool]:
    """Match pods that run an image."""
    return lambda pod: any(container["image"] == image for container in pod["spec"]["containers"])


async def test_a_pause_holds_and_ends(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """A paused target shows a new commit and does not write; resumed, it follows."""
    fleet.repository.commit("first", {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="red")})
    async with fleet.running() as hub:
        await fleet.synced((plane.name, "shop"))
        await hub.pause(PauseRequest(app="shop", reason="audit"), ADA)
        changed = {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="blue")}
        revision = fleet.repository.commit("blue", changed)
        await fleet.until(lambda: (row := fleet.row(plane.name, "shop")) and row.desired_revision == revision)
        row = await fleet.state(plane.name, "shop", "Paused")
        assert "audit" in row.message
        found = await get(plane, "configmap", "settings", namespace)
        assert found is not None
        assert found["data"] == {"colour": "red"}
        assert await hub.resume(PauseRequest(app="shop", reason=""), ADA) == 1
        await fleet.synced((plane.name, "shop"), revision=revision)


async def test_bad_objects_fail_alone_and_say_why(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """An object that the API server refuses, and one without its namespace, harm no other; the second comes by itself."""
    refused = CONFIG.format(namespace=namespace, colour="red").replace("name: settings", "name: Not_Valid")
    missing = f"{namespace}-later"
    fleet.repository.commit(
        "first",
        {
            "app/settings.yaml": CONFIG.format(namespace=namespace, colour="red"),
            "app/refused.yaml": refused,
            "app/early.yaml": CONFIG.format(namespace=missing, colour="red"),
        },
    )
    async with fleet.running() as hub:
        row = await fleet.state(plane.name, "shop", "Failed", "Invalid")
        assert "Not_Valid" in row.message
        assert await get(plane, "configmap", "settings", namespace) is not None
        detail = hub.target(plane.name, "shop")
        assert detail is not None
        assert {o.reason for o in detail.objects} >= {"Invalid", "NotFound"}
        await plane.kubectl("create", "namespace", missing)

        async def came() -> bool:
            return await get(plane, "configmap", "settings", missing) is not None

        await fleet.until(came)
        fleet.repository.git("rm", "-q", "app/refused.yaml")
        await fleet.synced((plane.name, "shop"), revision=fleet.repository.commit("without"))


async def test_a_definition_and_its_objects_in_one_commit(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """A CRD and a custom resource of it arrive together; a later object of the kind is drift-repaired like any other."""
    group = f"{namespace}.example.com"
    crd = f"""\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: widgets.{group}}}
spec:
  group: {group}
  scope: Namespaced
  names: {{plural: widgets, singular: widget, kind: Widget}}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {{openAPIV3Schema: {{type: object, properties: {{spec: {{type: object, properties: {{size: {{type: integer}}}}}}}}}}}}
"""
    widget = (
        f"apiVersion: {group}/v1\nkind: Widget\nmetadata: {{name: one, namespace: {namespace}}}\nspec: {{size: 3}}\n"
    )
    fleet.repository.commit("first", {"app/crd.yaml": crd, "app/widget.yaml": widget})
    async with fleet.running():
        await fleet.synced((plane.name, "shop"))
        patch = '{"spec":{"size":9}}'
        await plane.kubectl("patch", f"widgets.{group}", "one", "-n", namespace, "--type=merge", "-p", patch)

        async def healed() -> bool:
            found = await get(plane, f"widgets.{group}", "one", namespace)
            return found is not None and found["spec"]["size"] == 3

        await fleet.until(healed)


async def test_diff_where_and_restart(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """A report-only app shows per field what differs and who changed it; a commit is found; a restart is no drift."""
    fleet.declare("apps.yaml", app_document("shop", "app", drift="report"))
    first = fleet.repository.commit(
        "first", {"app/web.yaml": WEB.format(namespace=namespace, image="example.com/web:1")}
    )
    async with fleet.running() as hub:
        await fleet.synced((plane.name, "shop"))
        await plane.kubectl("scale", "deployment/web", "--replicas=5", "-n", namespace)
        await fleet.state(plane.name, "shop", "Drifted")
        rows = await hub.diff(plane.name, "shop")
        fields = {f.path: f for row in rows for f in row.fields}
        assert (fields[".spec.replicas"].desired, fields[".spec.replicas"].live) == ("2", "5")
        assert fields[".spec.replicas"].manager.startswith("kubectl")
        assert [row.runs for row in await hub.where(first[:8])] == ["yes"]
        fleet.declare("apps.yaml", app_document("shop", "app"))
        await fleet.synced((plane.name, "shop"))
        assert await hub.restart(plane.name, "shop", kind="", namespace="", name="", actor=ADA) == 1
        found = await get(plane, "deployment", "web", namespace)
        assert found is not None
        assert "kubectl.kubernetes.io/restartedAt" in found["spec"]["template"]["metadata"]["annotations"]
        await fleet.synced((plane.name, "shop"))
