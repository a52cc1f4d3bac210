"""Server-side apply, delete and reads on a real API server."""

import pytest

from fleet.errors import Conflict, Invalid, NotFound
from fleet.kube.gate import Priority
from fleet.kube.ownership import owned_digest
from fleet.object import Gvk, ObjectKey
from fleet.sim.real import ControlPlane
from tests.cluster.connection import config_map, connect, manifest

USER = Priority.USER


async def test_apply_creates_then_leaves_alone(plane: ControlPlane, namespace: str) -> None:
    """The first apply creates; the same again changes neither resourceVersion nor ownership."""
    async with connect(plane) as c:
        m = manifest(config_map(namespace, "a", {"k": "v"}))
        first = await c.api.apply(m, priority=USER)
        again = await c.api.apply(m, priority=USER, known_rv=first.observed.rv)
        assert first.created
        assert not again.created
        assert again.changed is False
        assert owned_digest(first.observed.managed) == owned_digest(again.observed.managed) != b""
        assert first.observed.body is None


async def test_conflict_is_overridden_and_told(plane: ControlPlane, namespace: str) -> None:
    """A value that kubectl took is taken back by force, and the answer says from whom."""
    async with connect(plane) as c:
        m = manifest(config_map(namespace, "a", {"k": "v"}))
        before = await c.api.apply(m, priority=USER)
        await plane.kubectl("-n", namespace, "patch", "configmap", "a", "--type=merge", "-p", '{"data":{"k":"x"}}')
        taken = await c.api.get_metadata(m.key, priority=USER)
        assert taken is not None
        assert owned_digest(taken.managed) != owned_digest(before.observed.managed)
        with pytest.raises(Conflict):
            await c.api.apply(m, priority=USER, force=False)
        after = await c.api.apply(m, priority=USER)
        assert [cause.field for cause in after.overridden] == [".data.k"]
        assert "kubectl-patch" in after.overridden[0].message
        assert owned_digest(after.observed.managed) == owned_digest(before.observed.managed)


async def test_dry_run_changes_nothing(plane: ControlPlane, namespace: str) -> None:
    """A dry run answers with the object as it would be, and leaves none."""
    async with connect(plane) as c:
        m = manifest(config_map(namespace, "dry", {"k": "v"}))
        applied = await c.api.apply(m, priority=USER, dry_run=True, whole=True)
        assert applied.observed.body is not None
        assert await c.api.get(m.key, priority=USER) is None


async def test_wrong_objects_are_invalid(plane: ControlPlane, namespace: str) -> None:
    """An unknown field and a wrong type are the object's fault, whatever HTTP status the server chose."""
    async with connect(plane) as c:
        wrong = {**config_map(namespace, "bad", {}), "datum": {"k": "v"}}
        with pytest.raises(Invalid) as unknown:
            await c.api.apply(manifest(wrong), priority=USER)
        typed = {**config_map(namespace, "bad", {}), "data": {"k": {"nested": "value"}}}
        with pytest.raises(Invalid):
            await c.api.apply(manifest(typed), priority=USER)
        named = config_map(namespace, "Not_A_Name", {})
        with pytest.raises(Invalid) as refused:
            await c.api.apply(manifest(named), priority=USER)
        assert unknown.value.reason == "SchemaMismatch"
        assert refused.value.status == 422
        assert refused.value.causes


async def test_immutable_field_is_named(plane: ControlPlane, namespace: str) -> None:
    """Changing a Deployment's selector is told apart from other invalid objects."""
    async with connect(plane) as c:

        def deployment(app: str) -> dict[str, object]:
            labels = {"app": app}
            template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}
            spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
            metadata = {"name": "web", "namespace": namespace}
            return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}

        await c.api.apply(manifest(deployment("a")), priority=USER)
        with pytest.raises(Invalid) as refused:
            await c.api.apply(manifest(deployment("b")), priority=USER)
        assert refused.value.reason == "ImmutableField"


