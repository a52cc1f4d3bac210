"""Rights on a real API server: as little as suffices, asked before they are used, and those of an app's own account."""

from pathlib import Path

import pytest
import yaml

from fleet.hub.service import HubService
from fleet.sim.real import ControlPlane
from tests.cluster.test_hub import CONFIG, WEB, get, release_leases
from tests.harness.fleet import Fleet, app_document, environment_document, repository_document

ROLES = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: reader, namespace: {namespace}}}
rules: [{{apiGroups: [""], resources: [pods, secrets], verbs: [get]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: reader, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}}
subjects: [{{kind: ServiceAccount, name: default, namespace: {namespace}}}]
"""
WIDGETS = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: widgetries.{group}}}
spec:
  group: {group}
  names: {{kind: Widgetry, plural: widgetries}}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema: {{openAPIV3Schema: {{type: object, properties: {{spec: {{type: object, properties: {{size: {{type: integer}}}}}}}}}}}}
---
apiVersion: {group}/v1
kind: Widgetry
metadata: {{name: one}}
spec: {{size: 1}}
"""
TENANT = """\
apiVersion: v1
kind: ServiceAccount
metadata: {{name: deployer, namespace: {namespace}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: deployer, namespace: {namespace}}}
rules: [{{apiGroups: [""], resources: [configmaps], verbs: [{verbs}]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: deployer, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: deployer}}
subjects: [{{kind: ServiceAccount, name: deployer, namespace: {namespace}}}]
"""


@pytest.fixture
async def fleet(tmp_path: Path, plane: ControlPlane) -> Fleet:
    """A place for a hub that shows a token file to the cluster; the token is not known there yet."""
    await release_leases([plane])
    made = Fleet(tmp_path)
    made.declare("fleet.yaml", repository_document(made.repository.path), environment_document())
    (tmp_path / "ca").write_bytes(plane.ca_pem)
    show(made, "not-yet")
    connection = {"server": plane.url, "caFile": str(tmp_path / "ca"), "tokenFile": str(tmp_path / "token")}
    document = {"apiVersion": "fleet/v1", "kind": "Cluster", "metadata": {"name": "prod"}}
    made.declare("prod.yaml", {**document, "spec": {"environment": "dev", "connection": connection}})
    return made


def show(fleet: Fleet, token: str) -> None:
    """Write the token that the hub shows."""
    (fleet.root / "token").write_text(token)


async def grant(fleet: Fleet, hub: HubService, plane: ControlPlane) -> str:
    """Apply what `fleet cluster manifests` prints, as an administrator; return it."""
    answer = hub.cluster_manifests("prod")
    assert answer.missing == ()
    text = yaml.safe_dump_all(map(yaml.safe_load, answer.manifests))
    await plane.kubectl("apply", "-f", "-", stdin=text)
    return text


async def revoke(plane: ControlPlane) -> None:
    """Take away what an earlier test granted to the hub."""
    for kind in ("clusterrole", "clusterrolebinding"):
        await plane.kubectl("delete", kind, "fleet-hub-look", "fleet-hub-write", "--ignore-not-found")


async def test_the_printed_rights_suffice_and_no_others_are_used(
    fleet: Fleet, plane: ControlPlane, namespace: str
) -> None:
    """With that RBAC and nothing else a new cluster is brought up, repaired and pruned; nothing is ever Forbidden."""
    await revoke(plane)
    group = f"{namespace}.example.com"
    own = f"{namespace}-own"
    fleet.declare(
        "apps.yaml",
        app_document("shop", "app"),
        app_document("widgets", "widgets", namespace=own, createNamespace=True),
        app_document("tenant", "tenant", impersonate={"serviceAccount": f"{namespace}:deployer"}),
    )
    many = {
        f"app/c{i}.yaml": CONFIG.format(namespace=namespace, colour="red").replace("settings", f"c{i}")
        for i in range(8)
    }
    fleet.repository.commit(
        "first",
        {
            **many,
            "app/web.yaml": WEB.format(namespace=namespace, image="example.com/web:1"),
            "app/roles.yaml": ROLES.format(namespace=namespace),
            "widgets/widgets.yaml": WIDGETS.format(group=group),
            "tenant/settings.yaml": CONFIG.format(namespace=namespace, colour="blue"),
        },
    )
    targets = [("prod", "shop"), ("prod", "widgets"), ("prod", "tenant")]
    async with fleet.running() as hub:
        await fleet.until(lambda: [c for c in hub.clusters() if c.reason == "Unauthorized"])
        await fleet.until(lambda: not hub.cluster_manifests("prod").missing)
        printed = await grant(fleet, hub, plane)
        assert "cluster-admin" not in printed
        assert "'*'" not in printed
        show(fleet, await plane.kubectl("create", "token", "hub", "-n", "fleet-system"))
        await fleet.synced(*targets, timeout_s=90)
        await plane.kubectl("delete", "configmap", "c1", "-n", namespace)
        await plane.kubectl("scale", "deployment/web", "--replicas=4", "-n", namespace)

        async def healed() -> bool:
            web = await get(plane, "deployment", "web", namespace)
            back = await get(plane, "configmap", "c1", namespace)
            return back is not None and web is not None and web["spec"]["replicas"] == 2

        await fleet.until(healed)
        fleet.repository.git("rm", "-q", "app/web.yaml", "app/c2.yaml", "app/roles.yaml")
        await fleet.synced(*targets, revision=fleet.repository.commit("less"))
        assert await get(plane, "deployment", "web", namespace) is None
        assert await get(plane, "role", "reader", namespace) is None
        forbidden = [e for e in await hub.events(limit=1000) if "orbidden" in e.reason + e.message]
        assert forbidden == []
        assert [c.reason for c in hub.clusters()] == ["Connected"]
    await plane.kubectl("delete", "namespace", own, "--wait=false")
    await plane.kubectl("delete", "crd", f"widgetries.{group}")


async def test_missing_rights_are_named_together_and_before_they_are_used(
    fleet: Fleet, plane: ControlPlane, namespace: str
) -> None:
    """The account of an app lacks two verbs: both are named, with resource, namespace and command; then it goes on."""
    show(fleet, plane.admin_token)
    account = {"serviceAccount": f"{namespace}:deployer"}
    fleet.declare("apps.yaml", app_document("shop", "app", impersonate=account))
    await plane.kubectl("apply", "-f", "-", stdin=TENANT.format(namespace=namespace, verbs="get, list, patch"))
    fleet.repository.commit("first", {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="red")})
    async with fleet.running():
        row = await fleet.state("prod", "shop", "Failed", "Forbidden")
        assert (
            f"create, delete configmaps in namespace {namespace} as system:serviceaccount:{namespace}:deployer"
            in row.message
        )
        assert "fleet cluster manifests prod" in row.message
        verbs = "get, list, patch, create, delete"
        await plane.kubectl("apply", "-f", "-", stdin=TENANT.format(namespace=namespace, verbs=verbs))
        await fleet.synced(("prod", "shop"), timeout_s=90)
        found = await get(plane, "configmap", "settings", namespace)
        assert found is not None
        parent = await get(plane, "configmap", "fleet-app-shop", "fleet-system")
        assert parent is not None


