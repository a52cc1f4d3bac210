"""CustomResourceDefinitions: established, served, validated, changed, gone."""

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tests.contract.client import MERGE, METADATA, STRATEGIC, Api, Reply, eventually, fields_of

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_NUMBERS = count(1)


class Kind:
    """One definition, and the paths it opens."""

    def __init__(self, api: Api, group: str) -> None:
        self._api = api
        self.group = group
        self.name = f"widgets.{group}"
        self.path = f"{DEFINITIONS}/{self.name}"
        self.collection = f"/apis/{group}/v1/namespaces/default/widgets"

    def define(self, *versions: dict[str, Any], **spec: Any) -> Reply:
        return self._api.apply(self.path, definition(self.group, *versions, **spec), force=True)

    def served(self, version: str = "v1") -> bool:
        return self._api.get(f"/apis/{self.group}/{version}/widgets").code == 200

    def widget(self, name: str, version: str = "v1", **more: Any) -> dict[str, Any]:
        head = {"apiVersion": f"{self.group}/{version}", "kind": "Widget", "metadata": {"name": name}}
        return head | more


SPEC = {
    "type": "object",
    "properties": {
        "size": {"type": "integer", "minimum": 1, "default": 1},
        "color": {"type": "string", "enum": ["red", "blue"]},
        "replicas": {"type": "integer"},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "parts": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "count": {"type": "integer"}},
            },
        },
        "steps": {"type": "array", "items": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
STATUS = {"type": "object", "properties": {"replicas": {"type": "integer"}, "phase": {"type": "string"}}}


def version(name: str, *, storage: bool = True, served: bool = True, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"spec": SPEC, "status": STATUS} | properties}
    return {"name": name, "served": served, "storage": storage, "schema": {"openAPIV3Schema": schema}}


def definition(group: str, *versions: dict[str, Any], **spec: Any) -> dict[str, Any]:
    names = {
        "plural": "widgets",
        "singular": "widget",
        "kind": "Widget",
        "listKind": "WidgetList",
        "shortNames": ["wd"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": list(versions)} | spec,
    }


@pytest.fixture
def kind(api: Api) -> Iterator[Kind]:
    """A kind of the test's own, not yet defined."""
    kind = Kind(api, f"g{next(_NUMBERS)}.example.com")
    yield kind
    api.delete(kind.path)


@pytest.fixture
def widgets(api: Api, kind: Kind) -> Kind:
    """A kind that is served, with status and scale."""
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    assert kind.define(version("v1") | {"subresources": {"status": {}, "scale": scale}}).code == 201
    eventually(kind.served, "the kind is served")
    return kind


def conditions(api: Api, path: str) -> dict[str, str]:
    status = api.get(path).body.get("status", {})
    return {c["type"]: c["status"] for c in status.get("conditions") or ()}


def test_establishing(api: Api, kind: Kind) -> None:
    """A new definition is accepted, established, then served and discovered."""
    assert api.get(f"/apis/{kind.group}/v1/widgets").body == "404 page not found\n"
    kind.define(version("v1"))
    eventually(lambda: conditions(api, kind.path).get("Established") == "True", "the definition is established")
    body = api.get(kind.path).body
    assert conditions(api, kind.path)["NamesAccepted"] == "True"
    assert body["status"]["storedVersions"] == ["v1"]
    assert body["status"]["acceptedNames"] == body["spec"]["names"]
    assert body["spec"]["conversion"] == {"strategy": "None"}
    eventually(kind.served, "the kind is served")
    resources = api.get(f"/apis/{kind.group}/v1").body["resources"]
    assert [(r["name"], r["kind"], r["shortNames"]) for r in resources] == [("widgets", "Widget", ["wd"])]
    assert kind.group in {group["name"] for group in api.get("/apis").body["groups"]}


def test_create_defaults_and_prunes(api: Api, widgets: Kind) -> None:
    """Defaults are filled in, unknown fields dropped, also inside metadata-like places; free places stay."""
    body = widgets.widget("a", spec={"zzz": 1, "free": {"any": [1]}}, other=1)
    reply = api.post(widgets.collection, body)
    assert reply.code == 201
    assert reply.body["spec"] == {"size": 1, "free": {"any": [1]}}
    assert "other" not in reply.body
    assert reply.body["metadata"]["generation"] == 1
    assert set(reply.headers["Warning"].split(", ")) == {
        '299 - "unknown field \\"other\\""',
        '299 - "unknown field \\"spec.zzz\\""',
    }


def test_list_of_custom_objects(api: Api, widgets: Kind) -> None:
    """Items of a custom kind's list carry their kind."""
    api.post(widgets.collection, widgets.widget("a"))
    body = api.get(widgets.collection).body
    assert (body["kind"], body["apiVersion"]) == ("WidgetList", f"{widgets.group}/v1")
    assert [(item["kind"], item["apiVersion"]) for item in body["items"]] == [("Widget", f"{widgets.group}/v1")]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"size": 0}, "spec.size"),
        ({"size": "x"}, "spec.size"),
        ({"color": "green"}, "spec.color"),
        ({"tags": ["a", "a"]}, "spec.tags[1]"),
        ({"parts": [{"name": "a"}, {"name": "a"}]}, "spec.parts[1]"),
        ({"parts": [{"count": 1}]}, "spec.parts[0].name"),
        ({"steps": "x"}, "spec.steps"),
    ],
)
def test_validation(api: Api, widgets: Kind, spec: dict[str, Any], field: str) -> None:
    """What breaks the schema is 422, naming the field."""
    reply = api.post(widgets.collection, widgets.widget("a", spec=spec))
    assert reply.error[:2] == (422, "Invalid")
    assert reply.body["message"].startswith(f'Widget.{widgets.group} "a" is invalid: ')
    assert field in {cause["field"] for cause in reply.causes}


