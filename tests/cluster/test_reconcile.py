"""A target's runs against a real API server: what people and controllers do, and what fleet makes of it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from fleet.kube.gate import Priority
from fleet.object import ObjectKey
from fleet.reconcile.health import Health
from fleet.reconcile.plan import Action
from fleet.sim.real import ControlPlane
from tests.cluster.keeper import Keeper, definition, deployment, job, keeping, key, settings
from tests.cluster.site import until

USER = Priority.USER


async def body_of(keeper: Keeper, which: ObjectKey) -> dict[str, Any]:
    """Read an object from the server."""
    found = await keeper.connection.api.get(which, priority=USER)
    assert found is not None, which
    body: dict[str, Any] = json.loads(found.body or b"")
    return body


async def value(keeper: Keeper, which: ObjectKey, read: Callable[[dict[str, Any]], Any]) -> Any:
    """Read one field; None while the object is absent."""
    found = await keeper.connection.api.get(which, priority=USER)
    return read(json.loads(found.body or b"")) if found is not None else None


def image(body: dict[str, Any]) -> str:
    """The first container's image."""
    return str(body["spec"]["template"]["spec"]["containers"][0]["image"])


async def test_install_rest_restart(plane: ControlPlane, namespace: str) -> None:
    """An app comes up, becomes Current, and neither rest nor restart writes anything."""
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"), deployment(namespace))
        await keeper.done()
        report = await keeper.until(lambda report: keeper.summary(report).done)
        assert keeper.written == 2
        assert keeper.notes == []
        assert {change.reason for change in report.changes} == {"InSync"}
        ledger, hub_id = keeper.ledger, keeper.hub_id
    async with keeping(plane, namespace, ledger, hub_id) as again:
        again.want(settings(namespace, k="1"), deployment(namespace))
        await again.done()
        await again.until(lambda report: again.summary(report).done)
        assert again.written == 0
        assert again.notes == []


BY_HAND: dict[str, tuple[list[str], str]] = {
    "scale": (["scale", "deployment/web", "--replicas=3"], ".spec.replicas"),
    "set image": (["set", "image", "deployment/web", "web=evil:1"], "image"),
    "set env": (["set", "env", "deployment/web", "MODE=evil"], "MODE"),
    "set env adds": (["set", "env", "deployment/web", "EXTRA=1"], "EXTRA"),
    "label": (["label", "deployment/web", "app=other", "--overwrite"], ".metadata.labels.app"),
    "label adds": (["label", "deployment/web", "added=1"], ".metadata.labels.added"),
    "annotate adds": (["annotate", "deployment/web", "note=1"], "note"),
    "patch": (["patch", "deployment/web", "-p", '{"spec":{"replicas":4}}'], ".spec.replicas"),
    "patch adds": (["patch", "deployment/web", "-p", '{"spec":{"paused":true}}'], ".spec.paused"),
    "delete": (["delete", "deployment/web"], "deleted"),
    "unlabel ours": (["label", "deployment/web", "fleet/hub-"], "deleted"),
    "unlabel set": (["label", "deployment/web", "applyset.kubernetes.io/part-of-"], "part-of"),
}


@pytest.mark.parametrize("deed", BY_HAND)
async def test_what_kubectl_does_is_undone(plane: ControlPlane, namespace: str, deed: str) -> None:
    """Each way of changing an object by hand is seen, named and undone, and then there is peace."""
    args, named = BY_HAND[deed]
    async with keeping(plane, namespace) as keeper:
        keeper.want(deployment(namespace))
        await keeper.done()
        which = key("Deployment", namespace, "web", "apps")
        before = await body_of(keeper, which)
        await plane.kubectl("-n", namespace, *args)
        notes = await keeper.noted("drift") if deed != "unlabel set" else []
        await keeper.done()
        assert all(named in note.message for note in notes)
        assert len(notes) in (0, 1)

        async def undone() -> bool:
            after = await body_of(keeper, which)
            # the server shows a write before the run that made it has reported it
            return _ours(after) == _ours(before) and keeper.written >= 2

        await until(undone)
        report = await keeper.done()
        assert keeper.written == 2
        assert report.failures == {}


def _ours(body: dict[str, Any]) -> dict[str, Any]:
    metadata = body["metadata"]
    annotations = {
        k: v for k, v in metadata.get("annotations", {}).items() if not k.startswith("deployment.kubernetes.io")
    }
    return {"labels": metadata["labels"], "annotations": annotations, "spec": body["spec"]}