async def test_an_account_reaches_no_further_than_its_rights(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """An app with an account of its own cannot write where the account may not, although the hub may everywhere."""
    show(fleet, plane.admin_token)
    account = {"serviceAccount": f"{namespace}:deployer"}
    fleet.declare("apps.yaml", app_document("shop", "app", impersonate=account))
    verbs = "get, list, patch, create, delete"
    await plane.kubectl("apply", "-f", "-", stdin=TENANT.format(namespace=namespace, verbs=verbs))
    stray = CONFIG.format(namespace="default", colour="red").replace("settings", f"stray-{namespace}")
    fleet.repository.commit(
        "first", {"app/a.yaml": CONFIG.format(namespace=namespace, colour="red"), "app/b.yaml": stray}
    )
    async with fleet.running():
        row = await fleet.state("prod", "shop", "Failed", "Forbidden")
        assert "configmaps in namespace default" in row.message
        assert await get(plane, "configmap", "settings", namespace) is not None
        assert await get(plane, "configmap", f"stray-{namespace}", "default") is None


async def test_what_an_app_may_not_contain_is_asked_of_nobody(
    fleet: Fleet, plane: ControlPlane, namespace: str
) -> None:
    """`allow` names file and rule, and holds for a hub that may everything; the rest of the app is applied."""
    show(fleet, plane.admin_token)
    fleet.declare("apps.yaml", app_document("shop", "app", allow={"namespaces": [namespace], "kinds": ["ConfigMap"]}))
    stray = CONFIG.format(namespace="default", colour="red").replace("settings", f"stray-{namespace}")
    fleet.repository.commit(
        "first", {"app/a.yaml": CONFIG.format(namespace=namespace, colour="red"), "app/b.yaml": stray}
    )
    async with fleet.running():
        row = await fleet.state("prod", "shop", "Failed", "NotAllowed")
        assert "app/b.yaml" in row.message
        assert "allow.namespaces" in row.message
        assert await get(plane, "configmap", "settings", namespace) is not None
        assert await get(plane, "configmap", f"stray-{namespace}", "default") is None
