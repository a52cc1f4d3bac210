"""The RBAC that a cluster's apps need, from what they render."""

import json
from typing import Any

from fleet.hub.brief import Brief
from fleet.hub.rights import collect_rights, write_rights
from fleet.hub.supply import Supply
from fleet.inventory.schema import App, Cluster, Environment
from fleet.inventory.value import Target
from fleet.object import Manifest, ObjectKey, TargetId
from fleet.reconcile.port import Policy
from fleet.reconcile.run import Desired

RBAC = "rbac.authorization.k8s.io"
DEFINITION = {
    "spec": {"group": "example.com", "names": {"kind": "Ox", "plural": "oxen"}, "scope": "Namespaced"},
}


def manifest(group: str, kind: str, namespace: str, *, scoped: bool = True, body: Any = None) -> Manifest:
    """A manifest of one kind."""
    key = ObjectKey(group, kind, namespace, "x")
    return Manifest(key=key, version="v1", body=json.dumps(body or {}).encode(), digest=b"", scoped=scoped)


def supply(*manifests: Manifest, policy: Policy | None = None, user: str = "", groups: tuple[str, ...] = ()) -> Supply:
    """What one app renders."""
    api = {"apiVersion": "fleet/v1"}
    app = {**api, "kind": "App", "metadata": {"name": "shop"}}
    spec = {"repository": "config", "path": "app", "targets": {"clusters": ("prod",)}}
    cluster = {**api, "kind": "Cluster", "metadata": {"name": "prod"}}
    place = {"environment": "dev", "connection": {"inCluster": True}}
    target = Target(
        id=TargetId("prod", "shop"),
        app=App.model_validate({**app, "spec": spec}),
        cluster=Cluster.model_validate({**cluster, "spec": place}),
        environment=Environment.model_validate({**api, "kind": "Environment", "metadata": {"name": "dev"}}),
        path="app",
        variables={},
        depends_on=(),
    )
    desired = Desired(release=1, revision="1" * 40, digest="d", manifests=manifests)
    brief = Brief(policy=policy or Policy(), user=user, groups=groups)
    return Supply(target=target, brief=brief, desired=desired, head="1" * 40)


def rules(documents: list[dict[str, Any]], kind: str, name: str, namespace: str = "") -> list[tuple[str, str, str]]:
    """The rules of one role, flat: (groups, resources, verbs)."""
    for document in documents:
        metadata = document["metadata"]
        if (document["kind"], metadata["name"], metadata.get("namespace", "")) == (kind, name, namespace):
            return [
                (",".join(r["apiGroups"]), ",".join(r["resources"]), ",".join(r["verbs"])) for r in document["rules"]
            ]
    raise AssertionError([(d["kind"], d["metadata"]) for d in documents])


WRITE = "get,list,create,patch,delete"


def test_an_app_gets_a_role_where_it_writes() -> None:
    """Namespaced objects need a Role in their namespace, others a ClusterRole; everything is watched everywhere."""
    needs = collect_rights(
        [
            supply(
                manifest("apps", "Deployment", "shop"), manifest("", "ConfigMap", "web"), manifest("", "Namespace", "")
            )
        ],
        None,
    )
    documents = write_rights(needs)
    assert rules(documents, "Role", "fleet-hub-write", "shop") == [("apps", "deployments", WRITE)]
    assert rules(documents, "Role", "fleet-hub-write", "web") == [("", "configmaps", WRITE)]
    assert rules(documents, "ClusterRole", "fleet-hub-write") == [("", "namespaces", WRITE)]
    looking = rules(documents, "ClusterRole", "fleet-hub-look")
    assert ("apps", "deployments", "get,list,watch") in looking
    names = [d["metadata"]["name"] for d in documents if d["kind"] == "Namespace"]
    assert names == ["fleet-system", "shop", "web"]


def test_a_new_kind_is_called_as_its_definition_says() -> None:
    """Neither plural nor scope can be asked of a server that does not know the kind yet."""
    crd = manifest("apiextensions.k8s.io", "CustomResourceDefinition", "", body=DEFINITION)
    ox = manifest("example.com", "Ox", "", scoped=False)
    documents = write_rights(collect_rights([supply(crd, ox, policy=Policy(namespace="farm"))], None))
    assert rules(documents, "Role", "fleet-hub-write", "farm") == [("example.com", "oxen", WRITE)]


def test_an_account_gets_the_rights_instead_of_the_hub() -> None:
    """The hub may act as it and look, and no more."""
    user = "system:serviceaccount:shop:deployer"
    documents = write_rights(collect_rights([supply(manifest("", "ConfigMap", "shop"), user=user)], None))
    assert rules(documents, "Role", "fleet-write-shop-deployer", "shop") == [("", "configmaps", WRITE)]
    assert rules(documents, "Role", "fleet-hub-impersonate-deployer", "shop") == [
        ("", "serviceaccounts", "impersonate")
    ]
    bindings = {d["metadata"]["name"]: d["subjects"][0] for d in documents if d["kind"] == "RoleBinding"}
    account = {"kind": "ServiceAccount", "name": "deployer", "namespace": "shop"}
    assert bindings["fleet-write-shop-deployer"] == account
    assert "fleet-hub-write" not in bindings


def test_a_user_with_groups() -> None:
    """Each name may be impersonated, and no other."""
    documents = write_rights(
        collect_rights([supply(manifest("", "ConfigMap", "shop"), user="jane/doe", groups=("web",))], None)
    )
    looking = next(d for d in documents if d["kind"] == "ClusterRole" and d["metadata"]["name"] == "fleet-hub-look")
    acting = [(r["resources"], r["resourceNames"]) for r in looking["rules"] if r["verbs"] == ["impersonate"]]
    assert acting == [(["users"], ["jane/doe"]), (["groups"], ["web"])]
    assert rules(documents, "Role", "fleet-write-jane-doe", "shop") == [("", "configmaps", WRITE)]


def test_whoever_delivers_roles_may_grant_them() -> None:
    """Kubernetes lets nobody grant rights that he lacks: `escalate` and `bind`, where the roles are."""
    documents = write_rights(
        collect_rights([supply(manifest(RBAC, "Role", "shop"), manifest(RBAC, "RoleBinding", "shop"))], None)
    )
    given = rules(documents, "Role", "fleet-hub-write", "shop")
    assert (RBAC, "roles", "escalate") in given
    assert (RBAC, "clusterroles,roles", "bind") in given


def test_what_is_not_allowed_gets_no_rights() -> None:
    """An app's `allow` bounds what is granted for it, too."""
    policy = Policy(allow_namespaces=("shop",))
    documents = write_rights(
        collect_rights(
            [supply(manifest("", "Secret", "other"), manifest("", "ConfigMap", "shop"), policy=policy)], None
        )
    )
    assert "secrets" not in json.dumps(documents)
    assert not [d for d in documents if d["metadata"].get("namespace") == "other"]
