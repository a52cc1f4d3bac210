"""Ways back on a real API server: an earlier release, and a lost database."""

import json
from pathlib import Path
from typing import Any

import pytest

from fleet.hub.view import HoldRequest
from fleet.sim.real import ControlPlane
from tests.cluster.shell import DOCS, blocks_after, eventually, open_shell
from tests.cluster.test_hub import CONFIG, WEB, fleet, get
from tests.harness.fleet import ADA, Fleet, app_document, cluster_document, environment_document, repository_document
from tools.docs import read_blocks

__all__ = ["fleet"]

PAGE = "how-to/roll-back.md"


def files(namespace: str, colour: str, image: str = "example.com/web:1") -> dict[str, str]:
    """A ConfigMap and a Deployment."""
    return {
        "app/settings.yaml": CONFIG.format(namespace=namespace, colour=colour),
        "app/web.yaml": WEB.format(namespace=namespace, image=image),
    }


async def colour(plane: ControlPlane, namespace: str) -> str:
    """What the ConfigMap says."""
    found = await get(plane, "configmap", "settings", namespace)
    return str(found["data"]["colour"]) if found is not None else ""


async def test_rollback_brings_back_what_was(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """Changed, added and removed objects are as the release had them; a commit and a restart leave them so."""
    first = fleet.repository.commit("first", files(namespace, "red"))
    target = (plane.name, "shop")
    async with fleet.running() as hub:
        await fleet.synced(target, revision=first)
        fleet.repository.git("rm", "-q", "app/web.yaml")
        extra = CONFIG.format(namespace=namespace, colour="x").replace("name: settings", "name: extra")
        changed = {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="blue"), "app/extra.yaml": extra}
        await fleet.synced(target, revision=fleet.repository.commit("second", changed))
        assert await get(plane, "deployment", "web", namespace) is None
        await hub.rollback(HoldRequest(app="shop", reason="incident"), ADA)
        await fleet.synced(target, revision=first)
        assert await colour(plane, namespace) == "red"
        assert await get(plane, "configmap", "extra", namespace) is None
        web = await get(plane, "deployment", "web", namespace)
        assert web is not None
        fleet.repository.commit("third", {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="green")})
    async with fleet.running() as hub:
        await fleet.synced(target, revision=first)
        kept = await get(plane, "deployment", "web", namespace)
        assert kept is not None
        assert (kept["metadata"]["uid"], await colour(plane, namespace)) == (web["metadata"]["uid"], "red")
        assert await hub.unhold(HoldRequest(app="shop"), ADA) == 1

        async def green() -> bool:
            return await colour(plane, namespace) == "green"

        await fleet.until(green)


async def test_a_lost_database_is_rebuilt_from_marks(fleet: Fleet, plane: ControlPlane, namespace: str) -> None:
    """No healthy object is written, what left Git meanwhile stays until confirmed, and a stranger is never taken."""
    fleet.repository.commit("first", files(namespace, "red"))
    target = (plane.name, "shop")
    async with fleet.running():
        await fleet.synced(target)
    stranger = json.dumps(await _stranger(plane, namespace))
    await plane.kubectl("apply", "-f", "-", stdin=stranger)
    before = await get(plane, "configmap", "settings", namespace)
    fleet.repository.git("rm", "-q", "app/web.yaml")
    fleet.repository.commit("less")
    for file in (fleet.root / "data").glob("fleet.db*"):
        file.unlink()
    async with fleet.running() as hub:
        row = await fleet.state(*target, "Waiting", "RecoverPending")
        assert "fleet recover" in row.message
        assert [(r.kind, r.name) for r in hub.recovery()] == [("Deployment", "web")]
        after = await get(plane, "configmap", "settings", namespace)
        assert before is not None
        assert after is not None
        assert after["metadata"] == before["metadata"]
        assert await get(plane, "deployment", "web", namespace) is not None
        await hub.recover(cluster="", app="shop", reason="disk lost", actor=ADA)

        async def gone() -> bool:
            return await get(plane, "deployment", "web", namespace) is None

        await fleet.until(gone)
        await fleet.synced(target)
        assert await get(plane, "configmap", "stranger", namespace) is not None


