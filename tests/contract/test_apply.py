"""Server-side apply: owners, conflicts, what is pruned, and what is refused."""

from typing import Any

import pytest

from tests.contract.client import APPLY, JSON_PATCH, METADATA, Api, fields_of, managed
from tests.contract.test_objects import config_map, deployment


@pytest.fixture
def maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


@pytest.fixture
def deployments(namespace: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/deployments"


@pytest.fixture
def services(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/services"


def service(name: str, *ports: dict[str, Any]) -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": list(ports), "clusterIP": "None"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def paused(name: str, **spec: Any) -> dict[str, Any]:
    """A deployment that no controller touches."""
    return deployment(name, paused=True, **spec)


def conflicts(reply: Any) -> set[tuple[str, str]]:
    assert {cause["reason"] for cause in reply.causes} == {"FieldManagerConflict"}
    return {(cause["field"], cause["message"]) for cause in reply.causes}


def test_apply_creates(api: Api, maps: str) -> None:
    """A missing object is created, 201, owned by exactly what was applied."""
    reply = api.apply(f"{maps}/a", config_map("a", x="1", y="1"))
    assert reply.code == 201
    assert managed(reply.body) == [
        {
            "manager": "one",
            "operation": "Apply",
            "apiVersion": "v1",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:x": {}, "f:y": {}}},
        }
    ]


def test_apply_again_changes_nothing(api: Api, maps: str) -> None:
    """The same configuration again is 200 and leaves the object exactly as it is."""
    first = api.apply(f"{maps}/a", config_map("a", x="1"))
    second = api.apply(f"{maps}/a", config_map("a", x="1"))
    assert (second.code, second.body) == (200, first.body)


def test_apply_prunes_what_it_dropped(api: Api, maps: str) -> None:
    """A field that leaves the configuration leaves the object when nobody else owns it."""
    api.apply(f"{maps}/a", config_map("a", x="1", y="1"))
    api.apply(f"{maps}/a", config_map("a", x="1"), manager="two")
    api.patch(f"{maps}/a", {"data": {"z": "1"}})
    reply = api.apply(f"{maps}/a", config_map("a"))
    assert reply.body["data"] == {"x": "1", "z": "1"}
    assert fields_of(reply.body, "two") == {"f:data": {"f:x": {}}}


def test_conflict(api: Api, maps: str) -> None:
    """Another owner's value cannot be changed; the error names field and owner."""
    api.apply(f"{maps}/a", config_map("a", x="1", y="1"))
    one = api.apply(f"{maps}/a", config_map("a", x="2", y="1"), manager="two")
    assert one.error == (409, "Conflict", 'Apply failed with 1 conflict: conflict with "one": .data.x')
    assert one.body["details"] == {
        "causes": [{"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.x"}]
    }
    both = api.apply(f"{maps}/a", config_map("a", x="2", y="2"), manager="two")
    assert both.body["message"] == 'Apply failed with 2 conflicts: conflicts with "one":\n- .data.x\n- .data.y'


def test_conflicts_with_several(api: Api, maps: str) -> None:
    """Each owner is named, one that wrote by other means with its version."""
    api.apply(f"{maps}/a", config_map("a", x="1"))
    api.apply(f"{maps}/a", config_map("a", x="1"), manager="two")
    api.patch(f"{maps}/a?fieldManager=upd", {"data": {"z": "1"}})
    reply = api.apply(f"{maps}/a", config_map("a", x="3", z="3"), manager="three")
    assert conflicts(reply) == {
        (".data.x", 'conflict with "one"'),
        (".data.x", 'conflict with "two"'),
        (".data.z", 'conflict with "upd" using v1'),
    }
    assert reply.body["message"] == (
        'Apply failed with 3 conflicts: conflicts with "one":\n- .data.x\nconflicts with "two":\n- .data.x\n'
        'conflicts with "upd" using v1:\n- .data.z'
    )


def test_same_value_is_shared(api: Api, maps: str) -> None:
    """The value another owner set can be applied too: both own it then."""
    api.apply(f"{maps}/a", config_map("a", x="1"))
    reply = api.apply(f"{maps}/a", config_map("a", x="1"), manager="two")
    assert reply.code == 200
    assert fields_of(reply.body, "one") == fields_of(reply.body, "two") == {"f:data": {"f:x": {}}}


def test_force_takes(api: Api, maps: str) -> None:
    """Force takes the field from all others; an owner of nothing is forgotten."""
    api.apply(f"{maps}/a", config_map("a", x="1", y="1"))
    api.patch(f"{maps}/a?fieldManager=upd", {"data": {"z": "1"}})
    reply = api.apply(f"{maps}/a", config_map("a", x="2", z="2"), manager="two", force=True)
    assert reply.body["data"] == {"x": "2", "y": "1", "z": "2"}
    assert fields_of(reply.body, "one") == {"f:data": {"f:y": {}}}
    assert fields_of(reply.body, "upd", operation="Update") is None


def test_another_writer_takes_what_it_changes(api: Api, maps: str) -> None:
    """Any other write strips the paths whose values it changes, and leaves the rest."""
    api.apply(f"{maps}/a", config_map("a", x="1", y="1"))
    same = api.patch(f"{maps}/a?fieldManager=upd", {"data": {"x": "1", "new": "1"}, "metadata": {"labels": {"l": "1"}}})
    assert fields_of(same.body, "one") == {"f:data": {"f:x": {}, "f:y": {}}}
    changed = api.patch(f"{maps}/a?fieldManager=upd", {"data": {"x": "2"}})
    assert fields_of(changed.body, "one") == {"f:data": {"f:y": {}}}
    removed = api.patch(f"{maps}/a?fieldManager=upd", {"data": {"y": None}})
    assert fields_of(removed.body, "one") is None
    assert fields_of(removed.body, "upd", operation="Update") == {
        "f:data": {"f:new": {}, "f:x": {}},
        "f:metadata": {"f:labels": {".": {}, "f:l": {}}},
    }


def test_reapply_restores_the_same_entry(api: Api, deployments: str) -> None:
    """After a foreign write, applying again by force restores the identical entry."""
    body = paused("a")
    before = fields_of(api.apply(f"{deployments}/a", body).body, "one")
    container = {"name": "main", "image": "registry.example/app:evil"}
    taken = api.patch(
        f"{deployments}/a?fieldManager=upd",
        {"spec": {"replicas": 3, "template": {"spec": {"containers": [container]}}}},
        "application/strategic-merge-patch+json",
    )
    assert fields_of(taken.body, "one") != before
    healed = api.apply(f"{deployments}/a", body, force=True)
    assert fields_of(healed.body, "one") == before
    assert healed.body["spec"]["replicas"] == 0


def test_defaulted_fields_are_nobodys(api: Api, deployments: str) -> None:
    """Defaults are filled in and not owned; keyed lists are owned by their keys."""
    reply = api.apply(f"{deployments}/a", paused("a"))
    assert reply.body["spec"]["strategy"]["type"] == "RollingUpdate"
    assert fields_of(reply.body, "one") == {
        "f:spec": {
            "f:paused": {},
            "f:replicas": {},
            "f:selector": {},
            "f:template": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {
                    "f:containers": {'k:{"name":"main"}': {".": {}, "f:image": {}, "f:name": {}}},
                },
            },
        }
    }


def test_defaulted_keys(api: Api, services: str) -> None:
    """A port without a protocol is keyed by the default protocol, which stays unowned."""
    reply = api.apply(f"{services}/s", service("s", {"port": 80}))
    ports = fields_of(reply.body, "one")["f:spec"]["f:ports"]
    assert ports == {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}}}
    assert reply.body["spec"]["ports"] == [{"protocol": "TCP", "port": 80, "targetPort": 80}]


