"""A release tried on a real API server: what it refuses beforehand, what cannot be known, and that nothing is written."""

from collections.abc import Mapping
from typing import Any

from fleet.object import ObjectKey
from fleet.reconcile.port import Policy
from fleet.reconcile.preflight import Coming
from fleet.reconcile.run import Desired, Order
from fleet.reconcile.target import Target
from fleet.sim.real import ControlPlane
from tests.cluster.connection import config_map
from tests.cluster.keeper import Body, Keeper, definition, job, keeping, settings
from tests.cluster.site import until
from tests.cluster.test_audit import POLICIES, create
from tests.harness.reconcile import manifests


async def try_out(keeper: Keeper, *bodies: Body) -> dict[str, str]:
    """Try a release beside the running target; `kind/name: action outcome reason`, and the message of a refusal."""
    wanted = manifests(*bodies, namespace=keeper.namespace)
    order = Order(policy=Policy(), desired=Desired(release=99, revision="1" * 40, digest="new", manifests=wanted))
    target = Target(keeper.target.id, keeper.target._around)
    trials = await target.preflight(order, Coming())
    return {
        f"{t.change.key.kind}/{t.change.key.name}": f"{t.change.action.value} {t.outcome.value} {t.reason}".strip()
        for t in trials
    }


async def versions(plane: ControlPlane, namespace: str) -> Mapping[ObjectKey, str]:
    """Every resourceVersion that fleet could have moved."""
    paths = {
        "ConfigMap": f"/api/v1/namespaces/{namespace}/configmaps",
        "Service": f"/api/v1/namespaces/{namespace}/services",
        "Job": f"/apis/batch/v1/namespaces/{namespace}/jobs",
        "System": "/api/v1/namespaces/fleet-system/configmaps",
        "Namespace": "/api/v1/namespaces",
    }
    found = {}
    for kind, path in paths.items():
        for item in (await plane.request("GET", path)).body["items"]:
            meta = item["metadata"]
            # the cluster's own controllers and other tests' hubs write when they like: to what is not this test's,
            # to the namespace itself, and this ConfigMap
            ours = meta.get("namespace") == namespace or namespace in meta["name"]
            if ours and meta["name"] != "kube-root-ca.crt":
                version = meta["resourceVersion"] if kind != "Namespace" else ""
                found[ObjectKey("", kind, meta.get("namespace", ""), meta["name"])] = version
    return found


def service(namespace: str, **spec: Any) -> dict[str, Any]:
    """Write a Service."""
    metadata = {"name": "web", "namespace": namespace}
    full = {"selector": {"app": "web"}, "ports": [{"port": 80}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": full}


def widget(group: str, namespace: str) -> dict[str, Any]:
    """Write a custom resource."""
    metadata = {"name": "w", "namespace": namespace}
    return {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": metadata, "spec": {"size": 1}}


async def test_nothing_is_written_and_immutable_fields_are_known(plane: ControlPlane, namespace: str) -> None:
    """What differs is tried, the rest is not; a Job of ours would be made anew, a Service's address may not change."""
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"), service(namespace, clusterIP="None"), job(namespace, suspend=True))
        await keeper.done()
        await keeper.until(lambda report: report.complete)
        before = await versions(plane, namespace)
        found = await try_out(
            keeper,
            settings(namespace, k="2"),
            service(namespace, clusterIP="10.0.0.77"),
            job(namespace, image="m:2", suspend=True),
            config_map(namespace, "extra", {"a": "1"}),
        )
        assert found == {
            "ConfigMap/settings": "configure ok",
            "ConfigMap/extra": "create ok",
            "Service/web": "configure refused ImmutableField",
            "Job/migrate": "configure unverified Recreated",
        }
        assert await versions(plane, namespace) == before
        assert keeper.written == 3


async def test_a_quota_is_known_beforehand(plane: ControlPlane, namespace: str) -> None:
    """One more ConfigMap than it allows is refused; with a release that changes the quota nobody can tell."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": namespace},
        "spec": {"hard": {"count/secrets": "0"}},
    }
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    assert (await plane.request("POST", path, quota)).code == 201
    usage = {"status": {"hard": {"count/secrets": "0"}, "used": {"count/secrets": "0"}}}
    merge = "application/merge-patch+json"  # the controller that counts is not among those that run here
    assert (await plane.request("PATCH", f"{path}/small/status", usage, media=merge)).code == 200
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": namespace}}
    async with keeping(plane, namespace) as keeper:

        async def known() -> bool:
            return (await try_out(keeper, secret))["Secret/s"] == "create refused QuotaExceeded"

        await until(known)  # admission reads the quota from a cache of its own
        wider = {**quota, "metadata": {"name": "other", "namespace": namespace}}
        assert (await try_out(keeper, secret, wider))["Secret/s"] == "create unverified ComesWithRelease"


async def test_an_admission_policy_is_asked(plane: ControlPlane, namespace: str) -> None:
    """It refuses one object, and its neighbour is taken."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.metadata.name != 'evil'", "message": "no evil here"}],
    }
    match = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {"policyName": namespace, "validationActions": ["Deny"], "matchResources": match}
    await create(plane, "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespace, spec)
    await create(plane, "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", namespace, binding)
    try:
        async with keeping(plane, namespace) as keeper:
            bodies = (config_map(namespace, "evil", {}), config_map(namespace, "good", {}))

            async def known() -> bool:
                found = await try_out(keeper, *bodies)
                return found == {
                    "ConfigMap/evil": "create refused AdmissionDenied",
                    "ConfigMap/good": "create ok",
                }

            await until(known)  # the server needs a moment to learn of the policy
    finally:
        for plural in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
            await plane.request("DELETE", f"{POLICIES}/{plural}/{namespace}")


async def test_what_a_release_brings_itself_cannot_be_tried(plane: ControlPlane, namespace: str) -> None:
    """A namespace or a definition that comes with it makes its objects unverified; one that nobody brings, refused."""
    group = f"{namespace}.example.com"
    inner = f"{namespace}-inner"
    fresh = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": inner}}
    async with keeping(plane, namespace) as keeper:
        before = await versions(plane, namespace)
        assert await try_out(keeper, widget(group, namespace), config_map(inner, "a", {})) == {
            "Widget/w": "skip refused MissingKind",
            "ConfigMap/a": "create refused NotFound",
        }
        found = await try_out(keeper, definition(group), widget(group, namespace), fresh, config_map(inner, "a", {}))
        assert found == {
            f"CustomResourceDefinition/widgets.{group}": "create ok",
            f"Namespace/{inner}": "create ok",
            "Widget/w": "skip unverified ComesWithRelease",
            "ConfigMap/a": "create unverified ComesWithRelease",
        }
        assert await versions(plane, namespace) == before


async def test_a_wrong_object_and_a_version_that_is_not_served_are_refused(plane: ControlPlane, namespace: str) -> None:
    """By the server's own words for the first, by what it serves for the second."""
    wrong = service(namespace, ports=[{"port": 99999}])
    old = {**config_map(namespace, "old", {}), "apiVersion": "v1beta7"}
    async with keeping(plane, namespace) as keeper:
        assert await try_out(keeper, wrong, old) == {
            "Service/web": "create refused Invalid",
            "ConfigMap/old": "create refused VersionNotServed",
        }
