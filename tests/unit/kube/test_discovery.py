"""Discovery documents -> kinds."""

import json
from typing import Any

import msgspec
import pytest

from fleet.kube.discovery import Resource, Table, _Group, _LegacyResource, index, path, read_aggregated, read_legacy
from fleet.object import GroupKind, Gvk

ALL = ["get", "list", "watch", "create", "patch", "delete"]


def resource(
    plural: str, kind: str, *, scope: str = "Namespaced", verbs: list[str] = ALL, **more: Any
) -> dict[str, Any]:
    """Write one resource of an aggregated document."""
    return {"resource": plural, "responseKind": {"kind": kind}, "scope": scope, "verbs": verbs, **more}


def group(name: str, **versions: Any) -> _Group:
    """Write one group of an aggregated document; a version is its resources, or None when it is stale."""
    listed = [
        {"version": v, "freshness": "Stale" if r is None else "Current", "resources": r} for v, r in versions.items()
    ]
    return msgspec.json.decode(json.dumps({"metadata": {"name": name}, "versions": listed}), type=_Group)


def test_preferred_version_is_the_first_that_serves_the_kind() -> None:
    """The server's order decides; a kind that only an old version serves is found there."""
    table, stale = read_aggregated(
        [
            group(
                "apps",
                v2=[resource("webs", "Web", subresources=[{"subresource": "status"}, {"subresource": "scale"}])],
                v1=[resource("webs", "Web"), resource("olds", "Old", scope="Cluster")],
            )
        ]
    )
    preferred, exact = index(table)
    web = preferred[GroupKind("apps", "Web")]
    assert (web.gvk.version, web.preferred, web.served_versions) == ("v2", True, ("v2", "v1"))
    assert web.subresources == {"status", "scale"}
    assert exact[Gvk("apps", "v1", "Web")].preferred is False
    assert exact[Gvk("apps", "v1", "Web")].served_versions == ("v2", "v1")
    assert preferred[GroupKind("apps", "Old")].namespaced is False
    assert not stale


def test_unwatchable_versions_are_not_preferred() -> None:
    """A version that can be listed and watched wins over one that cannot."""
    table, _ = read_aggregated([group("g", v2=[resource("xs", "X", verbs=["create"])], v1=[resource("xs", "X")])])
    preferred, _ = index(table)
    assert preferred[GroupKind("g", "X")].gvk.version == "v1"
    assert preferred[GroupKind("g", "X")].watchable


def test_stale_groups_are_told() -> None:
    """A group whose server does not answer is named, not read as empty."""
    table, stale = read_aggregated([group("metrics.k8s.io", v1=None), group("", v1=[resource("pods", "Pod")])])
    assert stale == {"metrics.k8s.io"}
    assert list(table) == [""]


def test_legacy_lists() -> None:
    """Names with a slash are subresources of their resource."""
    raw = [
        {"name": "deployments", "kind": "Deployment", "namespaced": True, "verbs": ALL},
        {"name": "deployments/scale", "kind": "Scale", "group": "autoscaling", "version": "v1", "verbs": ["get"]},
        {"name": "bindings", "kind": "Binding", "namespaced": True, "verbs": ["create"]},
    ]
    entries = msgspec.json.decode(json.dumps(raw), type=list[_LegacyResource])
    found = read_legacy("apps", "v1", entries)
    assert [r.plural for r in found] == ["deployments", "bindings"]
    assert found[0].subresources == {"scale"}
    table: Table = {"apps": {"v1": found}}
    assert index(table)[0][GroupKind("apps", "Deployment")].watchable


@pytest.mark.parametrize(
    ("gvk", "namespaced", "args", "expected"),
    [
        (Gvk("", "v1", "Pod"), True, ("n", "a"), "/api/v1/namespaces/n/xs/a"),
        (Gvk("", "v1", "Pod"), True, ("",), "/api/v1/xs"),
        (Gvk("apps", "v1", "X"), True, ("n", "a", "scale"), "/apis/apps/v1/namespaces/n/xs/a/scale"),
        (Gvk("rbac", "v1", "X"), False, ("ignored", "system:node"), "/apis/rbac/v1/xs/system:node"),
        (Gvk("rbac", "v1", "X"), False, ("", "a b/c?d"), "/apis/rbac/v1/xs/a%20b%2Fc%3Fd"),
    ],
)
def test_paths(gvk: Gvk, namespaced: bool, args: tuple[str, ...], expected: str) -> None:
    """Paths follow group, scope and name; a name can never leave its segment."""
    assert path(Resource(gvk=gvk, plural="xs", namespaced=namespaced), *args) == expected