def test_replace_needs_a_version(api: Api, widgets: Kind) -> None:
    """Replacing a custom object needs the version it replaces."""
    created = api.post(widgets.collection, widgets.widget("a", spec={"size": 2}))
    reply = api.put(f"{widgets.collection}/a", widgets.widget("a", spec={"size": 3}))
    assert reply.error[:2] == (422, "Invalid")
    assert reply.causes[0]["field"] == "metadata.resourceVersion"
    body = created.body | {"spec": {"size": 3}}
    assert api.put(f"{widgets.collection}/a", body).body["metadata"]["generation"] == 2
    assert api.put(f"{widgets.collection}/a", body).error[:2] == (409, "Conflict")


def test_patches(api: Api, widgets: Kind) -> None:
    """Custom objects take merge patches, not strategic ones."""
    api.post(widgets.collection, widgets.widget("a"))
    assert api.patch(f"{widgets.collection}/a", {"spec": {"size": 5}}, MERGE).body["spec"]["size"] == 5
    assert api.patch(f"{widgets.collection}/a", {}, STRATEGIC).error[:2] == (415, "UnsupportedMediaType")


def test_status_and_scale(api: Api, widgets: Kind) -> None:
    """Status and scale are places of their own where the definition opens them."""
    created = api.post(widgets.collection, widgets.widget("a", spec={"replicas": 2}, status={"phase": "x"}))
    assert "status" not in created.body
    status = api.patch(f"{widgets.collection}/a/status", {"spec": {"size": 9}, "status": {"phase": "y"}}).body
    assert (status["spec"]["size"], status["status"], status["metadata"]["generation"]) == (1, {"phase": "y"}, 1)
    scale = api.get(f"{widgets.collection}/a/scale").body
    assert (scale["spec"], scale["status"]) == ({"replicas": 2}, {"replicas": 0})
    assert api.patch(f"{widgets.collection}/a/scale", {"spec": {"replicas": 4}}).body["spec"] == {"replicas": 4}
    assert api.get(f"{widgets.collection}/a").body["spec"]["replicas"] == 4


