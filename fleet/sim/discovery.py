"""What the server says of itself: groups, versions and resources, aggregated and legacy, and its own version."""

import hashlib
from typing import Any, Final

from fleet.sim import status
from fleet.sim.representation import encode
from fleet.sim.resource import Registry, Resource

AGGREGATED: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

VERSION: Final = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.3",
    "gitCommit": "0000000000000000000000000000000000000000",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "go1.26",
    "compiler": "gc",
    "platform": "linux/amd64",
}


def wants_aggregated(accept: str) -> bool:
    """Tell whether the Accept header asks for aggregated discovery in a version served."""
    for choice in accept.split(","):
        media, *parameters = (part.strip() for part in choice.split(";"))
        if media == "application/json":
            wanted = dict(part.partition("=")[::2] for part in parameters)
            if wanted.get("as") == "APIGroupDiscoveryList" and wanted.get("v") == "v2":
                return True
    return False


def etag(body: bytes) -> str:
    """Return the strong entity tag of a document."""
    return f'"{hashlib.sha512(body).hexdigest().upper()}"'


def aggregated(registry: Registry, *, core: bool) -> bytes:
    """Return the APIGroupDiscoveryList of /api (`core`) or /apis."""
    groups = registry.groups()
    items = [_aggregated_group(registry, name, groups[name]) for name in groups if (name == "") == core]
    head = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}}
    return encode({**head, "items": items})


def _aggregated_group(registry: Registry, name: str, versions: list[str]) -> dict[str, Any]:
    listed = [
        {
            "version": version,
            "resources": [_aggregated_resource(resource) for resource in registry.of_version(name, version)],
            "freshness": "Current",
        }
        for version in versions
    ]
    return {"metadata": {"name": name} if name else {}, "versions": listed}


def _aggregated_resource(resource: Resource) -> dict[str, Any]:
    kind = _response_kind(resource)
    entry: dict[str, Any] = {
        "resource": resource.plural,
        "responseKind": kind,
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    subresources = [
        {"subresource": name, "responseKind": kind, "verbs": ["get", "patch", "update"]}
        for name, kind in _subresources(resource)
    ]
    return entry | ({"subresources": subresources} if subresources else {})


def _response_kind(resource: Resource) -> dict[str, str]:
    """Built-in kinds leave group and version empty where they are those of the document; custom kinds repeat them."""
    group, version = (resource.group, resource.version) if resource.custom else ("", "")
    return {"group": group, "version": version, "kind": resource.kind}


def _subresources(resource: Resource) -> list[tuple[str, dict[str, str]]]:
    found = []
    if resource.scale:
        found.append(("scale", {"group": "autoscaling", "version": "v1", "kind": "Scale"}))
    if resource.has_status:
        found.append(("status", _response_kind(resource)))
    return found


def legacy(registry: Registry, path: str) -> bytes:
    """Return a discovery document of the old form: /api, /apis, /api/v1, /apis/GROUP, /apis/GROUP/VERSION.

    Raises:
        ApiError: 404 in plain text, a group or version that is not served.
    """
    parts = path.strip("/").split("/")
    if parts == ["api"]:
        addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1"}]
        return encode({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses})
    if parts == ["apis"]:
        groups = [_legacy_group(name, versions) for name, versions in registry.groups().items() if name]
        return encode({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    if parts[0] == "apis" and len(parts) == 2 and parts[1] in registry.groups():
        group = _legacy_group(parts[1], registry.groups()[parts[1]])
        return encode({"kind": "APIGroup", "apiVersion": "v1"} | group)
    group_name, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[-1])
    resources = registry.of_version(group_name, version)
    if not resources or len(parts) != (2 if parts[0] == "api" else 3):
        raise status.page_not_found()
    entries = [entry for resource in resources for entry in _legacy_resource(resource)]
    return encode(
        {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": resources[0].api_version,
            "resources": entries,
        }
    )


def _legacy_group(name: str, versions: list[str]) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _legacy_resource(resource: Resource) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    entries = [entry]
    for name, kind in _subresources(resource):
        elsewhere = {"group": kind["group"], "version": kind["version"]} if name == "scale" else {}
        entries.append(
            {
                "name": f"{resource.plural}/{name}",
                "singularName": "",
                "namespaced": resource.namespaced,
                **elsewhere,
                "kind": kind["kind"],
                "verbs": ["get", "patch", "update"],
            }
        )
    return entries
