"""The ApplySet of a target: one ConfigMap in `fleet-system` that says which kinds and namespaces its objects are of.

It is written before the first object of a new kind or namespace and shrunk after a prune, never per commit. kubectl then
refuses to prune the set, and a lost ledger can be found again. Source: KEP-3659.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import fleet
from fleet.annotation import APPLYSET_ID, APPLYSET_KINDS, APPLYSET_NAMESPACES, APPLYSET_TOOLING, HUB
from fleet.kube.applyset import applyset_id
from fleet.kube.wire import Observed
from fleet.object import Manifest, ObjectKey, Origin, TargetId, encode_canonical

SYSTEM_NAMESPACE = "fleet-system"
PARENT_PREFIX = "fleet-app-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Kinds (`Kind.group`) and namespaces of a target's objects."""

    kinds: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()

    def covers(self, other: "Scope") -> bool:
        """Tell whether nothing of `other` is missing here."""
        return self.kinds >= other.kinds and self.namespaces >= other.namespaces

    def union(self, other: "Scope") -> "Scope":
        """Return what covers both."""
        return Scope(kinds=self.kinds | other.kinds, namespaces=self.namespaces | other.namespaces)


def scope_of(keys: Iterable[ObjectKey]) -> Scope:
    """Collect the kinds and namespaces of objects; the parent's own namespace goes without saying."""
    listed = list(keys)
    return Scope(
        kinds=frozenset(str(key.group_kind) for key in listed),
        namespaces=frozenset(key.namespace for key in listed) - {"", SYSTEM_NAMESPACE},
    )


def parent_name(target: TargetId) -> str:
    """Name the parent ConfigMap.

    >>> parent_name(TargetId("prod", "shop"))
    'fleet-app-shop'
    """
    return f"{PARENT_PREFIX}{target.app}"


def parent_key(target: TargetId) -> ObjectKey:
    """Identify the parent ConfigMap."""
    return ObjectKey("", "ConfigMap", SYSTEM_NAMESPACE, parent_name(target))


def set_id(target: TargetId) -> str:
    """Return the value of the part-of label of the target's objects."""
    return applyset_id(parent_name(target), SYSTEM_NAMESPACE, "ConfigMap", "")


def parent_manifest(target: TargetId, scope: Scope, hub_id: str) -> Manifest:
    """Build the parent ConfigMap."""
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": parent_name(target),
            "namespace": SYSTEM_NAMESPACE,
            "labels": {APPLYSET_ID: set_id(target)},
            "annotations": {
                APPLYSET_TOOLING: f"fleet/{fleet.__version__}",
                APPLYSET_KINDS: ",".join(sorted(scope.kinds)),
                APPLYSET_NAMESPACES: ",".join(sorted(scope.namespaces)),
                HUB: hub_id,
            },
        },
    }
    encoded = encode_canonical(body)
    return Manifest(
        key=parent_key(target),
        version="v1",
        body=encoded,
        digest=hashlib.blake2b(encoded, digest_size=16).digest(),
        origin=Origin("ApplySet parent", 0),
    )


def scope_in(parent: Observed) -> Scope:
    """Read a parent ConfigMap's scope."""
    kinds = parent.annotations.get(APPLYSET_KINDS, "")
    namespaces = parent.annotations.get(APPLYSET_NAMESPACES, "")
    return Scope(
        kinds=frozenset(filter(None, kinds.split(","))), namespaces=frozenset(filter(None, namespaces.split(",")))
    )