def test_apply(api: Api, widgets: Kind) -> None:
    """Sets, maps and atomic lists of a custom kind merge as its schema says."""
    path = f"{widgets.collection}/a"
    first = {"tags": ["a"], "parts": [{"name": "p", "count": 1}], "steps": ["x"]}
    second = {"tags": ["b"], "parts": [{"name": "q", "count": 2}]}
    one = api.apply(path, widgets.widget("a", spec=first))
    assert one.code == 201
    assert fields_of(one.body, "one") == {
        "f:spec": {
            "f:parts": {'k:{"name":"p"}': {".": {}, "f:count": {}, "f:name": {}}},
            "f:steps": {},
            "f:tags": {'v:"a"': {}},
        }
    }
    both = api.apply(path, widgets.widget("a", spec=second), manager="two").body["spec"]
    assert (both["tags"], [part["name"] for part in both["parts"]]) == (["a", "b"], ["p", "q"])
    taken = api.apply(path, widgets.widget("a", spec={"steps": ["y"]}), manager="two")
    assert taken.causes[0]["field"] == ".spec.steps"
    pruned = api.apply(path, widgets.widget("a", spec={"steps": ["x"]})).body["spec"]
    assert (pruned["tags"], [part["name"] for part in pruned["parts"]]) == (["b"], ["q"])


def test_apply_refusals(api: Api, widgets: Kind) -> None:
    """An unknown field is 500 on apply, a broken rule 422."""
    path = f"{widgets.collection}/a"
    unknown = api.apply(path, widgets.widget("a", spec={"zzz": 1}))
    head = f"failed to create typed patch object (/a; {widgets.group}/v1, Kind=Widget): "
    assert unknown.error == (500, "", head + ".spec.zzz: field not declared in schema")
    assert api.apply(path, widgets.widget("a", spec={"size": 0})).error[:2] == (422, "Invalid")


def test_watch_too_old(api: Api, widgets: Kind) -> None:
    """A version from before what the server remembers is told in the stream, as an ERROR."""
    api.post(widgets.collection, widgets.widget("a"))
    with api.watch(f"{widgets.collection}?watch=1&resourceVersion=1") as stream:
        event = stream.next()
        assert stream.code == 200
        assert event is not None
        assert event["type"] == "ERROR"
        assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
        assert event["object"]["message"].startswith("too old resource version: 1 (")
        assert stream.next() is None


def test_metadata_watch(api: Api, widgets: Kind) -> None:
    """Custom objects are watched as metadata like any other."""
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    api.post(widgets.collection, widgets.widget("a"))
    with api.watch(f"{widgets.collection}?{query}", Accept=METADATA) as stream:
        kinds = [event["object"]["kind"] for event in stream.until_bookmark()]
    assert kinds == ["PartialObjectMetadata", "PartialObjectMetadata"]


def test_schema_change(api: Api, widgets: Kind) -> None:
    """A changed schema changes the OpenAPI document's hash, ends the watches, and counts for what is written next."""
    before = openapi_path(api, widgets.group)
    rv = api.get(widgets.collection).rv
    with api.watch(f"{widgets.collection}?watch=1&resourceVersion={rv}") as stream:
        widgets.define(version("v1", more={"type": "string"}))
        assert stream.next() is None
    eventually(lambda: openapi_path(api, widgets.group) != before, "the document changes")
    path = f"{widgets.collection}/a"
    eventually(lambda: api.apply(path, widgets.widget("a", more="x")).code in (200, 201), "the new field is known")
    assert api.get(path).body["more"] == "x"


def openapi_path(api: Api, group: str) -> str:
    entry = json.loads(api.get("/openapi/v3").body)["paths"].get(f"apis/{group}/v1", {})
    return str(entry.get("serverRelativeURL", ""))


