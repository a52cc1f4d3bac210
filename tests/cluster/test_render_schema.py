"""What rendering knows of built-in kinds, held to a real API server."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.object import GroupKind, Origin
from fleet.render.normalize import make_manifest, normalize
from fleet.render.quantity import canonicalize_quantity
from fleet.render.schema import KINDS, SET, Encoded, Items, Quantities, Quantity, Shape, Struct, Text, Texts, find_shape
from fleet.render.scope import BUILT_IN
from fleet.sim.real import ControlPlane

QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"


async def get(plane: ControlPlane, path: str) -> Any:
    """Return a decoded answer."""
    reply = await plane.request("GET", path)
    assert reply.code == 200, reply.body
    return reply.body if isinstance(reply.body, dict) else json.loads(reply.body)


class Schemas:
    """The schemas of one group and version."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._schemas: dict[str, dict[str, Any]] = document["components"].get("schemas", {})

    def kinds(self) -> Iterator[tuple[GroupKind, dict[str, Any]]]:
        for schema in self._schemas.values():
            names = schema.get("x-kubernetes-group-version-kind", [])
            if len(names) == 1:
                yield GroupKind(names[0]["group"], names[0]["kind"]), schema

    def open(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Follow references, keeping what stands beside them."""
        reference = schema.get("$ref") or next(
            (part["$ref"] for part in schema.get("allOf", []) if "$ref" in part), None
        )
        return {**self.open(self._schemas[reference.rpartition("/")[2]]), **schema} if reference else schema

    def is_quantity(self, schema: dict[str, Any]) -> bool:
        return QUANTITY in json.dumps(schema)

    def check(self, shape: Shape, schema: dict[str, Any], path: str) -> Iterator[str]:
        """Yield where a shape and the server differ."""
        node = self.open(schema)
        match shape:
            case Struct():
                for name, below in shape.fields.items():
                    if name not in node.get("properties", {}):
                        yield f"{path}: no field {name}"
                    else:
                        yield from self.check(below, node["properties"][name], f"{path}.{name}")
            case Items():
                keys = (
                    SET
                    if node.get("x-kubernetes-list-type") == "set"
                    else tuple(node.get("x-kubernetes-list-map-keys", ()))
                )
                if set(keys) != set(shape.keys):
                    yield f"{path}: keys {keys}, not {shape.keys}"
                if shape.of:
                    yield from self.check(shape.of, node["items"], f"{path}[]")
            case Quantity():
                if not self.is_quantity(schema):
                    yield f"{path}: no quantity"
            case Quantities():
                if not self.is_quantity(node["additionalProperties"]):
                    yield f"{path}: no quantities"
            case Texts() | Encoded():
                if self.open(node["additionalProperties"]).get("type") != "string":
                    yield f"{path}: no texts"
            case Text():
                if node.get("type") != "string":
                    yield f"{path}: no text"

    def find_merged(
        self, shape: Shape | None, schema: dict[str, Any], path: str, seen: tuple[str, ...] = ()
    ) -> Iterator[str]:
        """Yield maps of lists and quantities of pods that the tables do not know; nobody writes a status down."""
        node = self.open(schema)
        known = shape.fields if isinstance(shape, Struct) else {}
        if isinstance(shape, Items) or node.get("type") == "array":
            of = shape.of if isinstance(shape, Items) else None
            yield from self.find_merged(of, node.get("items", {}), f"{path}[]", seen)
        for name, below in node.get("properties", {}).items():
            if name == "status":
                continue
            where = f"{path}.{name}"
            opened = self.open(below)
            if name not in known and opened.get("x-kubernetes-list-type") == "map":
                yield where
            if name not in known and self.is_quantity(below):
                yield where
            if name not in seen and len(seen) < 12:
                yield from self.find_merged(known.get(name), below, where, (*seen, name))


async def schemas(plane: ControlPlane) -> list[Schemas]:
    """Return the schemas of every group and version."""
    index = await get(plane, "/openapi/v3")
    return [
        Schemas(await get(plane, entry["serverRelativeURL"]))
        for name, entry in sorted(index["paths"].items())
        if "/v" in name
    ]


async def test_field_tables(plane: ControlPlane) -> None:
    """Every field that normalisation touches is on the server what the tables say, and no list of a pod is forgotten."""
    wrong: list[str] = []
    met: set[GroupKind] = set()
    for group in await schemas(plane):
        for kind, schema in group.kinds():
            if kind not in KINDS:
                continue
            met.add(kind)
            wrong += group.check(find_shape(kind), schema, kind.kind)
            if kind.kind in ("Deployment", "StatefulSet", "CronJob"):
                spec = group.open(schema)["properties"]["spec"]
                wrong += group.find_merged(find_shape(kind).fields["spec"], spec, f"{kind.kind}.spec")
    assert wrong == []
    assert met == set(KINDS)


async def test_scopes(plane: ControlPlane) -> None:
    """Every built-in kind that the server stores is in the table with its scope."""
    groups = (await get(plane, "/apis"))["groups"]
    # other tests' definitions may stay, and may vanish at any moment
    definitions = await get(plane, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    defined = {definition["spec"]["group"] for definition in definitions["items"]}
    own = [group for group in groups if group["name"] not in defined and not group["name"].endswith("example.com")]
    paths = ["/api/v1", *(f"/apis/{version['groupVersion']}" for group in own for version in group["versions"])]
    wrong = {}
    for path in paths:
        listed = await get(plane, path)
        group = listed["groupVersion"].rpartition("/")[0]
        for resource in listed["resources"]:
            kind = GroupKind(group, resource["kind"])
            stored = "/" not in resource["name"] and "get" in resource["verbs"]
            if stored and BUILT_IN.get(kind) != resource["namespaced"]:
                wrong[kind] = resource["namespaced"]
    assert {kind: scope for kind, scope in wrong.items() if kind.kind != "ComponentStatus"} == {}


@pytest.mark.parametrize(
    "written",
    ["1000m", "0.5", "1024Mi", "1.5Gi", "1e3", "2000", "0.1Ki", "12e4", "100M", "1536", "0.1", "1000Ki"],
)
async def test_quantities(plane: ControlPlane, namespace: str, written: str) -> None:
    """A quantity takes the form in which the server gives it back."""
    body = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q"},
        "spec": {"hard": {"limits.memory": written}},
    }
    reply = await plane.request("POST", f"/api/v1/namespaces/{namespace}/resourcequotas?dryRun=All", body)
    assert reply.code == 201, reply.body
    answer = reply.body if isinstance(reply.body, dict) else json.loads(reply.body)
    assert answer["spec"]["hard"]["limits.memory"] == canonicalize_quantity(written)


async def test_live_values_are_desired_values(plane: ControlPlane, namespace: str) -> None:
    """What a Deployment asks for is found in the live object as it was written down for comparison."""
    value = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x", "finalizers": [], "labels": {"a": None}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}, "creationTimestamp": None},
                "spec": {
                    "containers": [
                        {
                            "name": "c",
                            "image": "i",
                            "env": [],
                            "ports": [{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}],
                            "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
                        }
                    ],
                    "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1024Ki"}}],
                },
            },
        },
    }
    body, faults = normalize(value)
    assert faults == []
    made = make_manifest(body, namespace=namespace, scopes={}, digest_key=b"k", origin=Origin("x", 1))
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    reply = await plane.request("POST", path, json.loads(made.body))
    assert reply.code == 201, reply.body
    live = reply.body if isinstance(reply.body, dict) else json.loads(reply.body)
    assert list(find_difference(json.loads(made.body), live, "")) == []


def find_difference(desired: Any, live: Any, path: str) -> Iterator[str]:
    """Yield where a desired value is not found in the live one."""
    if isinstance(desired, dict) and isinstance(live, dict):
        for name, below in desired.items():
            yield from find_difference(below, live.get(name), f"{path}.{name}")
    elif isinstance(desired, list) and isinstance(live, list) and len(desired) == len(live):
        for index, below in enumerate(desired):
            yield from find_difference(below, live[index], f"{path}[{index}]")
    elif desired != live:
        yield f"{path}: {desired!r} is {live!r}"