def test_keyed_items_of_two_owners(api: Api, services: str) -> None:
    """Two owners keep their items of one list; each prunes only its own."""
    api.apply(f"{services}/s", service("s", {"name": "a", "port": 80}, {"name": "b", "port": 81}))
    more = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    added = api.apply(f"{services}/s", more | {"spec": {"ports": [{"name": "c", "port": 82}]}}, manager="two")
    assert [port["port"] for port in added.body["spec"]["ports"]] == [80, 81, 82]
    pruned = api.apply(f"{services}/s", service("s", {"name": "b", "port": 81}))
    assert [port["port"] for port in pruned.body["spec"]["ports"]] == [81, 82]


def test_finalizers_are_a_set(api: Api, maps: str) -> None:
    """Finalizers of several owners are kept side by side."""
    first, second, neither = [config_map("a", x="1") for _ in range(3)]
    first["metadata"]["finalizers"], second["metadata"]["finalizers"] = ["x.io/a"], ["x.io/b"]
    api.apply(f"{maps}/a", first)
    both = api.apply(f"{maps}/a", second, manager="two")
    assert both.body["metadata"]["finalizers"] == ["x.io/a", "x.io/b"]
    shared: dict[str, Any] = {"f:data": {"f:x": {}}}
    assert fields_of(both.body, "two") == shared | {"f:metadata": {"f:finalizers": {'v:"x.io/b"': {}}}}
    left = api.apply(f"{maps}/a", neither)
    assert left.body["metadata"]["finalizers"] == ["x.io/b"]
    api.patch(f"{maps}/a", {"metadata": {"finalizers": None}})


