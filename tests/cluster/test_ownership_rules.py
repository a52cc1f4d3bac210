"""Whose an object is: marks of other tools, adoption, two apps with one object, on a real API server."""

import json
from pathlib import Path
from typing import Any

import pytest

from fleet.object import Adopt
from fleet.reconcile.live import LiveObject
from fleet.reconcile.plan import Action
from fleet.reconcile.port import Policy
from fleet.reconcile.run import Report
from fleet.sim.real import ControlPlane
from tests.cluster.connection import config_map
from tests.cluster.keeper import keeping, key, settings
from tests.cluster.test_hub import CONFIG, get, release_leases
from tests.harness.fleet import Fleet, app_document, cluster_document, environment_document, repository_document

FLUX = {"labels": {"kustomize.toolkit.fluxcd.io/name": "x", "kustomize.toolkit.fluxcd.io/namespace": "y"}}
MARKS: dict[str, tuple[dict[str, Any], str, str]] = {
    "flux": (FLUX, "kustomize-controller", "managed by Flux"),
    "helm-controller": ({"labels": {"helm.toolkit.fluxcd.io/name": "x"}}, "helm", "managed by Flux"),
    "argo": ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, "argocd-controller", "managed by Argo CD"),
    "argo-2": ({"labels": {"app.kubernetes.io/instance": "x"}}, "argocd-controller", "managed by Argo CD"),
    "helm": (
        {"labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": {"meta.helm.sh/release-name": "rel"}},
        "helm",
        "managed by Helm release rel",
    ),
    "rancher": ({"labels": {"objectset.rio.cattle.io/hash": "x"}}, "fleetagent", "managed by Rancher Fleet"),
    "hub": ({"labels": {"fleet/hub": "other"}}, "kubectl", "managed by another fleet hub (other)"),
    "applyset": ({"labels": {"applyset.kubernetes.io/part-of": "x"}}, "kubectl", "managed by another ApplySet"),
}


async def put(plane: ControlPlane, body: dict[str, Any], manager: str) -> None:
    """Apply as another tool."""
    await plane.kubectl("apply", "--server-side", f"--field-manager={manager}", "-f", "-", stdin=json.dumps(body))


def marked(namespace: str, name: str, marks: dict[str, Any], value: str) -> dict[str, Any]:
    """Write a ConfigMap with labels, annotations or owners."""
    body = config_map(namespace, name, {"k": value})
    return {**body, "metadata": {**body["metadata"], **marks}}


def change(report: Report, name: str) -> Any:
    """Pick the change of a ConfigMap."""
    return next(c for c in report.changes if c.key.name == name)


async def data(plane: ControlPlane, namespace: str, name: str) -> Any:
    """Read a ConfigMap's data."""
    found = await get(plane, "configmap", name, namespace)
    return found["data"] if found is not None else None


async def test_objects_of_other_tools_are_refused_by_name(plane: ControlPlane, namespace: str) -> None:
    """Each mark is recognised and named, nothing of theirs is written; `adopt: always` takes them all."""
    for name, (marks, manager, _) in MARKS.items():
        await put(plane, marked(namespace, name, marks, "theirs"), manager)
    wanted = [config_map(namespace, name, {"k": "ours"}) for name in MARKS]
    async with keeping(plane, namespace) as keeper:
        keeper.want(*wanted, config_map(namespace, "free", {"k": "ours"}))
        report = await keeper.until(lambda r: keeper.written == 1 and len(r.changes) == len(MARKS) + 1)
        for name, (_, _, told) in MARKS.items():
            assert change(report, name).reason == "OwnedElsewhere"
            assert told in change(report, name).message
            assert await data(plane, namespace, name) == {"k": "theirs"}
        keeper.want(*wanted, policy=Policy(adopt=Adopt.ALWAYS))
        await keeper.done()
        assert [await data(plane, namespace, name) for name in MARKS] == [{"k": "ours"}] * len(MARKS)


