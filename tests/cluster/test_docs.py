"""What the documentation tells people to type works, on a real API server."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet.sim.program import free_port
from fleet.sim.real import ControlPlane, find_binaries
from tests.harness.gitrepo import GitRepository
from tools.docs import ROOT, Block, read_blocks

DOCS = ROOT / "docs"
HELLO, INVENTORY = "tour/config/hello/hello.yaml", "tour/clusters.d/fleet.yaml"
LONG_S = 60.0

pytestmark = pytest.mark.timeout(300)


@dataclass
class Shell:
    """Runs lines of a page as a person would, in one directory."""

    directory: Path
    environment: Mapping[str, str]

    async def run(self, script: str) -> str:
        """Run a block; return what it printed. Fails on any line that fails."""
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-euc",
            script,
            cwd=self.directory,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(LONG_S):
            printed, _ = await process.communicate()
        assert process.returncode == 0, f"{script}\n{printed.decode()}"
        return printed.decode()

    @contextlib.asynccontextmanager
    async def background(self, command: str) -> AsyncIterator[None]:
        """Keep a command running for the length of the block; it must end well when asked to."""
        log = (self.directory / "background.log").open("wb")
        with log:
            process = await asyncio.create_subprocess_exec(
                *command.split(), cwd=self.directory, env=self.environment, stdout=log, stderr=log
            )
            try:
                yield
            finally:
                if process.returncode is None:
                    process.terminate()
                async with asyncio.timeout(LONG_S):
                    code = await process.wait()
        assert code == 0, (self.directory / "background.log").read_text()


@pytest.fixture
async def shell(tmp_path: Path, plane: ControlPlane) -> Shell:
    """A shell with `fleet`, `git` and `kubectl`, the latter leading to a real cluster; the hub has a port of its own."""
    await plane.kubectl("delete", "lease", "fleet-hub", "-n", "fleet-system", "--ignore-not-found")
    binaries, port = find_binaries(), free_port()
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{binaries}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "KUBECONFIG": str(plane.kubeconfig_path),
        "FLEET_LISTEN": f"127.0.0.1:{port}",
        "FLEET_SERVER": f"http://127.0.0.1:{port}",
        **{f"GIT_{who}_{what}": "ada@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    return Shell(tmp_path, environment)


def blocks_after(page: str, heading: str) -> list[Block]:
    """Return the blocks between a heading and the next one."""
    text = (DOCS / page).read_text().partition(f"\n## {heading}\n")[2]
    assert text, f"{page} has no heading {heading}"
    return list(read_blocks(text.partition("\n## ")[0]))


async def eventually(shell: Shell, script: str, wanted: str) -> None:
    """Run a command until it prints what is wanted."""
    printed = ""
    try:
        async with asyncio.timeout(LONG_S):
            while wanted not in (printed := await shell.run(f"{script} || true")):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{script} prints {printed!r}, never {wanted!r}") from None


async def test_tutorial(shell: Shell) -> None:
    """Every step of the tutorial does what it says, in its order."""
    page = "tutorial/getting-started.md"
    make, manifest, commit = blocks_after(page, "Make a repository")
    inventory, connect = blocks_after(page, "Describe the fleet")
    run, look, shown = blocks_after(page, "Run the hub")
    [change] = blocks_after(page, "Change it in Git")
    [drift] = blocks_after(page, "Change it behind Git's back")
    [farewell] = blocks_after(page, "Take it away")

    await shell.run(make.text)
    (shell.directory / HELLO).write_text(manifest.text)
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
        repository.commit("Drop", {"app/objects.yaml": OBJECTS.partition("---\n")[0]})
        await eventually(shell, "kubectl get deployment web -n least 2>&1", "NotFound")
    assert "Forbidden" not in (shell.directory / "background.log").read_text()
    await shell.run("kubectl delete --ignore-not-found -f rights.yaml && kubectl delete namespace least")


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