async def test_an_edit_in_an_editor_is_undone(plane: ControlPlane, namespace: str) -> None:
    """`kubectl replace`, as an editor does it: values set back, additions removed."""
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"))
        await keeper.done()
        which = key("ConfigMap", namespace, "settings")
        body = await body_of(keeper, which)
        body["data"] = {"k": "2", "added": "x"}
        body["metadata"].pop("managedFields")
        reply = await plane.request(
            "PUT", f"/api/v1/namespaces/{namespace}/configmaps/settings?fieldManager=kubectl-edit", body
        )
        assert reply.code == 200
        notes = await keeper.noted("drift")
        await keeper.done()
        assert (await body_of(keeper, which))["data"] == {"k": "1"}
        assert ".data.k changed by kubectl-edit" in notes[0].message


async def test_rollout_restart_is_respected(plane: ControlPlane, namespace: str) -> None:
    """`kubectl rollout restart` is not drift: healing it would roll the pods back."""
    async with keeping(plane, namespace) as keeper:
        keeper.want(deployment(namespace))
        await keeper.done()
        await plane.kubectl("-n", namespace, "rollout", "restart", "deployment/web")
        await plane.kubectl("-n", namespace, "scale", "deployment/web", "--replicas=2")
        await keeper.noted("drift")
        await keeper.done()
        body = await body_of(keeper, key("Deployment", namespace, "web", "apps"))
        template = body["spec"]["template"]["metadata"]
        assert "kubectl.kubernetes.io/restartedAt" in template["annotations"]
        assert body["spec"]["replicas"] == 1
        assert len(keeper.notes) == 1


async def test_what_was_there_before_stays(plane: ControlPlane, namespace: str) -> None:
    """An object made by kubectl is adopted; its other fields stay through repairs and releases, later additions go."""
    before = settings(namespace, k="old", theirs="1")
    before["metadata"]["annotations"] = {"note": "mine"}
    await plane.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(before))
    which = key("ConfigMap", namespace, "settings")
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"))
        await keeper.done()
        assert [note.kind for note in keeper.notes] == ["adopt"]
        await plane.kubectl("-n", namespace, "patch", "configmap/settings", "-p", '{"data":{"k":"2","later":"x"}}')
        await keeper.noted("drift")
        await keeper.done()
        keeper.want(settings(namespace, k="3"))
        await keeper.done()
        body = await body_of(keeper, which)
        assert body["data"] == {"k": "3", "theirs": "1"}
        assert body["metadata"]["annotations"]["note"] == "mine"


async def test_prune_and_removal(plane: ControlPlane, namespace: str) -> None:
    """What leaves Git goes; a removed app goes whole, with its parent."""
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"), deployment(namespace))
        await keeper.done()
        keeper.want(settings(namespace, k="1"))
        await keeper.done()
        api = keeper.connection.api
        assert await api.get_metadata(key("Deployment", namespace, "web", "apps"), priority=USER) is None
        keeper.want(removed=True)
        report = await keeper.done()
        assert report.changes == ()
        assert await api.get_metadata(key("ConfigMap", namespace, "settings"), priority=USER) is None
        parent = key("ConfigMap", "fleet-system", f"fleet-app-app-{namespace}")
        assert await api.get_metadata(parent, priority=USER) is None
        assert keeper.ledger.rows[keeper.target.id] == {}


async def test_an_object_with_a_finalizer_is_waited_for(plane: ControlPlane, namespace: str) -> None:
    """A pruned object that waits on a finalizer is Terminating until that is taken off."""
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"))
        await keeper.done()
        patch = '{"metadata":{"finalizers":["example.com/hold"]}}'
        await plane.kubectl("-n", namespace, "patch", "configmap/settings", "-p", patch)
        keeper.want()
        await keeper.until(lambda report: any(c.reason == "Terminating" for c in report.changes))
        await plane.kubectl("-n", namespace, "patch", "configmap/settings", "-p", '{"metadata":{"finalizers":null}}')
        report = await keeper.done()
        assert report.changes == ()


