"""The least rights that a hub and its apps need in one cluster, as RBAC documents. Pure.

Watches select on a label over all namespaces, so looking needs ClusterRoles; writing needs no more than a Role in each
namespace that an app has objects in.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fleet.hub.link import Link
from fleet.hub.supply import Supply
from fleet.kube.credential import Impersonation
from fleet.object import GroupKind, Manifest, ObjectKey
from fleet.reconcile.applyset import SYSTEM_NAMESPACE
from fleet.reconcile.carry import CRD
from fleet.reconcile.plan import not_allowed

RBAC = "rbac.authorization.k8s.io"
HUB_ACCOUNT = "hub"
WRITE = ["get", "list", "create", "patch", "delete"]
LOOK = ["get", "list", "watch"]
THERE_ALREADY = frozenset({"", "default", "kube-system", "kube-public", "kube-node-lease"})
SERVICE_ACCOUNT = "system:serviceaccount:"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """What RBAC calls a kind."""

    group: str
    plural: str


@dataclass(slots=True)
class Needs:
    """Who writes what where: identity (None: the hub) -> namespace (empty: the whole cluster) -> resources."""

    writes: dict[Impersonation | None, dict[str, set[Resource]]] = field(default_factory=dict)

    def add(self, who: Impersonation | None, namespace: str, resource: Resource) -> None:
        """Note one."""
        self.writes.setdefault(who, {}).setdefault(namespace, set()).add(resource)

    @property
    def resources(self) -> list[Resource]:
        """Everything that is written by anybody, sorted."""
        return sorted({r for by_namespace in self.writes.values() for some in by_namespace.values() for r in some})


def collect_rights(supplies: Sequence[Supply], link: Link | None) -> Needs:
    """Read from what apps render, and from what they still hold, what has to be written. `link` knows the kinds."""
    needs = Needs()
    defined = dict(_defined(m for supply in supplies if supply.desired for m in supply.desired.manifests))

    def note(supply: Supply, key: ObjectKey, scoped: bool) -> None:
        served = link.discovery.resource(key.group_kind) if link is not None else None
        plural, namespaced = defined.get(key.group_kind, (guess_plural(key.kind), None))
        if served is not None:
            plural, namespaced = served.plural, served.namespaced
        namespace = key.namespace
        if not scoped and namespaced is not False:
            namespace = supply.brief.policy.namespace or "default"
        needs.add(supply.brief.impersonation, namespace, Resource(key.group, plural))

    for supply in supplies:
        policy = supply.brief.policy
        for m in supply.desired.manifests if supply.desired else ():
            if not_allowed(policy, m) is None:
                note(supply, m.key, m.scoped)
        for key in link.applied(supply.target.id) if link is not None else ():
            note(supply, key, scoped=True)
    return needs


def _defined(manifests: Iterable[Manifest]) -> Iterator[tuple[GroupKind, tuple[str, bool]]]:
    """List the kinds that definitions among the manifests bring: plural, and whether they are namespaced."""
    for m in manifests:
        if m.key.group_kind == CRD:
            spec = msgspec.json.decode(m.body).get("spec") or {}
            names = spec.get("names") or {}
            kind = GroupKind(spec.get("group", ""), names.get("kind", ""))
            yield kind, (names.get("plural", ""), spec.get("scope") != "Cluster")


def guess_plural(kind: str) -> str:
    """Return the plural of a kind that nobody was asked about.

    Source: k8s.io/apimachinery, meta.UnsafeGuessKindToResource.

    >>> [guess_plural(kind) for kind in ("ConfigMap", "Ingress", "NetworkPolicy", "Endpoints")]
    ['configmaps', 'ingresses', 'networkpolicies', 'endpoints']
    """
    word = kind.lower()
    if word.endswith("endpoints"):
        return word
    if word.endswith("s"):
        return f"{word}es"
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


def write_rights(needs: Needs) -> list[Document]:
    """Write the documents, in an order in which they can be applied."""
    return [*_namespaces(needs), *_accounts(needs), *_system(), *_looking(needs), *_writing(needs)]


def _namespaces(needs: Needs) -> Iterator[Document]:
    names = {namespace for by_namespace in needs.writes.values() for namespace in by_namespace}
    names |= {account[0] for who in needs.writes if (account := _account(who))}
    for name in sorted({*names, SYSTEM_NAMESPACE} - THERE_ALREADY):
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _accounts(needs: Needs) -> Iterator[Document]:
    for namespace, name in sorted({account for who in [None, *needs.writes] if (account := _account(who))}):
        yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def _account(who: Impersonation | None) -> tuple[str, str] | None:
    """Return namespace and name of a service account; None for another user."""
    if who is None:
        return SYSTEM_NAMESPACE, HUB_ACCOUNT
    if not who.user.startswith(SERVICE_ACCOUNT):
        return None
    namespace, _, name = who.user.removeprefix(SERVICE_ACCOUNT).partition(":")
    return namespace, name


def _system() -> Iterator[Document]:
    """The Lease by which the hub holds the cluster, and one ConfigMap per app."""
    rules = [
        _rule("", ["configmaps"], WRITE),
        _rule("coordination.k8s.io", ["leases"], ["get", "create", "patch"]),
    ]
    yield from _grant("fleet-hub", SYSTEM_NAMESPACE, rules, None)


def _looking(needs: Needs) -> Iterator[Document]:
    """Say which cluster this is, what it serves and holds, and why pods are not ready; and act in other names."""
    rules = [
        _rule("", ["events", "namespaces", "pods"], LOOK),
        _rule("apiextensions.k8s.io", ["customresourcedefinitions"], LOOK),
        _rule("apps", ["replicasets"], LOOK),
        *_rules(needs.resources, LOOK),
    ]
    yield from _grant("fleet-hub-look", "", [*rules, *_impersonation(needs)], None)
    for who in needs.writes:
        if who is not None and (account := _account(who)):
            rule = {**_rule("", ["serviceaccounts"], ["impersonate"]), "resourceNames": [account[1]]}
            yield from _grant(f"fleet-hub-impersonate-{account[1]}", account[0], [rule], None)


def _impersonation(needs: Needs) -> Iterator[Document]:
    users = sorted({who.user for who in needs.writes if who is not None and not _account(who)})
    groups = sorted({group for who in needs.writes if who is not None for group in who.groups})
    for plural, names in (("users", users), ("groups", groups)):
        if names:
            yield {**_rule("", [plural], ["impersonate"]), "resourceNames": names}


def _writing(needs: Needs) -> Iterator[Document]:
    for who, by_namespace in needs.writes.items():
        account = _account(who)
        word = "hub-write" if who is None else f"write-{'-'.join(account) if account else who.user}"
        for namespace, resources in sorted(by_namespace.items()):
            rules = [*_rules(sorted(resources), WRITE), *_escalation(resources, namespace)]
            yield from _grant(f"fleet-{word.replace('/', '-').replace('%', '-')}", namespace, rules, who)


def _escalation(resources: set[Resource], namespace: str) -> Iterator[Document]:
    """Whoever delivers roles must be let: Kubernetes lets nobody grant rights that he lacks."""
    plurals = {resource.plural for resource in resources if resource.group == RBAC}
    if roles := sorted(plurals & {"roles", "clusterroles"}):
        yield _rule(RBAC, roles, ["escalate"])
    if plurals & {"rolebindings", "clusterrolebindings"}:
        yield _rule(RBAC, ["clusterroles", "roles"] if namespace else ["clusterroles"], ["bind"])


def _rules(resources: Iterable[Resource], verbs: list[str]) -> Iterator[Document]:
    by_group: dict[str, list[str]] = {}
    for resource in resources:
        by_group.setdefault(resource.group, []).append(resource.plural)
    for group, plurals in sorted(by_group.items()):
        yield _rule(group, plurals, verbs)


def _rule(group: str, plurals: Sequence[str], verbs: Sequence[str]) -> Document:
    return {"apiGroups": [group], "resources": list(plurals), "verbs": list(verbs)}


def _grant(name: str, namespace: str, rules: Sequence[Document], who: Impersonation | None) -> Iterator[Document]:
    """Write a role and its binding: in a namespace, or for the whole cluster when that is empty."""
    prefix = "" if namespace else "Cluster"
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    api = f"{RBAC}/v1"
    yield {"apiVersion": api, "kind": f"{prefix}Role", "metadata": metadata, "rules": list(rules)}
    yield {
        "apiVersion": api,
        "kind": f"{prefix}RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": f"{prefix}Role", "name": name},
        "subjects": [_subject(who)],
    }


def _subject(who: Impersonation | None) -> Mapping[str, str]:
    account = _account(who)
    if account is not None:
        return {"kind": "ServiceAccount", "name": account[1], "namespace": account[0]}
    assert who is not None
    return {"kind": "User", "apiGroup": RBAC, "name": who.user}
