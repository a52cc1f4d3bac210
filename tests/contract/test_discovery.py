"""What the server says of itself."""

import json
from typing import Any

import pytest

from tests.contract.client import Api

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"

KINDS = {
    ("", "v1", "ConfigMap"): ("configmaps", "Namespaced"),
    ("", "v1", "Namespace"): ("namespaces", "Cluster"),
    ("", "v1", "PersistentVolume"): ("persistentvolumes", "Cluster"),
    ("", "v1", "PersistentVolumeClaim"): ("persistentvolumeclaims", "Namespaced"),
    ("", "v1", "Pod"): ("pods", "Namespaced"),
    ("", "v1", "Secret"): ("secrets", "Namespaced"),
    ("", "v1", "Service"): ("services", "Namespaced"),
    ("", "v1", "ServiceAccount"): ("serviceaccounts", "Namespaced"),
    ("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration"): (
        "validatingwebhookconfigurations",
        "Cluster",
    ),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"): ("customresourcedefinitions", "Cluster"),
    ("apiregistration.k8s.io", "v1", "APIService"): ("apiservices", "Cluster"),
    ("apps", "v1", "DaemonSet"): ("daemonsets", "Namespaced"),
    ("apps", "v1", "Deployment"): ("deployments", "Namespaced"),
    ("apps", "v1", "ReplicaSet"): ("replicasets", "Namespaced"),
    ("apps", "v1", "StatefulSet"): ("statefulsets", "Namespaced"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler"): ("horizontalpodautoscalers", "Namespaced"),
    ("batch", "v1", "CronJob"): ("cronjobs", "Namespaced"),
    ("batch", "v1", "Job"): ("jobs", "Namespaced"),
    ("coordination.k8s.io", "v1", "Lease"): ("leases", "Namespaced"),
    ("discovery.k8s.io", "v1", "EndpointSlice"): ("endpointslices", "Namespaced"),
    ("networking.k8s.io", "v1", "Ingress"): ("ingresses", "Namespaced"),
    ("networking.k8s.io", "v1", "NetworkPolicy"): ("networkpolicies", "Namespaced"),
    ("policy", "v1", "PodDisruptionBudget"): ("poddisruptionbudgets", "Namespaced"),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole"): ("clusterroles", "Cluster"),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding"): ("rolebindings", "Namespaced"),
    ("scheduling.k8s.io", "v1", "PriorityClass"): ("priorityclasses", "Cluster"),
    ("storage.k8s.io", "v1", "StorageClass"): ("storageclasses", "Cluster"),
}


def aggregated(api: Api) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return every resource that aggregated discovery lists, by group, version and kind."""
    found = {}
    for path in ("/api", "/apis"):
        for group in api.get(path, Accept=AGGREGATED).body["items"]:
            for version in group["versions"]:
                for resource in version["resources"]:
                    kind = resource["responseKind"]
                    found[group["metadata"].get("name", ""), version["version"], kind["kind"]] = resource
    return found


def test_aggregated_discovery(api: Api) -> None:
    """Groups, versions and resources come in two documents."""
    reply = api.get("/apis", Accept=AGGREGATED)
    assert reply.headers["Content-Type"] == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    assert (reply.body["kind"], reply.body["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
    (version,) = next(g for g in reply.body["items"] if g["metadata"]["name"] == "apps")["versions"]
    assert (version["version"], version["freshness"]) == ("v1", "Current")
    deployment = next(r for r in version["resources"] if r["resource"] == "deployments")
    assert {name: deployment[name] for name in ("resource", "scope", "singularResource", "shortNames")} == {
        "resource": "deployments",
        "scope": "Namespaced",
        "singularResource": "deployment",
        "shortNames": ["deploy"],
    }
    assert deployment["responseKind"] == {"group": "", "version": "", "kind": "Deployment"}
    assert {entry["subresource"] for entry in deployment["subresources"]} == {"scale", "status"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind[2]))
def test_kinds(api: Api, kind: tuple[str, str, str]) -> None:
    """Each kind is listed with its plural, scope and verbs."""
    resource = aggregated(api)[kind]
    assert (resource["resource"], resource["scope"]) == KINDS[kind]
    verbs = {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
    assert verbs - set(resource["verbs"]) <= {"deletecollection"}


def test_entity_tags(api: Api) -> None:
    """An unchanged document is 304 to whoever shows its tag."""
    first = api.get("/apis", Accept=AGGREGATED)
    tag = first.headers["Etag"]
    assert tag.startswith('"')
    again = api.get("/apis", Accept=AGGREGATED, If_None_Match=tag)
    assert (again.code, again.body) == (304, "")


def test_legacy_discovery(api: Api) -> None:
    """The old documents say the same."""
    assert api.get("/api").body["versions"] == ["v1"]
    groups = api.get("/apis").body
    assert (groups["kind"], groups["apiVersion"]) == ("APIGroupList", "v1")
    apps = next(group for group in groups["groups"] if group["name"] == "apps")
    version = {"groupVersion": "apps/v1", "version": "v1"}
    assert apps == {"name": "apps", "versions": [version], "preferredVersion": version}
    assert api.get("/apis/apps").body == {"kind": "APIGroup", "apiVersion": "v1"} | apps
    resources = api.get("/apis/apps/v1").body
    assert (resources["kind"], resources["groupVersion"]) == ("APIResourceList", "apps/v1")
    names = {resource["name"] for resource in resources["resources"]}
    assert {"deployments", "deployments/scale", "deployments/status", "statefulsets"} <= names
    core = api.get("/api/v1").body
    assert core["groupVersion"] == "v1"
    assert {"configmaps", "namespaces", "namespaces/status", "pods"} <= {r["name"] for r in core["resources"]}


def test_documents_that_are_not_there(api: Api) -> None:
    """An unknown group or version is 404."""
    for path in ("/apis/zz.example.com", "/apis/zz.example.com/v1", "/api/v9"):
        assert api.get(path).code == 404


def test_openapi_index(api: Api) -> None:
    """The index names a hashed address for each group version; what is there stays the same."""
    index = api.get("/openapi/v3")
    assert index.headers["Content-Type"] == "text/plain; charset=utf-8"
    paths = json.loads(index.body)["paths"]
    assert {"api/v1", "apis/apps/v1", "apis/apiextensions.k8s.io/v1"} <= set(paths)
    address = paths["apis/apps/v1"]["serverRelativeURL"]
    assert address.startswith("/openapi/v3/apis/apps/v1?hash=")
    schemas = api.get(address).body["components"]["schemas"]
    kinds = [k["kind"] for s in schemas.values() for k in s.get("x-kubernetes-group-version-kind", ())]
    assert "Deployment" in kinds


def test_version_and_health(api: Api) -> None:
    """The server tells its version and that it lives."""
    version = api.get("/version").body
    assert version["gitVersion"].startswith("v1.")
    assert {"major", "minor", "platform"} <= set(version)
    for path in ("/livez", "/readyz", "/healthz"):
        reply = api.get(path)
        assert (reply.code, reply.body) == (200, "ok")


def test_access_review(api: Api) -> None:
    """Who asks what it may do is told."""
    attributes = {"verb": "create", "group": "apps", "resource": "deployments", "namespace": "default"}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    reply = api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
    assert reply.code == 201
    assert reply.body["status"]["allowed"] is True
    assert reply.body["spec"] == body["spec"]