async def test_adopt_by_annotation_and_owner(plane: ControlPlane, namespace: str) -> None:
    """`fleet/adopt` overrides the App for one object; an object that a controller owns is refused, naming it."""
    await put(plane, config_map(namespace, "owner", {"k": "theirs"}), "kubectl")
    owner = await get(plane, "configmap", "owner", namespace)
    assert owner is not None
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    controlled = {"ownerReferences": [{**reference, "controller": True}]}
    await put(plane, marked(namespace, "controlled", controlled, "theirs"), "operator")
    await put(plane, marked(namespace, "flux", FLUX, "theirs"), "kustomize-controller")
    await put(plane, config_map(namespace, "plain", {"k": "theirs"}), "kubectl")

    def asks(name: str, adopt: str) -> dict[str, Any]:
        return marked(namespace, name, {"annotations": {"fleet/adopt": adopt}}, "ours")

    async with keeping(plane, namespace) as keeper:
        keeper.want(config_map(namespace, "controlled", {"k": "ours"}), asks("flux", "always"), asks("plain", "never"))
        report = await keeper.until(lambda _: keeper.written == 1)
        assert "controlled by ConfigMap owner" in change(report, "controlled").message.replace("/", " ")
        assert "`adopt` is never" in change(report, "plain").message
        assert await data(plane, namespace, "flux") == {"k": "ours"}
        assert [await data(plane, namespace, name) for name in ("controlled", "plain")] == [{"k": "theirs"}] * 2


@pytest.mark.parametrize("manager", ["kustomize-controller", "argocd-controller", "helm", "kubectl"])
async def test_no_second_owner_is_left(plane: ControlPlane, namespace: str, manager: str) -> None:
    """After a takeover what leaves Git leaves the object, although another tool applied the same value before."""
    await put(plane, settings(namespace, a="1", b="2", c="3"), manager)
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, a="1", b="2"))
        await keeper.done()
        assert await data(plane, namespace, "settings") == {"a": "1", "b": "2", "c": "3"}
        keeper.want(settings(namespace, a="1"))
        await keeper.done()
        assert await data(plane, namespace, "settings") == {"a": "1", "c": "3"}


async def test_exact_adoption_removes_the_rest(plane: ControlPlane, namespace: str) -> None:
    """`adopt: exact` leaves nothing that Git does not have, but finalizers."""
    body = marked(namespace, "settings", {"finalizers": ["example.com/hold"], "annotations": {"note": "x"}}, "old")
    await put(plane, {**body, "data": {"k": "old", "theirs": "1"}}, "somebody")
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"), policy=Policy(adopt=Adopt.EXACT))
        await keeper.done()
        found = await get(plane, "configmap", "settings", namespace)
        assert found is not None
        assert found["data"] == {"k": "1"}
        assert "annotations" not in found["metadata"]
        assert found["metadata"]["finalizers"] == ["example.com/hold"]
        await plane.kubectl("-n", namespace, "patch", "configmap/settings", "-p", '{"metadata":{"finalizers":null}}')


async def let_go_while_away(plane: ControlPlane, namespace: str, how: str) -> None:
    """Make our object somebody else's without a hub that watches."""
    found = await get(plane, "configmap", "settings", namespace)
    assert found is not None
    metadata = {name: found["metadata"][name] for name in ("name", "namespace", "labels")}
    if how == "unlabelled":
        await plane.kubectl("-n", namespace, "label", "configmap/settings", "fleet/hub-")
    elif how == "replaced":
        await plane.kubectl("-n", namespace, "delete", "configmap/settings")
        await put(plane, {**found, "metadata": metadata}, "somebody")
    else:
        await put(plane, config_map(namespace, "owner", {}), "somebody")
        owner = await get(plane, "configmap", "owner", namespace)
        assert owner is not None
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
        patch = {"metadata": {"ownerReferences": [{**reference, "controller": True}]}}
        await plane.kubectl("-n", namespace, "patch", "configmap/settings", "--type=merge", "-p", json.dumps(patch))


@pytest.mark.parametrize("how", ["unlabelled", "replaced", "controlled"])
async def test_only_three_marks_make_it_ours(plane: ControlPlane, namespace: str, how: str) -> None:
    """An object without our label, our Apply entry, or with a controller is not deleted when it leaves Git."""
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"), config_map(namespace, "other", {"k": "1"}))
        await keeper.done()
        ledger, hub_id = keeper.ledger, keeper.hub_id
    await let_go_while_away(plane, namespace, how)
    async with keeping(plane, namespace, ledger, hub_id) as again:
        again.want(config_map(namespace, "other", {"k": "1"}))
        await again.done()
        assert await data(plane, namespace, "settings") == {"k": "1"}
        assert key("ConfigMap", namespace, "settings") not in again.target.entries


