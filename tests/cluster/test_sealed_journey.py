"""The whole way of a secret by the command line: two real clusters, kubeseal and sops beside it, and a key that is renewed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleet.sim.real import ControlPlane
from tests.cluster.shell import Shell, eventually, open_shell
from tests.cluster.test_hub import release_leases
from tests.cluster.test_sealed_docs import needs
from tests.harness.gitrepo import GitRepository

pytestmark = pytest.mark.timeout(300)

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
metadata: {name: shop}
spec:
  repository: config
  path: shop
  targets: {environments: [production]}
  namespace: NAMESPACE
  createNamespace: true
  decryption: {provider: sops}
---
apiVersion: fleet/v1
kind: App
metadata: {name: bitnami}
spec:
  repository: config
  path: bitnami/${cluster}
  targets: {environments: [production]}
"""
CLUSTER = """\
---
apiVersion: fleet/v1
kind: Cluster
metadata: {name: NAME}
spec: {environment: production, connection: {kubeconfig: {file: KUBECONFIG}}}
"""


class Journey:
    """A shell, two clusters, and a repository that the hub follows."""

    def __init__(self, shell: Shell, planes: list[ControlPlane], namespace: str) -> None:
        self.shell = shell
        self.planes = planes
        self.namespace = namespace
        self.repository = GitRepository(shell.directory / "config")
        clusters = [CLUSTER.replace("NAME", p.name).replace("KUBECONFIG", str(p.kubeconfig_path)) for p in planes]
        (shell.directory / "clusters.d").mkdir()
        text = REST.replace("NAMESPACE", namespace) + "".join(clusters)
        (shell.directory / "clusters.d/fleet.yaml").write_text(text)

    async def run(self, script: str) -> str:
        """Run lines in the repository's directory."""
        return await self.shell.run(f"cd config\n{script}")

    async def state(self, wanted: str) -> None:
        """Wait until the app says something on both clusters."""
        for plane in self.planes:
            await eventually(self.shell, f"fleet status {plane.name}/shop", wanted)

    async def reads(self, name: str, item: str, wanted: bytes) -> None:
        """Wait until both clusters hold a value, byte for byte."""
        for plane in self.planes:
            script = f"kubectl --kubeconfig {plane.kubeconfig_path} get secret {name} -n {self.namespace}"
            path = item.replace(".", "\\.")
            read = f"{script} -o jsonpath='{{.data.{path}}}' | base64 -d | od -An -tx1 | tr -d ' \\n'"
            await eventually(self.shell, read, wanted.hex())


@pytest.fixture
async def journey(tmp_path: Path, planes: list[ControlPlane]) -> AsyncIterator[Journey]:
    """Two clusters and a hub's directory; the hub is not running yet."""
    await release_leases(planes)
    made = Journey(await open_shell(tmp_path, planes[0]), planes, "journey")
    yield made
    for plane in planes:
        await plane.kubectl("delete", "namespace", made.namespace, "--ignore-not-found", "--wait=false")


async def test_the_whole_way(journey: Journey) -> None:
    """One command seals for both clusters and both have it; a move is refused; others' tools work; a key is renewed."""
    needs("kubeseal", "sops", "jq")
    shell, blob = journey.shell, bytes(range(256))
    one, two = (plane.name for plane in journey.planes)
    (shell.directory / "blob").write_bytes(blob)
    journey.repository.commit("first", {"shop/settings.yaml": SETTINGS})
    async with shell.background("fleet run --inventory clusters.d --data data"):
        await journey.state("Synced")
        for name in (one, two):
            await eventually(shell, f"fleet keys list --cluster {name}", "pending")
        await shell.run("fleet keys backup keys.backup")
        await journey.run("mkdir -p .fleet && fleet seal keys --server $FLEET_SERVER > .fleet/keys.yaml")
        await journey.run(
            "fleet seal secret --name db --namespace journey --from-literal password=hunter2 --from-file blob=../blob"
            " --for environment=production -w shop/db.yaml && git add -A && git commit -qm seal"
        )
        await journey.reads("db", "password", b"hunter2")
        await journey.reads("db", "blob", blob)

        await journey.run(
            "sed 's/name: db$/name: other/' shop/db.yaml > shop/other.yaml && git add -A && git commit -qm move"
        )
        await journey.state("ScopeMismatch")
        await journey.run("git rm -q shop/other.yaml && git commit -qm back")
        await journey.state("Synced")

        await shell.run(PLAIN)
        for name in (one, two):
            seal = f"kubeseal --cert $FLEET_SERVER/v1/clusters/{name}/cert.pem -o yaml < plain.yaml"
            assert "409" in await shell.run(f"{seal} 2>&1 || true")
            await shell.run(f"fleet keys backup keys.backup && mkdir -p config/bitnami/{name}")
            await shell.run(f"{seal} > config/bitnami/{name}/sealed.yaml")
        recipients = await shell.run(
            'fleet keys list -o json | jq -r \'[.items[] | .recipient | select(. != "" and . != null)] | unique | join(",")\''
        )
        soap = (
            "sed s/bitnami/soap/ plain.yaml > soap.yaml && sops encrypt --age {} --encrypted-regex '^(data)$' soap.yaml"
        )
        await shell.run(f"{soap.format(recipients.strip())} > config/shop/soap.yaml")
        await journey.run("git add -A && git commit -qm soap")
        await journey.reads("soap", "password", b"hunter2")
        await journey.reads("bitnami", "password", b"hunter2")

        await shell.run(f"fleet keys rotate {one} --reason test && fleet keys backup keys.backup")
        assert "retiring" in await shell.run(f"fleet keys list --cluster {one}")
        await journey.run("fleet seal keys --server $FLEET_SERVER > .fleet/keys.yaml")
        await journey.run(
            "fleet seal secret --from-literal password=changed --from-file blob=../blob --merge-into shop/db.yaml"
            " && git add -A && git commit -qm renew"
        )
        await journey.reads("db", "password", b"changed")
        await journey.state("Synced")


RECIPIENTS = (
    """fleet keys list -o json | jq -r '[.items[] | .recipient | select(. != "" and . != null)] | unique | join(",")'"""
)
SETTINGS = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: b}\n"
PLAIN = "kubectl create secret generic bitnami -n journey --from-literal=password=hunter2 --dry-run=client -o yaml > plain.yaml"
