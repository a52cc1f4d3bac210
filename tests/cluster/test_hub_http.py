"""A Git repository served over HTTP in front of two real clusters."""

import json
from pathlib import Path

from fleet.sim.real import ControlPlane
from tests.cluster.test_hub import CONFIG, release_leases
from tests.harness.fleet import Fleet, app_document, cluster_document, environment_document, repository_document
from tests.harness.githttp import serve_git


async def test_a_commit_over_http_reaches_two_clusters(
    tmp_path: Path, planes: list[ControlPlane], namespace: str, plane: ControlPlane
) -> None:
    """Both clusters get each commit; with the remote down or the token wrong the status says so and clusters go on."""
    other = next(p for p in planes if p is not plane)
    await release_leases(planes)
    await other.kubectl("create", "namespace", namespace)
    fleet = Fleet(tmp_path)
    fleet.repository.commit("first", {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="red")})
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    fleet.declare("clusters.yaml", *[cluster_document(p.name, p.kubeconfig_path) for p in planes])
    targets = [(p.name, "shop") for p in planes]
    async with serve_git(tmp_path) as server:
        server.authorization = "Bearer s3cret"
        url = f"{server.url}/{fleet.repository.path.name}"
        remote = {"url": url, "interval": "1s", "auth": {"tokenFile": str(token)}}
        fleet.declare("fleet.yaml", {**repository_document(tmp_path), "spec": remote}, environment_document())
        fleet.declare("apps.yaml", app_document("shop", "app"))
        async with fleet.running() as hub:
            await fleet.synced(*targets)
            revision = fleet.repository.commit(
                "blue", {"app/settings.yaml": CONFIG.format(namespace=namespace, colour="blue")}
            )
            await fleet.synced(*targets, revision=revision)
            for each in planes:
                shown = await each.kubectl("get", "configmap", "settings", "-n", namespace, "-o", "json")
                assert json.loads(shown)["data"] == {"colour": "blue"}
            server.status = 503
            await fleet.until(lambda: [r for r in hub.status().repositories if r.state == "Failed"])
            assert [row.state for row in hub.targets()] == ["Synced", "Synced"]
            server.status, server.authorization = 0, "Bearer another"
            await fleet.until(lambda: [r for r in hub.status().repositories if "401" in r.message])
            token.write_text("another\n")
            await fleet.until(lambda: [r for r in hub.status().repositories if r.state == "Ready"])