async def test_slices_of_a_labelled_service_are_left_alone(plane: ControlPlane, namespace: str) -> None:
    """The control plane copies a Service's labels, ours too, to its EndpointSlices: they are nobody's but its own."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }
    own = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "outside", "namespace": namespace, "labels": {"kubernetes.io/service-name": "outside"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.1"]}],
    }
    async with keeping(plane, namespace) as keeper:
        keeper.want(service, own)
        await keeper.done()
        selector = f"fleet/hub={keeper.hub_id},kubernetes.io/service-name=web"

        def copied() -> list[LiveObject]:
            of_set = keeper.live.of_set(keeper.target.part_of)
            return [live for k, live in of_set if k.kind == "EndpointSlice" and k.name.startswith("web-")]

        await keeper.until(lambda _: copied())
        before = await plane.kubectl("-n", namespace, "get", "endpointslices", "-l", selector, "-o", "json")
        assert [live.ours for live in copied()] == [False]
        keeper.want(service)
        await keeper.done()
        after = await plane.kubectl("-n", namespace, "get", "endpointslices", "-l", selector, "-o", "json")
        assert json.loads(after)["items"] == json.loads(before)["items"]
        assert keeper.target.entries.keys() == {key("Service", namespace, "web")}


@pytest.fixture
async def two_apps(tmp_path: Path, plane: ControlPlane) -> Fleet:
    """A place for a hub with one cluster and no app yet."""
    await release_leases([plane])
    fleet = Fleet(tmp_path)
    fleet.declare("fleet.yaml", repository_document(fleet.repository.path), environment_document())
    fleet.declare("apps.yaml", app_document("a", "a"))
    fleet.declare(f"{plane.name}.yaml", cluster_document(plane.name, plane.kubeconfig_path))
    return fleet


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "a")])
async def test_two_apps_with_one_object(
    two_apps: Fleet, plane: ControlPlane, namespace: str, first: str, second: str
) -> None:
    """Who came first keeps it, also after a restart; the other is told, and gets it, undeleted, when the first drops it."""
    files = {f"{first}/own.yaml": CONFIG.format(namespace=namespace, colour="own").replace("settings", "own")}
    files |= {f"{first}/x.yaml": CONFIG.format(namespace=namespace, colour=first)}
    files |= {f"{second}/x.yaml": CONFIG.format(namespace=namespace, colour=second)}
    two_apps.repository.commit("both", files)
    two_apps.declare("apps.yaml", app_document(first, first))
    async with two_apps.running():
        await two_apps.synced((plane.name, first))
        before = await get(plane, "configmap", "settings", namespace)
        two_apps.declare("apps.yaml", app_document("a", "a"), app_document("b", "b"))
        row = await two_apps.state(plane.name, second, "Failed", "Duplicate")
        assert f"app {first}" in row.message
    async with two_apps.running():
        await two_apps.synced((plane.name, first))
        await two_apps.state(plane.name, second, "Failed", "Duplicate")
        assert await data(plane, namespace, "settings") == {"colour": first}
        two_apps.repository.git("rm", "-q", f"{first}/x.yaml")
        revision = two_apps.repository.commit("leave it to the other")
        await two_apps.synced((plane.name, first), (plane.name, second), revision=revision)
        after = await get(plane, "configmap", "settings", namespace)
        assert before is not None
        assert after is not None
        assert after["data"] == {"colour": second}
        assert after["metadata"]["uid"] == before["metadata"]["uid"]


async def test_an_annotation_on_the_live_object_keeps_it(plane: ControlPlane, namespace: str) -> None:
    """`fleet/prune: disabled` by hand: the object is let go, without our labels, when it leaves Git."""
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"))
        await keeper.done()
        await plane.kubectl("-n", namespace, "annotate", "configmap/settings", "fleet/prune=disabled")
        which = key("ConfigMap", namespace, "settings")
        await keeper.until(lambda _: (live := keeper.live.get(which)) is not None and not live.flags.prune)
        keeper.want()
        report = await keeper.done()
        assert report.changes == ()
        found = await get(plane, "configmap", "settings", namespace)
        assert found is not None
        assert "labels" not in found["metadata"]
        [note] = [note for note in keeper.notes if note.kind == Action.PRUNE.value]
        assert note.reason == "Orphaned"
