"""What the documentation tells people to type works, on a real API server."""

from pathlib import Path

import pytest

from fleet.sim.program import free_port
from fleet.sim.real import ControlPlane
from tests.cluster.shell import Shell, blocks_after, eventually, open_shell
from tests.harness.gitrepo import GitRepository

HELLO, GOODBYE = "tour/config/hello/hello.yaml", "tour/config/hello/goodbye.yaml"
INVENTORY = "tour/clusters.d/fleet.yaml"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def shell(tmp_path: Path, plane: ControlPlane) -> Shell:
    """A shell of its own."""
    return await open_shell(tmp_path, plane)


async def test_tutorial(shell: Shell) -> None:
    """Every step of the tutorial does what it says, in its order."""
    page = "tutorial/getting-started.md"
    make, manifest, second, commit = blocks_after(page, "Make a repository")
    inventory, connect = blocks_after(page, "Describe the fleet")
    run, look, shown = blocks_after(page, "Run the hub")
    [change] = blocks_after(page, "Change it in Git")
    drift, delete = blocks_after(page, "Change it behind Git's back")
    [leave] = blocks_after(page, "Delete it in Git")
    [farewell] = blocks_after(page, "Take it away")

    await shell.run(make.text)
    (shell.directory / HELLO).write_text(manifest.text)
    (shell.directory / GOODBYE).write_text(second.text)
    await shell.run(commit.text)
    (shell.directory / INVENTORY).write_text(inventory.text)
    await shell.run(connect.text)
    async with shell.background(run.text):
        await eventually(shell, "fleet status", "hello")
        assert "Synced" in await shell.run(look.text)
        assert "cluster: local" in await shell.run(shown.text)
        assert "yes" in await shell.run(f"export FLEET_DATA=tour/data\n{change.text}")
        patch, read, events = drift.text.splitlines()
        await shell.run(patch)
        await eventually(shell, read, "hello again")
        await eventually(shell, events, "ConfigMap")
        await shell.run(delete.text)
        await eventually(shell, read, "hello again")
        await shell.run(f"export FLEET_DATA=tour/data\n{leave.text}")
        await eventually(shell, "kubectl get configmap goodbye -n hello 2>&1", "NotFound")
        documents = (shell.directory / INVENTORY).read_text().split("---\n")
        (shell.directory / INVENTORY).write_text("---\n".join(d for d in documents if "kind: App" not in d))
        await eventually(shell, "kubectl get configmap hello -n hello 2>&1", "NotFound")
    await shell.run(farewell.text)


async def test_least_rights_suffice(shell: Shell, plane: ControlPlane) -> None:
    """With the ClusterRoles of the guide, and its Cluster document, an app is delivered, repaired, watched and pruned."""
    rights, fetch, cluster, *_ = blocks_after(
        "how-to/connect-a-cluster.md", "With a service account that may do just enough"
    )
    (shell.directory / "rights.yaml").write_text(rights.text)
    await shell.run("kubectl apply -f rights.yaml && mkdir -p clusters.d/keys")
    await eventually(
        shell, "kubectl get secret hub-token -n fleet-system -o jsonpath='{.data.token}'", "ZXl"
    )  # base64 of a JWT
    await shell.run(fetch.text)
    repository = GitRepository(shell.directory / "config")
    repository.commit("Deliver", {"app/objects.yaml": OBJECTS})
    server = plane.kubeconfig()["clusters"][0]["cluster"]["server"]
    (shell.directory / "clusters.d/fleet.yaml").write_text(
        f"{cluster.text.replace('https://prod.example.com:6443', server)}\n---\n{REST}"
    )
    async with shell.background("fleet run --inventory clusters.d --data data --removal-quiet-s 1"):
        await eventually(shell, "fleet status", "Synced")
        await shell.run("kubectl scale deployment web -n least --replicas=0")
        await eventually(shell, "kubectl get deployment web -n least -o jsonpath='{.spec.replicas}'", "1")
        await eventually(shell, "fleet wait app; fleet status prod/app", "2")
        assert "Forbidden" not in (await shell.run("fleet events; fleet status prod/app"))
        [narrow] = blocks_after("how-to/connect-a-cluster.md", "Narrow the rights to what the apps need")
        await shell.run(narrow.text)
        await shell.run("kubectl scale deployment web -n least --replicas=3")
        await eventually(shell, "kubectl get deployment web -n least -o jsonpath='{.spec.replicas}'", "1")
        repository.commit("Drop", {"app/objects.yaml": OBJECTS.partition("---\n")[0]})
        await eventually(shell, "kubectl get deployment web -n least 2>&1", "NotFound")
    assert "Forbidden" not in (shell.directory / "background.log").read_text()
    await shell.run("kubectl delete --ignore-not-found -f rights.yaml -f rbac.yaml")


async def test_whose_a_cluster_is(shell: Shell, plane: ControlPlane) -> None:
    """A second hub takes a cluster over and empties it, as the guide says; the first one says that it lost it."""
    page = "how-to/decide-whose-a-cluster-is.md"
    [take] = blocks_after(page, "Another hub holds it (OwnedByAnotherHub)")
    drain, undrain = blocks_after(page, "Empty a cluster, or one app on it")
    whole, _, look = drain.text.splitlines()
    repository = GitRepository(shell.directory / "config")
    settings, _, _ = OBJECTS.replace("least", "whose").partition("---\n")
    repository.commit("Deliver", {"app/objects.yaml": settings})
    (shell.directory / "clusters.d").mkdir()
    connection = f"{{kubeconfig: {{file: {plane.kubeconfig_path}}}}}"
    cluster = f"{CLUSTER}spec: {{environment: production, connection: {connection}}}\n"
    (shell.directory / "clusters.d/fleet.yaml").write_text(f"{cluster}---\n{REST.replace('least', 'whose')}")
    port = free_port()
    place = {"FLEET_LISTEN": f"127.0.0.1:{port}", "FLEET_SERVER": f"http://127.0.0.1:{port}", "FLEET_DATA": "second"}
    second = Shell(shell.directory, {**shell.environment, **place}, log="second.log")
    run = "fleet run --inventory clusters.d"
    async with shell.background(run):
        await eventually(shell, "fleet status", "Synced")
        async with second.background(run):
            await eventually(second, "fleet cluster list", "OwnedByAnotherHub")
            await second.run(take.text)
            await eventually(second, "fleet status", "Synced")
            await eventually(shell, "fleet cluster show prod", "OwnedByAnotherHub")
            await second.run(whole)
            await eventually(second, look, "Drained")
            assert "NotFound" in await shell.run("kubectl get configmap settings -n whose 2>&1 || true")
            await second.run(undrain.text)
            await eventually(second, "kubectl get configmap settings -n whose 2>&1 | tail -1", "settings ")
    await shell.run("kubectl delete namespace whose")


CLUSTER = """\
apiVersion: fleet/v1
kind: Cluster
metadata: {name: prod}
"""


OBJECTS = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: least}
data: {a: b}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: least}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
"""

REST = """\
apiVersion: fleet/v1
kind: Repository
metadata: {name: config}
spec: {url: ../config, interval: 1s}
---
apiVersion: fleet/v1
kind: Environment
metadata: {name: production}
---
apiVersion: fleet/v1
kind: App
metadata: {name: app}
spec:
  repository: config
  path: app
  targets: {environments: [production]}
  namespace: least
  createNamespace: true
"""