async def test_missing_namespace_and_kind(plane: ControlPlane) -> None:
    """A namespace that is not there, a kind that is not served and a version that is not are three different errors."""
    async with connect(plane) as c:
        with pytest.raises(NotFound) as no_namespace:
            await c.api.apply(manifest(config_map("nowhere", "a", {})), priority=USER)
        body = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a", "namespace": "default"}}
        with pytest.raises(NotFound) as no_kind:
            await c.api.apply(manifest(body), priority=USER)
        old = {"apiVersion": "apps/v1beta1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "default"}}
        with pytest.raises(Invalid) as no_version:
            await c.api.apply(manifest(old), priority=USER)
        assert no_namespace.value.what == "namespace"
        assert no_kind.value.what == "kind"
        assert no_version.value.reason == "VersionNotServed"


async def test_delete_wants_the_right_uid(plane: ControlPlane, namespace: str) -> None:
    """A delete hits the object that was meant or nothing; twice is the same as once."""
    async with connect(plane) as c:
        m = manifest(config_map(namespace, "a", {"k": "v"}))
        applied = await c.api.apply(m, priority=USER)
        with pytest.raises(Conflict):
            await c.api.delete(m.key, "00000000-0000-4000-8000-000000000000", priority=USER)
        assert (await c.api.delete(m.key, applied.observed.uid, priority=USER)).gone
        assert (await c.api.delete(m.key, applied.observed.uid, priority=USER)).gone


async def test_delete_waits_for_finalizers(plane: ControlPlane, namespace: str) -> None:
    """An object that a finalizer holds is not gone."""
    async with connect(plane) as c:
        body = config_map(namespace, "held", {})
        body["metadata"]["finalizers"] = ["example.com/hold"]
        applied = await c.api.apply(manifest(body), priority=USER)
        assert not (await c.api.delete(manifest(body).key, applied.observed.uid, priority=USER)).gone
        left = await c.api.get_metadata(manifest(body).key, priority=USER)
        assert left is not None
        assert left.deleting
        await c.api.patch_json(manifest(body).key, [{"op": "remove", "path": "/metadata/finalizers"}], priority=USER)


@pytest.mark.parametrize("kind", ["ServiceAccount", "Secret", "Service"])
async def test_delete_of_kinds_that_answer_with_the_object(plane: ControlPlane, namespace: str, kind: str) -> None:
    """Some kinds answer a delete with the object itself: it is gone nevertheless."""
    async with connect(plane) as c:
        body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "a", "namespace": namespace}}
        if kind == "Service":
            body["spec"] = {"ports": [{"port": 80}]}
        applied = await c.api.apply(manifest(body), priority=USER)
        assert (await c.api.delete(manifest(body).key, applied.observed.uid, priority=USER)).gone


async def test_lists_by_label_and_page(plane: ControlPlane, namespace: str) -> None:
    """A list carries identities and labels, and no payload."""
    async with connect(plane) as c:
        for name in ("a", "b", "c"):
            await c.api.apply(manifest(config_map(namespace, name, {"k": "v"}, app=name)), priority=USER)
        kind = manifest(config_map(namespace, "a", {})).key.group_kind
        found = await c.api.list_metadata(kind, namespace, label_selector="app in (a,c)", priority=USER)
        assert [o.key for o in found] == [ObjectKey("", "ConfigMap", namespace, name) for name in ("a", "c")]
        assert all(o.body is None and o.managed and o.version == "v1" for o in found)


async def test_identity_version_and_access(plane: ControlPlane) -> None:
    """The server tells its version, the uid that identifies the cluster, and what we may do."""
    async with connect(plane) as c:
        assert (await c.api.server_version()).startswith("v1.")
        assert len(await c.api.namespace_uid("kube-system")) == 36
        assert await c.api.can_i("create", "apps", "deployments", "default")
        assert c.client.skew_s is not None
        assert abs(c.client.skew_s) < 5


async def test_openapi_hash(plane: ControlPlane) -> None:
    """Every served group and version has a schema hash; others have none."""
    async with connect(plane) as c:
        assert await c.discovery.schema_hash("apps", "v1")
        assert await c.discovery.schema_hash("", "v1")
        assert await c.discovery.schema_hash("example.com", "v1") == ""
        resource = c.discovery.resource_for(Gvk("apps", "v1", "Deployment"))
        assert resource is not None
        assert {"status", "scale"} <= resource.subresources
