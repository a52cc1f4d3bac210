"""What is refused as invalid: the same causes, field by field, whatever the server."""

from typing import Any

import pytest

from tests.contract.client import Api

MAIN: dict[str, Any] = {"name": "main", "image": "registry.example/app:1"}
ROLES = "rbac.authorization.k8s.io/v1"
NAMES = {"plural": "foos", "kind": "Foo"}

Causes = list[tuple[str, str]]


def pods(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": list(containers)} | spec}


def body(api_version: str, kind: str, name: str = "x", /, **fields: Any) -> dict[str, Any]:
    metadata = {"name": name} | fields.pop("metadata", {})
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata} | fields


def deployment(name: str = "d", /, **spec: Any) -> dict[str, Any]:
    whole = {"replicas": 0, "selector": {"matchLabels": {"app": "d"}}, "template": pods(MAIN)} | spec
    return body("apps/v1", "Deployment", name, spec=whole)


def running(**changes: Any) -> dict[str, Any]:
    """A Deployment whose only container differs."""
    return deployment(template=pods(MAIN | changes))


def config_map(**metadata: Any) -> dict[str, Any]:
    return body("v1", "ConfigMap", metadata=metadata)


def service(*ports: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return body("v1", "Service", spec={"ports": list(ports)} | spec)


def job(**spec: Any) -> dict[str, Any]:
    return body("batch/v1", "Job", spec={"template": pods(MAIN, restartPolicy="Never")} | spec)


def definition(*versions: dict[str, Any], name: str = "foos.x.io") -> dict[str, Any]:
    spec = {"group": "x.io", "scope": "Namespaced", "names": NAMES, "versions": list(versions)}
    return body("apiextensions.k8s.io/v1", "CustomResourceDefinition", name, spec=spec)


PLURALS = {
    "Ingress": "ingresses",
    "NetworkPolicy": "networkpolicies",
    "StorageClass": "storageclasses",
    "PriorityClass": "priorityclasses",
}
CLUSTER_WIDE = ("ClusterRoleBinding", "CustomResourceDefinition", "Namespace", "PriorityClass", "StorageClass")


def path_of(obj: dict[str, Any]) -> str:
    api_version, kind = obj["apiVersion"], obj["kind"]
    root = "/api/v1" if api_version == "v1" else f"/apis/{api_version}"
    plural = PLURALS.get(kind, f"{kind.lower()}s")
    return f"{root}/{plural}" if kind in CLUSTER_WIDE else f"{root}/namespaces/default/{plural}"


CONTAINER = "spec.template.spec.containers[0]"
REQUIRED, INVALID, DUPLICATE = "FieldValueRequired", "FieldValueInvalid", "FieldValueDuplicate"
UNSUPPORTED, FORBIDDEN, MISSING = "FieldValueNotSupported", "FieldValueForbidden", "FieldValueNotFound"

NEW: list[tuple[dict[str, Any], Causes]] = [
    # Names, labels, annotations, owners, finalizers.
    (deployment("A.b"), [(INVALID, "metadata.name")]),
    (body("v1", "ConfigMap", "a" * 254), [(INVALID, "metadata.name")]),
    (body("v1", "Namespace", "a.b"), [(INVALID, "metadata.name")]),
    (body(ROLES, "Role", "a/b"), [(INVALID, "metadata.name")]),
    (config_map(labels={"a/b/c": "v"}), [(INVALID, "metadata.labels")]),
    (config_map(labels={"a": "v v"}), [(INVALID, "metadata.labels")]),
    (config_map(labels={"a": "v" * 64}), [(INVALID, "metadata.labels")]),
    (config_map(annotations={"a b": "v"}), [(INVALID, "metadata.annotations")]),
    (config_map(annotations={"a": "v" * 300_000}), [("FieldValueTooLong", "metadata.annotations")]),
    (config_map(finalizers=["bare"]), [(INVALID, "metadata.finalizers[0]")]),
    (
        config_map(ownerReferences=[{"apiVersion": "v1", "kind": "ConfigMap", "name": "", "uid": ""}]),
        [(INVALID, "metadata.ownerReferences.name"), (INVALID, "metadata.ownerReferences.uid")],
    ),
    # Workloads.
    (
        body("apps/v1", "Deployment"),
        [
            (REQUIRED, "spec.selector"),
            (INVALID, "spec.template.metadata.labels"),
            (REQUIRED, "spec.template.spec.containers"),
        ],
    ),
    (deployment(replicas=-1), [(INVALID, "spec.replicas")]),
    (deployment(selector={"matchLabels": {"app": "e"}}), [(INVALID, "spec.template.metadata.labels")]),
    (deployment(selector={}), [(INVALID, "spec.selector")]),
    (deployment(strategy={"type": "Foo"}), [(UNSUPPORTED, "spec.strategy")]),
    (
        deployment(strategy={"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
        [(FORBIDDEN, "spec.strategy.rollingUpdate")],
    ),
    (
        deployment(strategy={"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
        [(INVALID, "spec.strategy.rollingUpdate.maxUnavailable")],
    ),
    (deployment(template=pods()), [(REQUIRED, "spec.template.spec.containers")]),
    (deployment(template=pods(MAIN, MAIN)), [(DUPLICATE, "spec.template.spec.containers[1].name")]),
    (
        deployment(template=pods(MAIN, restartPolicy="Never")),
        [(UNSUPPORTED, "spec.template.spec.restartPolicy")],
    ),
    (deployment(template=pods(MAIN, dnsPolicy="Foo")), [(UNSUPPORTED, "spec.template.spec.dnsPolicy")]),
    (
        deployment(template=pods(MAIN, volumes=[{"name": "v"}, {"name": "v"}])),
        [(DUPLICATE, "spec.template.spec.volumes[1].name")],
    ),
    (running(name=""), [(REQUIRED, f"{CONTAINER}.name")]),
    (running(name="A_b"), [(INVALID, f"{CONTAINER}.name")]),
    (running(image=""), [(REQUIRED, f"{CONTAINER}.image")]),
    (running(imagePullPolicy="Sometimes"), [(UNSUPPORTED, f"{CONTAINER}.imagePullPolicy")]),
    (running(ports=[{"containerPort": 70000}]), [(INVALID, f"{CONTAINER}.ports[0].containerPort")]),
    (running(ports=[{"name": "a"}]), [(REQUIRED, f"{CONTAINER}.ports[0].containerPort")]),
    (running(env=[{"name": "a", "valueFrom": {}}]), [(INVALID, f"{CONTAINER}.env[0].valueFrom")]),
    (
        running(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
        [(INVALID, f"{CONTAINER}.resources.requests")],
    ),
    (running(volumeMounts=[{"name": "v", "mountPath": "/a"}]), [(MISSING, f"{CONTAINER}.volumeMounts[0].name")]),
    (running(livenessProbe={}), [(REQUIRED, f"{CONTAINER}.livenessProbe")]),
    (job(template=pods(MAIN)), [(REQUIRED, "spec.template.spec.restartPolicy")]),
    (
        job(selector={"matchLabels": {"a": "b"}}),
        [(INVALID, "spec.selector"), (INVALID, "spec.template.metadata.labels")],
    ),
    (
        body("batch/v1", "CronJob", spec={"schedule": "foo", "jobTemplate": {"spec": job()["spec"]}}),
        [(INVALID, "spec.schedule")],
    ),
    (body("v1", "Pod", spec={}), [(REQUIRED, "spec.containers")]),
    # Configuration, network, storage, access.
    (body("v1", "ConfigMap", data={"a b": "1"}), [(INVALID, "data[a b]")]),
    (body("v1", "Secret", type="kubernetes.io/tls"), [(REQUIRED, "data[tls.crt]"), (REQUIRED, "data[tls.key]")]),
    (service(), [(REQUIRED, "spec.ports")]),
    (service({"port": 0}), [(INVALID, "spec.ports[0].port"), (INVALID, "spec.ports[0].targetPort")]),
    (service({"port": 1}, {"port": 2}), [(REQUIRED, "spec.ports[0].name"), (REQUIRED, "spec.ports[1].name")]),
    (service({"port": 1}, type="X"), [(UNSUPPORTED, "spec.type")]),
    (body("networking.k8s.io/v1", "Ingress", spec={}), [(INVALID, "spec")]),
    (
        body("v1", "PersistentVolumeClaim", spec={}),
        [(REQUIRED, "spec.accessModes"), (REQUIRED, "spec.resources[storage]")],
    ),
    (body("storage.k8s.io/v1", "StorageClass"), [(REQUIRED, "provisioner")]),
    (body(ROLES, "RoleBinding"), [(UNSUPPORTED, "roleRef.kind"), (REQUIRED, "roleRef.name")]),
    (body(ROLES, "Role", rules=[{"verbs": ["get"], "resources": ["a"]}]), [(REQUIRED, "rules[0].apiGroups")]),
    (
        definition({"name": "v1", "served": True, "storage": True}),
        [(REQUIRED, "spec.versions[0].schema.openAPIV3Schema")],
    ),
    (
        definition(
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {}}}},
            }
        ),
        [(REQUIRED, "spec.validation.openAPIV3Schema.properties[a].type")],
    ),
]


@pytest.mark.parametrize(("obj", "causes"), NEW, ids=lambda value: value[0][1] if isinstance(value, list) else None)
def test_invalid_objects(api: Api, obj: dict[str, Any], causes: Causes) -> None:
    """A new object that breaks a rule of its kind is 422, and the causes name each field."""
    reply = api.post(path_of(obj), obj)
    assert reply.error[:2] == (422, "Invalid")
    assert [(cause["reason"], cause["field"]) for cause in reply.causes] == causes


OTHER = {"selector": {"matchLabels": {"app": "e"}}, "template": {"metadata": {"labels": {"app": "e"}}}}
SELECTED = deployment()["spec"]

CHANGES: list[tuple[dict[str, Any], dict[str, Any], Causes]] = [
    (deployment("fixed"), {"spec": OTHER}, [(INVALID, "spec.selector")]),
    (body("apps/v1", "StatefulSet", "fixed", spec=SELECTED), {"spec": OTHER}, [(FORBIDDEN, "spec")]),
    (
        job(completions=1),
        {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 5}}}},
        [(INVALID, "spec.template")],
    ),
    (service({"port": 80}), {"spec": {"clusterIP": "None"}}, [(INVALID, "spec.clusterIPs[0]")]),
    (
        body("v1", "ConfigMap", "fixed", immutable=True, data={"a": "1"}),
        {"data": {"a": "2"}},
        [(FORBIDDEN, "data")],
    ),
    (body("v1", "Secret", "fixed"), {"type": "foo"}, [(INVALID, "type")]),
    (
        body(ROLES, "RoleBinding", "fixed", roleRef={"apiGroup": ROLES[:-3], "kind": "Role", "name": "a"}),
        {"roleRef": {"name": "b"}},
        [(INVALID, "roleRef")],
    ),
]


@pytest.mark.parametrize(("obj", "change", "causes"), CHANGES, ids=[change[0]["kind"] for change in CHANGES])
def test_immutable_fields(
    api: Api, namespace: str, obj: dict[str, Any], change: dict[str, Any], causes: Causes
) -> None:
    """A field that may not change once it is set is 422, and the object stays as it is."""
    collection = path_of(obj).replace("/default/", f"/{namespace}/")
    created = api.post(collection, obj)
    assert created.code == 201, created.body
    path = f"{collection}/{obj['metadata']['name']}"
    reply = api.patch(path, change)
    assert reply.error[:2] == (422, "Invalid")
    assert [(cause["reason"], cause["field"]) for cause in reply.causes] == causes
    assert api.get(path).body["metadata"]["uid"] == created.body["metadata"]["uid"]
