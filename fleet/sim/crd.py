"""CustomResourceDefinitions: names accepted, served, changed, and taken away again."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fleet.sim import schema
from fleet.sim.resource import Resource, ScalePaths
from fleet.sim.state import State
from fleet.sim.storage import Object

GROUP: Final = "apiextensions.k8s.io"
PLURAL: Final = "customresourcedefinitions"
CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"


def serve(state: State, definition: Object) -> None:
    """Serve what an established definition says, and close the watches of what it changed."""
    spec = definition["spec"]
    collection = (spec["group"], spec["names"]["plural"])
    wanted = list(_resources(definition))
    known = [
        r for v in spec["versions"] if (r := state.registry.find(spec["group"], v["name"], spec["names"]["plural"]))
    ]
    documents = {version["name"]: _document(version) for version in _served(definition)}
    served = {name: state.documents.get((spec["group"], name, spec["names"]["kind"])) for name in documents}
    if wanted == known and documents == served:
        return
    withdraw(state, definition)
    for resource in wanted:
        path = (resource.group, resource.version, resource.kind)
        state.registry.add(resource)
        state.documents[path] = documents[resource.version]
        state.schemas[path] = schema.from_openapi(documents[resource.version])
    state.storage.close_streams(collection)


def withdraw(state: State, definition: Object) -> None:
    """Serve no version of a definition any more; what is stored stays."""
    spec = definition["spec"]
    state.registry.drop(spec["group"], spec["names"]["plural"])
    for path in [p for p in state.schemas if (p[0], p[2]) == (spec["group"], spec["names"]["kind"])]:
        del state.schemas[path]
        state.documents.pop(path, None)


def accepted_status(state: State, definition: Object) -> dict[str, Any]:
    """Return the status of a definition whose names are accepted and that is established."""
    spec = definition["spec"]
    stored = next(version["name"] for version in spec["versions"] if version.get("storage"))
    before = definition.get("status") or {}
    versions = list(before.get("storedVersions") or ())
    names = {"singular": spec["names"]["kind"].lower(), "listKind": f"{spec['names']['kind']}List"} | spec["names"]
    return {
        "conditions": before.get("conditions") or _conditions(state.timestamp()),
        "acceptedNames": names,
        "storedVersions": versions if stored in versions else [*versions, stored],
    }


def _conditions(at: str) -> list[dict[str, str]]:
    return [
        {
            "type": "NamesAccepted",
            "status": "True",
            "lastTransitionTime": at,
            "reason": "NoConflicts",
            "message": "no conflicts found",
        },
        {
            "type": "Established",
            "status": "True",
            "lastTransitionTime": at,
            "reason": "InitialNamesAccepted",
            "message": "the initial names have been accepted",
        },
    ]


def terminating_condition(at: str) -> dict[str, str]:
    return {
        "type": "Terminating",
        "status": "True",
        "lastTransitionTime": at,
        "reason": "InstanceDeletionInProgress",
        "message": "CustomResource deletion is in progress",
    }


def _served(definition: Object) -> Iterator[Mapping[str, Any]]:
    return (version for version in definition["spec"]["versions"] if version.get("served"))


def _document(version: Mapping[str, Any]) -> Mapping[str, Any]:
    document: Mapping[str, Any] = (version.get("schema") or {}).get("openAPIV3Schema") or {"type": "object"}
    return document


def _resources(definition: Object) -> Iterator[Resource]:
    spec = definition["spec"]
    names = spec["names"]
    stored = next(version["name"] for version in spec["versions"] if version.get("storage"))
    for version in _served(definition):
        parts = version.get("subresources") or {}
        yield Resource(
            group=spec["group"],
            version=version["name"],
            kind=names["kind"],
            plural=names["plural"],
            singular=names.get("singular") or names["kind"].lower(),
            namespaced=spec["scope"] == "Namespaced",
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            has_status="status" in parts,
            scale=_scale(parts.get("scale")),
            fields=tuple(f["jsonPath"].lstrip(".") for f in version.get("selectableFields") or ()),
            counted=True,
            custom=True,
            storage_version=stored,
        )


def _scale(part: Mapping[str, str] | None) -> ScalePaths | None:
    if not part:
        return None
    return ScalePaths(
        spec=part["specReplicasPath"].lstrip("."),
        status=part["statusReplicasPath"].lstrip("."),
        selector=part.get("labelSelectorPath", "").lstrip("."),
    )
