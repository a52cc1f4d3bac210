"""DELETE: preconditions, finalizers, owners, collections, and namespaces on their way out."""

from typing import Any

import pytest

from tests.contract.client import Api, eventually
from tests.contract.test_objects import config_map, deployment


@pytest.fixture
def maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def held(name: str, *finalizers: str) -> dict[str, Any]:
    body = config_map(name)
    body["metadata"]["finalizers"] = list(finalizers)
    return body


def owned(name: str, owner: Any, **more: bool) -> dict[str, Any]:
    reference = {"apiVersion": "v1", "kind": "ConfigMap"} | more
    reference |= {part: owner["metadata"][part] for part in ("name", "uid")}
    body = config_map(name)
    body["metadata"]["ownerReferences"] = [reference]
    return body


def test_delete(api: Api, maps: str, namespace: str) -> None:
    """A plain object goes at once; most kinds answer with a Status, some with what went."""
    created = api.post(maps, config_map("a"))
    reply = api.delete(f"{maps}/a")
    uid = created.body["metadata"]["uid"]
    assert reply.body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": "a", "kind": "configmaps", "uid": uid},
    }
    assert api.get(f"{maps}/a").code == 404
    assert api.delete(f"{maps}/a").error == (404, "NotFound", 'configmaps "a" not found')
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    api.post(accounts, {"metadata": {"name": "s"}})
    assert api.delete(f"{accounts}/s").body["kind"] == "ServiceAccount"


def test_delete_of_a_grouped_kind(api: Api, namespace: str) -> None:
    """The Status names the group of a kind that has one."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    api.post(path, deployment("a"))
    details = api.delete(f"{path}/a").body["details"]
    assert (details["group"], details["kind"]) == ("apps", "deployments")


def test_delete_preconditions(api: Api, maps: str) -> None:
    """Another uid or version is 409 without causes, and nothing goes."""
    body = api.post(maps, config_map("a")).body
    uid = body["metadata"]["uid"]
    other = api.delete(f"{maps}/a", {"preconditions": {"uid": "zz"}})
    assert other.error == (
        409,
        "Conflict",
        (
            f'Operation cannot be fulfilled on ConfigMap "a": the UID in the precondition (zz) does not match the UID in '
            f"record ({uid}). The object might have been deleted and then recreated"
        ),
    )
    assert other.body["details"] == {"name": "a", "kind": "ConfigMap"}
    stale = api.delete(f"{maps}/a", {"preconditions": {"uid": uid, "resourceVersion": "1"}})
    assert stale.error[:2] == (409, "Conflict")
    assert "the ResourceVersion in the precondition (1) does not match" in stale.body["message"]
    rv = body["metadata"]["resourceVersion"]
    assert api.delete(f"{maps}/a", {"preconditions": {"uid": uid, "resourceVersion": rv}}).code == 200


def test_finalizers_hold(api: Api, maps: str) -> None:
    """A finalizer turns the deletion into a mark; the object goes when the last one is taken off."""
    created = api.post(maps, held("a", "x.io/y"))
    marked = api.delete(f"{maps}/a")
    assert marked.code == 200
    assert marked.body["metadata"]["deletionTimestamp"]
    assert marked.body["metadata"]["deletionGracePeriodSeconds"] == 0
    assert int(marked.rv) > int(created.rv)
    assert api.delete(f"{maps}/a").body == marked.body
    with api.watch(f"{maps}?watch=1&resourceVersion={marked.rv}") as stream:
        released = api.patch(f"{maps}/a", {"metadata": {"finalizers": None}})
        assert released.code == 200
        event = stream.next()
    assert event is not None
    assert (event["type"], event["object"]["metadata"].get("finalizers")) == ("DELETED", ["x.io/y"])
    assert api.get(f"{maps}/a").code == 404


def test_terminating_objects(api: Api, maps: str) -> None:
    """A terminating object can be applied to, stays terminating, and takes no new finalizers."""
    api.post(maps, held("a", "x.io/y"))
    api.delete(f"{maps}/a")
    applied = api.apply(f"{maps}/a", config_map("a", x="1"))
    assert applied.code == 200
    assert applied.body["metadata"]["deletionTimestamp"]
    refused = api.patch(f"{maps}/a", {"metadata": {"finalizers": ["x.io/y", "x.io/z"]}})
    assert refused.error[:2] == (422, "Invalid")
    assert refused.causes[0] == {
        "reason": "FieldValueForbidden",
        "message": "Forbidden: no new finalizers can be added if the object is being deleted, "
        'found new finalizers []string{"x.io/z"}',
        "field": "metadata.finalizers",
    }
    api.patch(f"{maps}/a", {"metadata": {"finalizers": None}})


def test_generation_counts_the_mark(api: Api, namespace: str) -> None:
    """Marking for deletion moves the generation of kinds that have one."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    body = deployment("a")
    body["metadata"]["finalizers"] = ["x.io/y"]
    assert api.post(path, body).body["metadata"]["generation"] == 1
    assert api.delete(f"{path}/a").body["metadata"]["generation"] == 2
    api.patch(f"{path}/a", {"metadata": {"finalizers": None}})