def test_openapi_of_a_custom_kind(api: Api, widgets: Kind) -> None:
    """The document of the group has the schema, marked with its kind."""
    eventually(lambda: openapi_path(api, widgets.group) != "", "the group has a document")
    schemas = api.get(openapi_path(api, widgets.group)).body["components"]["schemas"]
    mark = [{"group": widgets.group, "version": "v1", "kind": "Widget"}]
    (schema,) = [s for s in schemas.values() if s.get("x-kubernetes-group-version-kind") == mark]
    assert schema["properties"]["spec"]["properties"]["tags"]["x-kubernetes-list-type"] == "set"


def test_two_versions(api: Api, kind: Kind) -> None:
    """Every served version shows the same objects under its own apiVersion; one taken away is gone."""
    kind.define(version("v1"), version("v1beta1", storage=False))
    eventually(lambda: kind.served() and kind.served("v1beta1"), "both versions are served")
    api.post(kind.collection, kind.widget("a", spec={"size": 2}))
    other = api.get(f"/apis/{kind.group}/v1beta1/namespaces/default/widgets/a").body
    assert (other["apiVersion"], other["spec"]) == (f"{kind.group}/v1beta1", {"size": 2})
    group = next(g for g in api.get("/apis").body["groups"] if g["name"] == kind.group)
    assert [v["version"] for v in group["versions"]] == ["v1", "v1beta1"]
    assert group["preferredVersion"]["version"] == "v1"
    kind.define(version("v1"), version("v1beta1", storage=False, served=False))
    eventually(lambda: not kind.served("v1beta1"), "the version is not served any more")
    eventually(kind.served, "the other version still is")


def test_deleting_a_definition(api: Api, widgets: Kind) -> None:
    """The objects go with their definition, the watches tell it and end, and the path is gone."""
    api.post(widgets.collection, widgets.widget("a"))
    rv = api.get(widgets.collection).rv
    with api.watch(f"{widgets.collection}?watch=1&resourceVersion={rv}") as stream:
        assert api.delete(widgets.path).code == 200
        event = stream.next()
        assert event is not None
        assert (event["type"], event["object"]["metadata"]["name"]) == ("DELETED", "a")
        assert stream.next() is None
    eventually(lambda: api.get(widgets.path).code == 404, "the definition goes")
    eventually(lambda: api.get(widgets.collection).code == 404, "the kind is not served any more")


def test_definition_held_by_an_object(api: Api, widgets: Kind) -> None:
    """An object that cannot go holds its definition, which says that it is terminating."""
    api.post(widgets.collection, widgets.widget("a"))
    held = {"metadata": {"finalizers": ["x.io/y"]}}
    api.patch(f"{widgets.collection}/a", held)
    api.delete(widgets.path)
    eventually(lambda: conditions(api, widgets.path).get("Terminating") == "True", "the definition terminates")
    assert api.get(widgets.path).body["metadata"]["deletionTimestamp"]
    eventually(
        lambda: "deletionTimestamp" in api.get(f"{widgets.collection}/a").body["metadata"], "the object is marked"
    )
    refused = api.post(widgets.collection, widgets.widget("b")).error
    why = "create not allowed while custom resource definition is terminating"
    assert refused == (403, "Forbidden", f'widgets.{widgets.group} "b" is forbidden: {why}')
    api.patch(f"{widgets.collection}/a", {"metadata": {"finalizers": None}})
    eventually(lambda: api.get(widgets.path).code == 404, "the definition goes")


def test_definitions_that_make_no_sense(api: Api, kind: Kind) -> None:
    """A name that does not fit the names, and a definition without a stored version, are 422."""
    misnamed = definition(kind.group, version("v1"))
    misnamed["metadata"]["name"] = f"others.{kind.group}"
    reply = api.post(DEFINITIONS, misnamed)
    assert reply.error[:2] == (422, "Invalid")
    assert "metadata.name" in {cause["field"] for cause in reply.causes}
    unstored = definition(kind.group, version("v1", storage=False))
    assert api.post(DEFINITIONS, json.dumps(unstored)).error[:2] == (422, "Invalid")