async def test_a_definition_and_its_objects(plane: ControlPlane, namespace: str) -> None:
    """A definition and a custom resource of it in one commit; a schema that grows with an object that uses it."""
    group = f"{namespace}.example.com"
    crd = definition(group)
    widget: dict[str, Any] = {
        "apiVersion": f"{group}/v1",
        "kind": "Widget",
        "metadata": {"name": "w", "namespace": namespace},
        "spec": {"size": 1},
    }
    async with keeping(plane, namespace) as keeper:
        keeper.want(crd, widget, settings(namespace, k="1"))
        await keeper.done()
        await keeper.until(lambda report: keeper.summary(report).done)
        assert keeper.notes == []
        which = key("Widget", namespace, "w", group)
        assert await value(keeper, which, lambda body: body["spec"]["size"]) == 1
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        schema["colour"] = {"type": "string"}
        keeper.want(crd, {**widget, "spec": {"size": 1, "colour": "red"}}, settings(namespace, k="1"))
        await keeper.done()
        assert await value(keeper, which, lambda body: body["spec"]["colour"]) == "red"
        assert [note for note in keeper.notes if note.kind == "apply"] == []
        keeper.want(removed=True)
        report = await keeper.done()
        assert report.changes == ()
        assert [note.reason for note in keeper.notes if note.reason == "Orphaned"] == ["Orphaned"]
    await plane.kubectl("delete", "crd", f"widgets.{group}")


async def test_a_missing_namespace_is_waited_for(plane: ControlPlane, namespace: str) -> None:
    """An object whose namespace is missing waits for it by name and is applied once it is there."""
    late = f"{namespace}-late"
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(late, k="1"), settings(namespace, k="1"))
        report = await keeper.until(lambda report: report.waits_for)
        assert report.waits_for == {key("Namespace", "", late)}
        assert keeper.summary(report).failed is None
        await plane.kubectl("create", "namespace", late)
        keeper.target.retry_now()
        await keeper.done()
    await plane.kubectl("delete", "namespace", late, "--wait=false")


async def test_bad_objects_fail_alone(plane: ControlPlane, namespace: str) -> None:
    """An invalid object and an unknown field are named; the others are applied, and a fix is taken at once."""
    bad = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bad", "namespace": namespace}}
    unknown = deployment(namespace)
    unknown["spec"]["colour"] = "red"
    async with keeping(plane, namespace) as keeper:
        keeper.want({**bad, "spec": {"ports": [{"port": 99999}]}}, unknown, settings(namespace, k="1"))
        report = await keeper.until(lambda report: len(report.failures) == 2)
        assert sorted(error.reason for error in report.failures.values()) == ["Invalid", "SchemaMismatch"]
        assert await value(keeper, key("ConfigMap", namespace, "settings"), lambda body: body["data"]) == {"k": "1"}
        keeper.want({**bad, "spec": {"ports": [{"port": 80}]}}, deployment(namespace), settings(namespace, k="1"))
        await keeper.done()


async def test_a_job_runs_once(plane: ControlPlane, namespace: str) -> None:
    """A Job that its TTL removes at once is not run again, until its template changes."""
    which = key("Job", namespace, "migrate", "batch")
    async with keeping(plane, namespace) as keeper:
        for image_ in ("m:1", "m:2"):
            keeper.want(job(namespace, image=image_, ttlSecondsAfterFinished=0))
            report = await keeper.until(lambda report: [c.reason for c in report.changes] == ["Finished"])
            assert keeper.summary(report).done
            assert await value(keeper, which, lambda body: body) is None
        assert keeper.written == 2
        assert keeper.notes == []


async def test_a_changed_job_is_replaced(plane: ControlPlane, namespace: str) -> None:
    """A changed template deletes and creates the Job, once."""
    which = key("Job", namespace, "migrate", "batch")
    async with keeping(plane, namespace) as keeper:
        keeper.want(job(namespace))
        # a Job that goes before its controller has seen its pod leaves it waiting for that one, for five minutes
        await keeper.until(lambda report: keeper.summary(report).done)
        uid = await value(keeper, which, lambda body: body["metadata"]["uid"])
        keeper.want(job(namespace, image="m:2"))
        await keeper.done()
        assert await value(keeper, which, lambda body: body["metadata"]["uid"]) != uid
        await keeper.until(lambda report: keeper.summary(report).done)
        assert keeper.written == 2


async def test_a_changed_pod_is_replaced(plane: ControlPlane, namespace: str) -> None:
    """A bare Pod whose spec changed is deleted and created."""

    def pod(port: int) -> dict[str, Any]:
        container = {"name": "c", "image": "c:1", "ports": [{"containerPort": port}]}
        metadata = {"name": "bare", "namespace": namespace}
        spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    async with keeping(plane, namespace) as keeper:
        keeper.want(pod(80))
        await keeper.until(lambda report: keeper.summary(report).done)
        keeper.want(pod(81))
        await keeper.done()
        ports = await value(keeper, key("Pod", namespace, "bare"), lambda body: body["spec"]["containers"][0]["ports"])
        assert [each["containerPort"] for each in ports] == [81]
        assert keeper.written == 2