async def _stranger(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    """Build a ConfigMap with the labels of one of ours and nobody's Apply entry."""
    ours = await get(plane, "configmap", "settings", namespace)
    assert ours is not None
    metadata = {"name": "stranger", "namespace": namespace, "labels": ours["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}}


def declare(directory: Path, plane: ControlPlane) -> Fleet:
    """Write the inventory that the pages speak of."""
    fleet = Fleet(directory)
    fleet.declare(
        "fleet.yaml",
        repository_document(fleet.repository.path),
        environment_document("production"),
        app_document("shop", "app"),
        cluster_document(plane.name, plane.kubeconfig_path, "production"),
    )
    return fleet


@pytest.mark.timeout(240)
async def test_the_pages_word_by_word(tmp_path: Path, plane: ControlPlane, namespace: str) -> None:
    """A person who types what the pages about rolling back and recovering say gets there."""
    shell, fleet = await open_shell(tmp_path, plane), declare(tmp_path, plane)
    go_back = next(read_blocks((DOCS / PAGE).read_text()))
    [follow] = blocks_after(PAGE, "Follow Git again")
    read = f"kubectl get configmap settings -n {namespace} -o jsonpath={{.data.colour}}"
    hub = "fleet run --inventory clusters.d --data data"
    async with shell.background(hub):
        for each in ("red", "blue"):
            fleet.repository.commit(each, files(namespace, each))
            await eventually(shell, read, each)
            await shell.run("fleet wait shop")
        assert "shop#2" in await shell.run(go_back.text)
        await eventually(shell, read, "red")
        await eventually(shell, "fleet status", "app shop at shop#1: incident 12")
        await shell.run(follow.text.splitlines()[0])
        await eventually(shell, read, "blue")
        await shell.run("fleet wait shop")
    fleet.repository.git("rm", "-q", "app/web.yaml")
    fleet.repository.commit("less")
    lose = next(read_blocks((DOCS / "how-to/recover.md").read_text()))
    [confirm] = blocks_after("how-to/recover.md", "What waits for you")
    await shell.run(lose.text.splitlines()[0])
    async with shell.background(lose.text.splitlines()[1]):
        listing, confirmation = confirm.text.splitlines()
        await eventually(shell, listing, "Deployment/web")
        await shell.run(confirmation)
        await eventually(shell, f"kubectl get deployment web -n {namespace} 2>&1", "NotFound")


@pytest.mark.timeout(240)
async def test_other_ways_of_rolling_back(tmp_path: Path, plane: ControlPlane, namespace: str) -> None:
    """The page's lines that name a release, a commit, an environment or a moment, and those that freeze, do so."""
    shell, fleet = await open_shell(tmp_path, plane), declare(tmp_path, plane)
    _, choose, *_ = read_blocks((DOCS / PAGE).read_text())
    by_release, by_commit = choose.text.splitlines()
    [follow], [freeze] = blocks_after(PAGE, "Follow Git again"), blocks_after(PAGE, "Freeze")
    [ask] = blocks_after(PAGE, "What ran when?")
    read = f"kubectl get configmap settings -n {namespace} -o jsonpath={{.data.colour}}"
    async with shell.background("fleet run --inventory clusters.d --data data"):
        first = fleet.repository.commit("red", files(namespace, "red"))
        await eventually(shell, read, "red")
        await shell.run("fleet wait shop")
        fleet.repository.commit("blue", files(namespace, "blue"))
        await eventually(shell, read, "blue")
        await shell.run("fleet wait shop")
        await shell.run(by_release)
        await eventually(shell, read, "red")
        await shell.run(follow.text.splitlines()[0])
        await eventually(shell, read, "blue")
        await shell.run("fleet wait shop")
        await shell.run(by_commit.replace("3f9c2e1", first[:7]))
        await eventually(shell, read, "red")
        await eventually(shell, "fleet status", "incident 12")
        await shell.run(follow.text.splitlines()[1])
        await eventually(shell, read, "blue")
        await shell.run("fleet wait shop")
        await shell.run(freeze.text)
        fleet.repository.commit("green", files(namespace, "green"))
        await eventually(shell, "fleet release shop", "shop#3")
        await shell.run(
            f'kubectl patch configmap settings -n {namespace} --type=merge -p \'{{"data":{{"colour":"x"}}}}\''
        )
        await eventually(shell, "fleet events", "repaired")
        assert await shell.run(read) == "blue"
        before, now = ask.text.splitlines()
        assert "shop#" not in await shell.run(before)
        assert "shop#2" in await shell.run(now.replace("2030-01-02T15:04:05Z", "$(date -u +%Y-%m-%dT%H:%M:%SZ)"))