def test_atomic_lists_have_one_owner(api: Api, deployments: str) -> None:
    """An atomic list belongs to whoever set it, as a whole."""
    body = paused("a")
    body["spec"]["template"]["spec"]["containers"][0]["args"] = ["a", "b"]
    api.apply(f"{deployments}/a", body)
    body["spec"]["template"]["spec"]["containers"][0]["args"] = ["a", "c"]
    reply = api.apply(f"{deployments}/a", body, manager="two")
    assert conflicts(reply) == {('.spec.template.spec.containers[name="main"].args', 'conflict with "one"')}


def test_scale_takes_replicas(api: Api, deployments: str) -> None:
    """A write to the scale takes the replicas in the name of that subresource."""
    api.apply(f"{deployments}/a", paused("a", replicas=1))
    scale = api.get(f"{deployments}/a/scale").body
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert (scale["spec"], scale["status"]) == ({"replicas": 1}, {"replicas": 0, "selector": "app=a"})
    scaled = api.patch(f"{deployments}/a/scale?fieldManager=k", {"spec": {"replicas": 2}})
    assert (scaled.code, scaled.body["spec"]) == (200, {"replicas": 2})
    live = api.get(f"{deployments}/a").body
    assert live["spec"]["replicas"] == 2
    assert "f:replicas" not in fields_of(live, "one")["f:spec"]
    assert fields_of(live, "k", subresource="scale", operation="Update") == {"f:spec": {"f:replicas": {}}}
    refused = api.apply(f"{deployments}/a", paused("a", replicas=1))
    said = 'conflict with "k" with subresource "scale" using apps/v1'
    assert refused.error == (409, "Conflict", f"Apply failed with 1 conflict: {said}: .spec.replicas")
    stale = api.put(f"{deployments}/a/scale", scale | {"spec": {"replicas": 3}})
    assert stale.error[:2] == (409, "Conflict")


def test_status_is_owned_apart(api: Api, deployments: str) -> None:
    """Status is applied through its own path and owned under it."""
    api.apply(f"{deployments}/a", paused("a"))
    head = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}}
    reply = api.apply(f"{deployments}/a/status", head | {"status": {"collisionCount": 3}}, manager="st")
    assert reply.code == 200
    assert reply.body["status"]["collisionCount"] == 3
    assert fields_of(reply.body, "st", subresource="status") == {"f:status": {"f:collisionCount": {}}}


def test_object_without_owners(api: Api, maps: str) -> None:
    """Where ownership was reset, the first apply meets everything as owned from before."""
    api.post(maps, config_map("a", x="1"))
    cleared = api.patch(f"{maps}/a", [{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}], JSON_PATCH)
    assert "managedFields" not in cleared.body["metadata"]
    reply = api.apply(f"{maps}/a", config_map("a", x="2"))
    assert conflicts(reply) == {(".data.x", 'conflict with "before-first-apply" using v1')}
    assert api.apply(f"{maps}/a", config_map("a", x="2"), force=True).code == 200


def test_reply_as_metadata(api: Api, maps: str) -> None:
    """The reply to an apply can be metadata only."""
    path = f"{maps}/a?fieldManager=one"
    reply = api.call("PATCH", path, config_map("a", x="1"), media=APPLY, Accept=METADATA)
    assert (reply.code, reply.body["kind"]) == (201, "PartialObjectMetadata")
    assert fields_of(reply.body, "one") == {"f:data": {"f:x": {}}}


def test_dry_run_apply(api: Api, maps: str, deployments: str) -> None:
    """A dry run has a uid but no version where it would create, and tells the next generation where it would change."""
    created = api.apply(f"{maps}/a", config_map("a", x="1"), dryRun="All")
    assert created.code == 201
    assert created.body["metadata"]["uid"]
    assert "resourceVersion" not in created.body["metadata"]
    assert api.get(f"{maps}/a").code == 404
    api.apply(f"{deployments}/a", paused("a"))
    changed = api.apply(f"{deployments}/a", paused("a", minReadySeconds=5), dryRun="All")
    assert changed.body["metadata"]["generation"] == 2
    live = api.get(f"{deployments}/a").body
    assert live["metadata"]["generation"] == 1
    assert "minReadySeconds" not in live["spec"]


# What is refused.


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"zzz": 1}, ".spec.zzz: field not declared in schema"),
        ({"replicas": "x"}, ".spec.replicas: expected numeric (int or float), got string"),
        ({"paused": "yes"}, ".spec.paused: expected boolean, got &{yes}"),
        ({"selector": 3}, ".spec.selector: expected map, got &{3}"),
    ],
)
def test_schema_errors(api: Api, deployments: str, spec: dict[str, Any], said: str) -> None:
    """What the schema does not know is 500 without a reason, whatever the field validation."""
    for validation in ("Warn", "Strict"):
        reply = api.apply(f"{deployments}/d", deployment("d", **spec), fieldValidation=validation)
        head = "failed to create typed patch object (/d; apps/v1, Kind=Deployment): "
        assert reply.error == (500, "", head + said)
        assert "details" not in reply.body


