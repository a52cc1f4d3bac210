"""What the ownership digest cannot see on a real API server, and the daily audit does."""

from typing import Any

from fleet.object import ObjectKey
from fleet.sim.real import ControlPlane
from tests.cluster.keeper import Keeper, definition, deployment, keeping, key, settings
from tests.cluster.site import until
from tests.cluster.test_reconcile import value

POLICIES = "/apis/admissionregistration.k8s.io/v1"


async def audit(keeper: Keeper) -> bool:
    """Audit what the last run left in sync."""
    report = await keeper.done()
    return await keeper.target.audit_once(report)


def findings(keeper: Keeper) -> dict[ObjectKey, tuple[str, ...]]:
    """What audits found and nothing has mended."""
    return {each: finding.paths for each, finding in keeper.target.audited.items()}


async def test_where_nothing_differs_nothing_is_found_or_written(plane: ControlPlane, namespace: str) -> None:
    """Defaults, quantities, injected fields and a scaled Deployment are no differences, and a dry run writes nothing."""
    async with keeping(plane, namespace) as keeper:
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        }
        body = deployment(namespace)
        body["spec"]["template"]["spec"]["containers"][0]["resources"] = {
            "requests": {"cpu": "0.1", "memory": "1024Mi"}
        }
        keeper.want(settings(namespace, k="1"), body, service)
        await keeper.done()
        await keeper.until(lambda report: keeper.summary(report).done)
        await plane.kubectl("-n", namespace, "annotate", "service", "web", "note=1", "--field-manager=other")
        before = await value(
            keeper, key("ConfigMap", namespace, "settings"), lambda b: b["metadata"]["resourceVersion"]
        )
        assert not await audit(keeper)
        assert findings(keeper) == {}
        assert keeper.written == 3
        after = await value(keeper, key("ConfigMap", namespace, "settings"), lambda b: b["metadata"]["resourceVersion"])
        assert after == before


async def test_a_value_changed_by_admission_is_found_and_repaired(plane: ControlPlane, namespace: str) -> None:
    """A policy changes our value inside somebody else's request: our ownership is whole, and the audit finds it."""
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"))
        await keeper.done()
        which = key("ConfigMap", namespace, "settings")
        await mutate(plane, namespace, which)
        assert await value(keeper, which, lambda b: b["data"]["k"]) == "evil"
        assert (await keeper.done()).written == 0
        assert keeper.written == 1

        async def found() -> bool:
            return await audit(keeper)

        await until(found)  # the server needs a moment to forget the policy, which would change our value, too
        assert findings(keeper) == {which: (".data.k",)}
        keeper.want(settings(namespace, k="1"))
        [note] = await keeper.noted("drift")
        assert (note.reason, ".data.k" in note.message) == ("AuditDrift", True)
        assert await value(keeper, which, lambda b: b["data"]["k"]) == "1"
        assert findings(keeper) == {}
        assert not await audit(keeper)


async def mutate(plane: ControlPlane, namespace: str, which: ObjectKey) -> None:
    """Let a MutatingAdmissionPolicy change `data.k` of a ConfigMap in a request of another manager, then take it away."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["configmaps"]}
    change = {
        "patchType": "ApplyConfiguration",
        "applyConfiguration": {"expression": 'Object{data: {"k": "evil"}}'},
    }
    spec: dict[str, Any] = {
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [
            {"name": "poked", "expression": "has(object.metadata.annotations) && 'poke' in object.metadata.annotations"}
        ],
        "mutations": [change],
        "reinvocationPolicy": "Never",
        "failurePolicy": "Fail",
    }
    await create(plane, "mutatingadmissionpolicies", "MutatingAdmissionPolicy", namespace, spec)
    match = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {"policyName": namespace, "matchResources": match}
    await create(plane, "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", namespace, binding)

    async def changed() -> bool:
        poke = {"metadata": {"annotations": {"poke": "1"}}}
        path = f"/api/v1/namespaces/{namespace}/configmaps/{which.name}"
        reply = await plane.request("PATCH", f"{path}?fieldManager=other", poke, media="application/merge-patch+json")
        assert reply.code == 200
        return bool(reply.body["data"]["k"] == "evil")

    try:
        await until(changed)
    finally:
        for plural in ("mutatingadmissionpolicybindings", "mutatingadmissionpolicies"):
            await plane.request("DELETE", f"{POLICIES}/{plural}/{namespace}")


async def create(plane: ControlPlane, plural: str, kind: str, name: str, spec: dict[str, Any]) -> None:
    """Create a policy's part."""
    body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    reply = await plane.request("POST", f"{POLICIES}/{plural}", body)
    assert reply.code == 201, reply.body


async def test_a_value_dropped_by_a_schema_change_is_found(plane: ControlPlane, namespace: str) -> None:
    """A field that the definition no longer has is dropped from what is read, while we still own it."""
    group = f"{namespace}.example.com"
    widget = {
        "apiVersion": f"{group}/v1",
        "kind": "Widget",
        "metadata": {"name": "w", "namespace": namespace},
        "spec": {"size": 1},
    }
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert (await plane.request("POST", crds, definition(group))).code == 201
    async with keeping(plane, namespace) as keeper:
        keeper.want(widget)
        await keeper.done()
        which = key("Widget", namespace, "w", group)
        assert not await audit(keeper)
        schema = {
            "type": "object",
            "properties": {"spec": {"type": "object", "properties": {"other": {"type": "string"}}}},
        }
        patch = [{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": schema}]
        await plane.request(
            "PATCH", f"{crds}/widgets.{group}?fieldManager=other", patch, media="application/json-patch+json"
        )

        async def dropped() -> bool:
            return bool(await value(keeper, which, lambda b: b.get("spec", {}).get("size")) is None)

        await until(dropped)
        report = keeper.report
        assert report is not None

        async def found() -> bool:
            await keeper.target.audit_once(report)
            return which in keeper.target.audited

        await until(found)
        assert "size" in keeper.target.audited[which].message