async def test_an_autoscaler_gets_the_replicas(plane: ControlPlane, namespace: str) -> None:
    """Who scales by the subresource and is no person keeps the replicas, through releases and repairs."""
    which = key("Deployment", namespace, "web", "apps")
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/web/scale?fieldManager=kube-controller-manager"
    async with keeping(plane, namespace) as keeper:
        keeper.want(deployment(namespace))
        await keeper.done()
        scale = (await plane.request("GET", path.partition("?")[0])).body
        del scale["metadata"]["resourceVersion"]
        reply = await plane.request("PUT", path, {**scale, "spec": {"replicas": 3}})
        assert reply.code == 200, reply.body
        await keeper.until(lambda _: (live := keeper.live.get(which)) is not None and live.scaled_by != "")
        await plane.kubectl("-n", namespace, "set", "image", "deployment/web", "web=evil:1")
        await keeper.noted("drift")
        await keeper.done()
        assert await value(keeper, which, lambda body: body["spec"]["replicas"]) == 3
        assert await value(keeper, which, image) == "web:1"
        keeper.want(deployment(namespace, image="web:2"))
        await keeper.done()
        assert await value(keeper, which, lambda body: body["spec"]["replicas"]) == 3
        assert len(keeper.notes) == 1
        await plane.kubectl("-n", namespace, "label", "deployment/web", "fleet/hub-")
        await keeper.noted("drift", 2)
        await keeper.done()
        assert await value(keeper, which, lambda body: body["spec"]["replicas"]) == 3


async def test_an_immutable_field(plane: ControlPlane, namespace: str) -> None:
    """A changed selector fails with its reason; `fleet/force` recreates the object."""
    which = key("Deployment", namespace, "web", "apps")
    changed = deployment(namespace)
    changed["spec"]["selector"]["matchLabels"]["tier"] = "web"
    changed["spec"]["template"]["metadata"]["labels"]["tier"] = "web"
    async with keeping(plane, namespace) as keeper:
        keeper.want(deployment(namespace))
        await keeper.done()
        uid = await value(keeper, which, lambda body: body["metadata"]["uid"])
        keeper.want(changed)
        report = await keeper.until(lambda report: report.failures)
        assert [error.reason for error in report.failures.values()] == ["ImmutableField"]
        changed["metadata"]["annotations"] = {"fleet/force": "enabled"}
        keeper.want(changed)
        await keeper.done()
        assert await value(keeper, which, lambda body: body["metadata"]["uid"]) != uid
        assert [note.kind for note in keeper.notes] == ["apply"]


async def test_opting_out_by_hand(plane: ControlPlane, namespace: str) -> None:
    """An annotation by hand stops repairs and is shown with its author; taking it off resumes them."""
    which = key("ConfigMap", namespace, "settings")
    async with keeping(plane, namespace) as keeper:
        keeper.want(settings(namespace, k="1"))
        await keeper.done()
        await plane.kubectl("-n", namespace, "annotate", "configmap/settings", "fleet/reconcile=disabled")
        report = await keeper.until(lambda report: report.changes[0].reason == "OptedOut")
        assert report.changes[0].action is Action.SKIP
        assert "kubectl-annotate" in report.changes[0].message
        await plane.kubectl("-n", namespace, "patch", "configmap/settings", "-p", '{"data":{"k":"2"}}')
        await keeper.until(lambda report: keeper.summary(report).drifted)
        assert await value(keeper, which, lambda body: body["data"]["k"]) == "2"
        await plane.kubectl("-n", namespace, "annotate", "configmap/settings", "fleet/reconcile-")
        await keeper.noted("drift")
        await keeper.done()
        assert await value(keeper, which, lambda body: body["data"]["k"]) == "1"


async def test_a_deployment_is_current_only_when_it_is(plane: ControlPlane, namespace: str) -> None:
    """Health speaks of what was applied: InProgress at first, Current when the new pods are there."""
    async with keeping(plane, namespace) as keeper:
        keeper.want(deployment(namespace))
        report = await keeper.done()
        await keeper.until(lambda report: keeper.summary(report).done)
        keeper.want(deployment(namespace, image="web:2"))
        report = await keeper.done()
        await keeper.until(lambda report: keeper.summary(report).done)
        live = keeper.live.get(key("Deployment", namespace, "web", "apps"))
        assert live is not None
        assert live.verdict is not None
        assert live.verdict.health is Health.CURRENT
        body = await body_of(keeper, key("Deployment", namespace, "web", "apps"))
        assert body["status"]["observedGeneration"] == body["metadata"]["generation"] == live.generation
        assert report.failures == {}