def test_delete_collection(api: Api, maps: str) -> None:
    """A deletion by selector takes what the selector picks and lists it."""
    for name in ("a", "b", "c"):
        body = config_map(name)
        body["metadata"]["labels"] = {"app": name}
        api.post(maps, body)
    reply = api.delete(f"{maps}?labelSelector=app%20in%20(a,b)")
    assert reply.body["kind"] == "ConfigMapList"
    assert [item["metadata"]["name"] for item in reply.body["items"]] == ["a", "b"]
    left = [item["metadata"]["name"] for item in api.get(f"{maps}?labelSelector=app").body["items"]]
    assert left == ["c"]


def test_unknown_policy(api: Api, maps: str) -> None:
    """A propagation policy nobody knows is 422."""
    api.post(maps, config_map("a"))
    reply = api.delete(f"{maps}/a", {"propagationPolicy": "Foo"})
    assert reply.error[:2] == (422, "Invalid")
    assert reply.causes[0]["field"] == "propagationPolicy"


def test_background_deletion(api: Api, maps: str) -> None:
    """Dependents follow their owner."""
    owner = api.post(maps, config_map("owner")).body
    api.post(maps, owned("child", owner))
    assert api.delete(f"{maps}/owner", {"propagationPolicy": "Background"}).body["status"] == "Success"
    eventually(lambda: api.get(f"{maps}/child").code == 404, "the dependent goes")


def test_foreground_deletion(api: Api, maps: str) -> None:
    """The owner waits for the dependents that block it."""
    owner = api.post(maps, config_map("owner")).body
    child = owned("child", owner, blockOwnerDeletion=True)
    child["metadata"]["finalizers"] = ["x.io/y"]
    api.post(maps, child)
    marked = api.delete(f"{maps}/owner", {"propagationPolicy": "Foreground"})
    assert marked.body["metadata"]["finalizers"] == ["foregroundDeletion"]
    eventually(lambda: "deletionTimestamp" in api.get(f"{maps}/child").body["metadata"], "the dependent is marked")
    assert api.get(f"{maps}/owner").code == 200
    api.patch(f"{maps}/child", {"metadata": {"finalizers": None}})
    eventually(lambda: api.get(f"{maps}/owner").code == 404, "the owner goes after its dependent")


def test_orphaning_deletion(api: Api, maps: str) -> None:
    """Dependents stay and forget their owner."""
    owner = api.post(maps, config_map("owner")).body
    api.post(maps, owned("child", owner))
    api.delete(f"{maps}/owner", {"propagationPolicy": "Orphan"})
    eventually(lambda: api.get(f"{maps}/owner").code == 404, "the owner goes")
    assert "ownerReferences" not in api.get(f"{maps}/child").body["metadata"]


# Namespaces.


def test_namespace_is_furnished(api: Api, namespace: str) -> None:
    """A new namespace is Active, labelled with its name, and gets its account and certificate."""
    body = api.get(f"/api/v1/namespaces/{namespace}").body
    assert body["status"] == {"phase": "Active"}
    assert body["spec"] == {"finalizers": ["kubernetes"]}
    assert body["metadata"]["labels"] == {"kubernetes.io/metadata.name": namespace}
    paths = ("serviceaccounts/default", "configmaps/kube-root-ca.crt")
    for path in paths:
        eventually(lambda p=path: api.get(f"/api/v1/namespaces/{namespace}/{p}").code == 200, path)  # type: ignore[misc]


def test_terminating_namespace(api: Api, namespace: str, maps: str) -> None:
    """While content is held, the namespace is Terminating, says why, and takes nothing new; then it goes."""
    api.post(maps, held("a", "x.io/y"))
    reply = api.delete(f"/api/v1/namespaces/{namespace}")
    assert (reply.body["kind"], reply.body["status"]["phase"]) == ("Namespace", "Terminating")
    for refused in (api.post(maps, config_map("b")), api.apply(f"{maps}/b", config_map("b"))):
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        assert refused.error == (403, "Forbidden", f'configmaps "b" is forbidden: {why}')
        assert refused.causes == [
            {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
        ]
    eventually(lambda: _remaining(api, namespace) == "SomeFinalizersRemain", "the namespace says what holds it")
    api.patch(f"{maps}/a", {"metadata": {"finalizers": None}})
    eventually(lambda: api.get(f"/api/v1/namespaces/{namespace}").code == 404, "the namespace goes")


def _remaining(api: Api, namespace: str) -> str:
    conditions = api.get(f"/api/v1/namespaces/{namespace}").body["status"].get("conditions", [])
    return next((c["reason"] for c in conditions if c["type"] == "NamespaceFinalizersRemaining"), "")


def test_protected_namespaces(api: Api) -> None:
    """The system's own namespaces cannot be deleted."""
    reply = api.delete("/api/v1/namespaces/kube-system")
    assert reply.error == (
        403,
        "Forbidden",
        'namespaces "kube-system" is forbidden: this namespace may not be deleted',
    )
