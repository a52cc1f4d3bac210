"""The OpenAPI v3 documents: an index whose hashes change with the schemas, and one document per group version."""

import hashlib
from typing import Any, Final

from fleet.sim import status
from fleet.sim.representation import encode
from fleet.sim.resource import Resource
from fleet.sim.state import State

_PATCH_OPTIONS: Final = ("dryRun", "fieldManager", "fieldValidation", "force")


def index(state: State) -> bytes:
    """Return the index: each group version's path with the hash of its document."""
    paths = {}
    for group, versions in state.registry.groups().items():
        for version in versions:
            path = _path(group, version)
            digest = hashlib.sha512(_document(state, group, version)).hexdigest().upper()
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return encode({"paths": paths})


def document(state: State, path: str) -> bytes:
    """Return the document of one group version.

    Raises:
        ApiError: 404 in plain text.
    """
    for group, versions in state.registry.groups().items():
        for version in versions:
            if path == _path(group, version):
                return _document(state, group, version)
    raise status.page_not_found()


def _path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _document(state: State, group: str, version: str) -> bytes:
    resources = state.registry.of_version(group, version)
    schemas = {_schema_name(resource): _schema(state, resource) for resource in resources}
    info = {"title": "Kubernetes", "version": "v1.36.3"}
    paths = dict(_patch_path(resource) for resource in resources if "patch" in resource.verbs)
    return encode({"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}})


def _patch_path(resource: Resource) -> tuple[str, dict[str, Any]]:
    """Return the path of one object with its PATCH: where clients look up which options a server knows."""
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    place = "/namespaces/{namespace}" if resource.namespaced else ""
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    options = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _PATCH_OPTIONS]
    action = {"parameters": options, "x-kubernetes-action": "patch", "x-kubernetes-group-version-kind": kind}
    return f"{root}{place}/{resource.plural}/{{name}}", {"patch": action}


def _schema_name(resource: Resource) -> str:
    parts = [*reversed(resource.group.split(".")), resource.version, resource.kind]
    return ".".join(part for part in parts if part)


def _schema(state: State, resource: Resource) -> dict[str, Any]:
    document: dict[str, Any] = dict(
        state.documents.get((resource.group, resource.version, resource.kind), {"type": "object"})
    )
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    return document | {"x-kubernetes-group-version-kind": [kind]}
