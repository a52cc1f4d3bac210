"""The simulator's own table of lists against what a real server publishes."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from fleet.sim import schema
from fleet.sim.schema import Listing
from tests.contract.client import Api

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
KINDS = sorted(schema.table())


@pytest.fixture(scope="session")
def published(real_server: Api) -> Mapping[tuple[str, str], set[Listing]]:
    """Every list of every built-in kind, by apiVersion and kind, read from /openapi/v3."""
    found: dict[tuple[str, str], set[Listing]] = {}
    for address in json.loads(real_server.get("/openapi/v3").body)["paths"].values():
        document = real_server.get(address["serverRelativeURL"]).body
        types = document.get("components", {}).get("schemas", {}) if isinstance(document, dict) else {}
        for shape in types.values():
            for kind in shape.get("x-kubernetes-group-version-kind", ()):
                version = f"{kind['group']}/{kind['version']}" if kind["group"] else kind["version"]
                if len(shape["x-kubernetes-group-version-kind"]) == 1:
                    found[version, kind["kind"]] = set(_lists(shape, types))
    return found


def _lists(
    shape: Mapping[str, Any], types: Mapping[str, Any], path: str = "", seen: tuple[str, ...] = ()
) -> Iterator[Listing]:
    shape = {**shape, **(shape["allOf"][0] if "allOf" in shape else {})}
    name = shape.get("$ref", "").rpartition("/")[2]
    if name:
        if name in seen:
            return
        yield from _lists(types[name], types, path, (*seen, name))
    elif "items" in shape:
        kind = shape.get("x-kubernetes-list-type", "atomic")
        keys = tuple(shape.get("x-kubernetes-list-map-keys", ())) if kind == "map" else ()
        yield Listing(path=path, type=kind, keys=keys)
        yield from _lists(shape["items"], types, f"{path}[]", seen)
    for field, inner in shape.get("properties", {}).items():
        yield from _lists(inner, types, f"{path}.{field}", seen)
    if isinstance(shape.get("additionalProperties"), dict):
        yield from _lists(shape["additionalProperties"], types, f"{path}{{}}", seen)


@pytest.mark.parametrize("kind", KINDS, ids="/".join)
def test_lists(published: Mapping[tuple[str, str], set[Listing]], kind: tuple[str, str]) -> None:
    """Each list of a kind is atomic, a set or a map with exactly these keys, on the real server too."""
    ours = set(schema.table()[kind])
    assert ours == published[kind], f"{ours ^ published[kind]}"
