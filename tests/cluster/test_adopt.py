"""The pages on adopting what another tool applied, followed word by word on a real API server."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet.sim.real import ControlPlane
from tests.cluster.rival import ArgoCd, Body, Flux, Rival, reconciling
from tests.cluster.shell import Shell, blocks_after, eventually, open_shell
from tests.harness.gitrepo import GitRepository

pytestmark = pytest.mark.timeout(300)

RUN = "fleet run --inventory clusters.d --data data --removal-quiet-s 1"
LOOK, STEP, TAKE = "Look at the difference", "Write the App, in report mode", "Take over"
KINDS = "deployments,services,configmaps,replicasets,pods"
IDENTITY = "name", "uid", "generation", "labels", "annotations", "finalizers"
OURS = ("fleet/", "applyset.kubernetes.io/")
SYSTEM = """\
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
kind: Cluster
metadata: {name: prod}
spec: {environment: production, connection: {kubeconfig: {file: KUBECONFIG}}}
"""


def shop(*, fee: str | None = "2") -> list[Body]:
    """What Git holds: one object of each sort that people care about."""
    labels = {"app": "web"}
    container = {"name": "web", "image": "web:1", "ports": [{"containerPort": 80}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    data = {"colour": "red", **({"fee": fee} if fee is not None else {})}
    return [
        _object("apps/v1", "Deployment", "web", spec={"selector": {"matchLabels": labels}, "template": template}),
        _object("v1", "Service", "web", spec={"selector": labels, "ports": [{"port": 80}]}),
        _object("v1", "ConfigMap", "settings", data=data),
    ]


def _object(version: str, kind: str, name: str, **content: Any) -> Body:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "shop"}, **content}


def _files(objects: Sequence[Body]) -> dict[str, str | bytes]:
    return {f"shop/{body['kind'].lower()}.yaml": json.dumps(body) for body in objects}


class House:
    """A shop that runs, its repository, and a person's shell."""

    def __init__(self, plane: ControlPlane, shell: Shell) -> None:
        self.plane = plane
        self.shell = shell
        self.repository = GitRepository(shell.directory / "config")
        self.repository.commit("Describe the shop", _files(shop()))
        self.app = shell.directory / "clusters.d/shop.yaml"
        self.app.parent.mkdir()
        system = SYSTEM.replace("KUBECONFIG", str(plane.kubeconfig_path))
        (self.app.parent / "fleet.yaml").write_text(system)

    async def furnish(self) -> None:
        """Let others add what Git does not have, and wait until the pods are there."""
        await self.shell.run("kubectl annotate configmap settings -n shop owner=ada")
        await self.shell.run("kubectl label deployment web -n shop cost=7 --field-manager=billing")
        await self.shell.run(
            """kubectl patch configmap settings -n shop -p '{"metadata":{"finalizers":["a.org/x"]}}'"""
        )
        await self.shell.run("kubectl rollout status deployment/web -n shop --timeout=60s")

    async def snapshot(self) -> list[Any]:
        """Everything in the namespace that could be lost or could restart, without fleet's own labels."""
        listed = json.loads(await self.shell.run(f"kubectl get {KINDS} -n shop -o json"))
        return [_essence(body) for body in listed["items"] if body["metadata"]["name"] != "kube-root-ca.crt"]

    async def declare(self, page: str) -> None:
        """Write the App of a page and wait until the hub has planned it."""
        [document] = blocks_after(page, STEP)
        self.app.write_text(document.text)
        await eventually(self.shell, "fleet status", "ReportOnly")

    async def look(self, words: str) -> None:
        """`fleet diff` lists each object as adopted, with the words of the page and no field below."""
        lines = (await self.shell.run("fleet diff shop || test $? = 1")).splitlines()[1:]
        assert len(lines) == len(shop()), lines
        assert all(line.startswith("  adopt ") and words in line for line in lines), lines

    async def take_over(self, page: str) -> None:
        """Do the step of a page that lets fleet write."""
        text = self.app.read_text()
        assert "  apply: report\n" in f"{text}\n"
        self.app.write_text(f"{text}\n".replace("  apply: report\n", ""))
        [commands] = blocks_after(page, TAKE)
        assert "nothing differs on 1 target" in await self.shell.run(commands.text)

    async def settle(self) -> None:
        """End with the default of `adopt`, change Git, and see that fleet alone decides now."""
        self.app.write_text(self.app.read_text().replace("  adopt: always\n", ""))
        self.repository.commit("Waive the fee", _files(shop(fee=None)))
        read = "kubectl get configmap settings -n shop -o jsonpath='{.data}{.metadata.annotations.owner}'"
        await eventually(self.shell, read, '{"colour":"red"}ada')
        await self.shell.run("kubectl set image deployment/web -n shop web=evil:1")
        await eventually(self.shell, "kubectl get deployment web -n shop -o jsonpath='{..image}'", "web:1")

    async def give_back(self, before: list[Any]) -> None:
        """Let the app go without deleting anything, as the pages say."""
        self.app.write_text(f"{self.app.read_text()}\n  onRemove: orphan\n")
        await eventually(self.shell, "fleet status -o json", "Synced")
        self.app.unlink()
        await eventually(self.shell, "kubectl get configmap -n shop -l fleet/hub -o name; echo end", "end\n")
        assert len(await self.snapshot()) >= len(before)