def test_duplicate_keys(api: Api, namespace: str, deployments: str) -> None:
    """Two items of one key are 500 as well; the message names the namespace of the body."""
    body = deployment("d")
    body["metadata"]["namespace"] = namespace
    body["spec"]["template"]["spec"]["containers"] *= 2
    reply = api.apply(f"{deployments}/d", body)
    head = f"failed to create typed patch object ({namespace}/d; apps/v1, Kind=Deployment): "
    said = '.spec.template.spec.containers: duplicate entries for key [name="main"]'
    assert reply.error == (500, "", head + said)


def test_validation_errors(api: Api, deployments: str) -> None:
    """What the schema knows and the kind refuses is 422 with all causes."""
    negative = api.apply(f"{deployments}/d", deployment("d", replicas=-1))
    why = "Invalid value: -1: must be greater than or equal to 0"
    assert negative.error == (422, "Invalid", f'Deployment.apps "d" is invalid: spec.replicas: {why}')
    assert negative.body["details"] == {
        "name": "d",
        "group": "apps",
        "kind": "Deployment",
        "causes": [{"reason": "FieldValueInvalid", "message": why, "field": "spec.replicas"}],
    }
    empty = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 1}}
    fields = {cause["field"] for cause in api.apply(f"{deployments}/d", empty).causes}
    assert {"spec.selector", "spec.template.spec.containers"} <= fields


def test_options_that_make_no_sense(api: Api, maps: str) -> None:
    """No manager, a manager too long, and force on another patch are 422."""
    api.post(maps, config_map("a"))
    head = 'PatchOptions.meta.k8s.io "" is invalid: '
    nobody = api.patch(f"{maps}/a", config_map("a"), APPLY)
    assert nobody.error == (422, "Invalid", head + "fieldManager: Required value: is required for apply patch")
    long = api.apply(f"{maps}/a", config_map("a"), manager="x" * 129)
    assert long.error == (422, "Invalid", head + "fieldManager: Too long: may not be more than 128 bytes")
    forced = api.patch(f"{maps}/a?force=true", {})
    assert forced.error == (422, "Invalid", head + "force: Forbidden: may not be specified for non-apply patch")


def test_bodies_that_do_not_fit(api: Api, maps: str) -> None:
    """managedFields, another kind or version, another name or namespace are 400."""
    body = config_map("a")
    replies = {
        "metadata.managedFields must be nil": body | {"metadata": {"name": "a", "managedFields": [{}]}},
        "invalid object type: apps/v1, Kind=ConfigMap": body | {"apiVersion": "apps/v1"},
        "invalid object type: /v1, Kind=Secret": body | {"kind": "Secret"},
        "the name of the object (b) does not match the name on the URL (a)": config_map("b"),
        "the namespace of the provided object does not match the namespace sent on the request": body
        | {"metadata": {"name": "a", "namespace": "zz"}},
    }
    api.post(maps, body)
    for message, sent in replies.items():
        assert api.apply(f"{maps}/a", sent).error == (400, "BadRequest", message)


def test_identity_in_the_body(api: Api, maps: str) -> None:
    """A version is a precondition, a uid must be the object's, and neither brings an object into being."""
    gone = api.apply(f"{maps}/n", config_map("n") | {"metadata": {"name": "n", "uid": "1"}})
    said = "uid mismatch: the provided object specified uid 1, and no existing object was found"
    assert gone.error == (409, "Conflict", f'Operation cannot be fulfilled on configmaps "n": {said}')
    api.post(maps, config_map("a"))
    stale = api.apply(f"{maps}/a", config_map("a") | {"metadata": {"name": "a", "resourceVersion": "1"}})
    assert stale.error[:2] == (409, "Conflict")
    assert "causes" not in stale.body["details"]
    other = api.apply(f"{maps}/a", config_map("a") | {"metadata": {"name": "a", "uid": "1"}})
    assert other.error[:2] == (422, "Invalid")


def test_apply_in_a_missing_namespace(api: Api) -> None:
    """The error speaks of the namespace."""
    reply = api.apply("/api/v1/namespaces/nope/configmaps/a", config_map("a"))
    assert reply.error == (404, "NotFound", 'namespaces "nope" not found')
    assert reply.body["details"] == {"name": "nope", "kind": "namespaces"}


def test_unreadable_yaml(api: Api, maps: str) -> None:
    """A body that is neither JSON nor YAML is 400; YAML is fine."""
    assert api.apply(f"{maps}/a", '{"a":').error[:2] == (400, "BadRequest")
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: '1'}\n"
    assert api.apply(f"{maps}/a", text).body["data"] == {"x": "1"}