def _essence(body: Body) -> Any:
    metadata = {name: body["metadata"].get(name) or {} for name in IDENTITY}
    metadata["labels"] = {k: v for k, v in metadata["labels"].items() if not k.startswith(OURS)}
    return body["kind"], metadata, body.get("spec"), body.get("data")


@asynccontextmanager
async def moving_in(plane: ControlPlane, directory: Path) -> AsyncIterator[House]:
    """Make the namespace `shop` for the length of the block."""
    house = House(plane, await open_shell(directory, plane))
    await house.shell.run("kubectl create namespace shop")
    try:
        yield house
    finally:
        patch = '{"metadata":{"finalizers":null}}'
        await plane.kubectl("patch", "configmap/settings", "-n", "shop", "--type=merge", "-p", patch)
        await plane.kubectl("delete", "namespace", "shop", "--timeout=60s")


RIVALS: dict[str, tuple[type[Flux | ArgoCd], str, str]] = {
    "flux": (Flux, "Suspend Flux", "Remove the Kustomization"),
    "argocd": (ArgoCd, "Stop automatic syncs", "Remove the Application"),
}


@pytest.mark.parametrize("name", RIVALS)
async def test_adopt_from_another_tool(name: str, plane: ControlPlane, tmp_path: Path) -> None:
    """The guide's steps move a running app from Flux or Argo CD: no difference at any step, nothing lost or restarted."""
    tool, stop, remove = RIVALS[name]
    page, rival = f"how-to/adopt-from-{name}.md", tool(shop())
    async with moving_in(plane, tmp_path) as house, reconciling(rival, plane):
        await house.furnish()
        before = await house.snapshot()
        async with house.shell.background(RUN):
            await house.declare(page)
            await house.look("was managed by " + ("Flux" if name == "flux" else "Argo CD"))
            await house.shell.run(blocks_after(page, LOOK)[1].text)
            assert await house.snapshot() == before
            await house.shell.run(blocks_after(page, stop)[0].text)
            await house.take_over(page)
            assert await house.snapshot() == before
            await house.shell.run(blocks_after(page, remove)[0].text)
            assert await house.snapshot() == before
            await house.settle()


async def test_adopt_from_kubectl(plane: ControlPlane, tmp_path: Path) -> None:
    """The guide's steps move what `kubectl apply` made: no difference at any step, nothing lost or restarted."""
    page = "how-to/adopt-from-kubectl.md"
    async with moving_in(plane, tmp_path) as house:
        await plane.kubectl("apply", "-f", str(house.repository.path / "shop"))
        await house.furnish()
        before = await house.snapshot()
        [view] = blocks_after(page, "Bring the manifests into Git")
        assert "web:1" in await house.shell.run(view.text)
        async with house.shell.background(RUN):
            await house.declare(page)
            await house.look("existed before")
            await house.take_over(page)
            assert await house.snapshot() == before
            await house.settle()
            await house.give_back(before)


async def test_without_the_word_other_tools_keep_theirs(plane: ControlPlane, tmp_path: Path) -> None:
    """Without `adopt: always` the objects of Flux are refused by name, and not one is touched."""
    page = "how-to/adopt-from-flux.md"
    rival: Rival = Flux(shop())
    async with moving_in(plane, tmp_path) as house, reconciling(rival, plane):
        await house.furnish()
        before = await house.snapshot()
        async with house.shell.background(RUN):
            [document] = blocks_after(page, STEP)
            house.app.write_text(document.text.replace("  adopt: always\n  apply: report", ""))
            await eventually(house.shell, "fleet status prod/shop", "OwnedElsewhere")
            assert "managed by Flux" in await house.shell.run("fleet status prod/shop")
            assert await house.snapshot() == before
