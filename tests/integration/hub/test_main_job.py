"""The hub against simulated clusters, where time, faults and counting are cheap."""

import asyncio
import shutil

from structlog.testing import capture_logs

from fleet.hub.view import PauseRequest, SyncRequest
from fleet.sim.cluster import SimCluster
from tests.harness.fleet import ADA, app_document, environment_document, repository_document
from tests.integration.hub.conftest import Stage

CONFIG = """\
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}, namespace: default}}
data: {{colour: {colour}}}
"""
WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: default}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: web, image: "{image}"}}]}}
"""


def config(colour: str = "red", name: str = "settings") -> str:
    """A ConfigMap in `default`."""
    return CONFIG.format(name=name, colour=colour)


def colour(cluster: SimCluster, name: str = "settings") -> str | None:
    """What a cluster's ConfigMap says."""
    found = cluster.find("v1", "ConfigMap", "default", name)
    return str(found["data"]["colour"]) if found is not None else None


def writes(cluster: SimCluster) -> list[str]:
    """Paths of the writes a cluster got, without Leases."""
    verbs = ("create", "update", "patch", "delete")
    return [r.path for r in cluster.requests if r.verb in verbs and "/leases/" not in r.path]


async def test_an_idle_cluster_gets_one_heartbeat_a_minute(stage: Stage) -> None:
    """In ten idle minutes nothing is asked about objects, and one Lease renewal a minute is written."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        await asyncio.sleep(30)
        cluster.forget_requests()
        await asyncio.sleep(600)
        about = [r for r in cluster.requests if "configmaps" in r.path and r.verb != "watch"]
        assert about == []
        assert 8 <= cluster.count("patch") <= 12
        assert cluster.count("create", "update", "delete") == 0


async def test_a_restart_writes_nothing(stage: Stage) -> None:
    """A second run over the same data finds everything in sync without one write to an object."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config(), "app/web.yaml": WEB.format(image="web:1")})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
    cluster.forget_requests()
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        await asyncio.sleep(120)
    assert writes(cluster) == []


async def test_a_commit_writes_only_what_it_changed(stage: Stage) -> None:
    """One changed manifest of three is one write; a commit elsewhere is none, and is shown as applied nevertheless."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {f"app/{n}.yaml": config("red", n) for n in ("a", "b", "c")})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        cluster.forget_requests()
        await stage.synced(("one", "shop"), revision=stage.repository.commit("b", {"app/b.yaml": config("blue", "b")}))
        assert [path.rpartition("/")[2] for path in writes(cluster)] == ["b"]
        cluster.forget_requests()
        await stage.synced(("one", "shop"), revision=stage.repository.commit("elsewhere", {"notes.txt": "hello"}))
        assert writes(cluster) == []
        row = stage.row("one", "shop")
        assert row is not None
        assert row.release == "shop#2"


async def test_a_dependency_gates_releases_and_not_repairs(stage: Stage) -> None:
    """`web` waits while `base` is not Current; when it is, `web` comes; drift of `web` is repaired all the while."""
    cluster = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("base", "base"), app_document("web", "web", dependsOn=[{"app": "base"}]))
    stage.repository.commit("first", {"base/web.yaml": WEB.format(image="web:crash"), "web/c.yaml": config()})
    async with stage.running(stage.world):
        row = await stage.state("one", "web", "Waiting", "DependencyNotReady")
        assert "base" in row.message
        assert colour(cluster) is None
        good = stage.repository.commit("good", {"base/web.yaml": WEB.format(image="web:2")})
        await stage.synced(("one", "base"), ("one", "web"), revision=good)
        bad = {"base/web.yaml": WEB.format(image="web:crash"), "web/c.yaml": config("blue")}
        stage.repository.commit("bad again", bad)
        await stage.state("one", "web", "Waiting", "DependencyNotReady")
        cluster.kubectl().patch("ConfigMap", "settings", {"data": {"colour": "pink"}})
        await stage.until(lambda: colour(cluster) == "red")


async def test_a_broken_manifest_is_named_and_harms_nothing(stage: Stage) -> None:
    """A commit that does not render keeps the release before it, names file and line, and drift is still repaired."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        stage.repository.commit("broken", {"app/more.yaml": "kind: ConfigMap\napiVersion: [\n"})
        row = await stage.state("one", "shop", "Failed")
        assert "app/more.yaml:3" in row.message
        cluster.kubectl().patch("ConfigMap", "settings", {"data": {"colour": "pink"}})
        await stage.until(lambda: colour(cluster) == "red")
        fixed = stage.repository.commit("fixed", {"app/more.yaml": config("green", "more")})
        await stage.synced(("one", "shop"), revision=fixed)


async def test_a_broken_manifest_at_start_keeps_the_last_release(stage: Stage) -> None:
    """After a restart onto a commit that does not render, what was applied is rendered again and kept."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
    stage.repository.commit("broken", {"app/more.yaml": "kind: ["})
    cluster.kubectl().patch("ConfigMap", "settings", {"data": {"colour": "pink"}})
    async with stage.running(stage.world):
        await stage.state("one", "shop", "Failed")
        await stage.until(lambda: colour(cluster) == "red")


async def test_a_missing_path_is_never_nothing_desired(stage: Stage) -> None:
    """A commit without the app's directory prunes nothing and says what is missing."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        stage.repository.git("rm", "-rq", "app")
        stage.repository.commit("gone", {"other.txt": "x"})
        row = await stage.state("one", "shop", "Failed", "PathMissing")
        assert "app" in row.message
        assert colour(cluster) == "red"


async def test_a_missing_branch_names_those_there_are(stage: Stage) -> None:
    """A ref that does not exist is an error of the repository and of its targets."""
    await stage.add_cluster("one")
    stage.declare(
        "fleet.yaml", repository_document(stage.repository.path, ref={"branch": "mian"}), environment_document()
    )
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        row = await stage.state("one", "shop", "Failed", "RevisionMissing")
        assert "mian" in row.message
        assert [r.state for r in hub.status().repositories] == ["Failed"]


async def test_a_lost_repository_keeps_what_runs(stage: Stage) -> None:
    """With the remote gone, also across a restart, drift is repaired from the clone; when it is back, it is followed."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
    away = stage.root / "away"
    shutil.move(stage.repository.path, away)
    cluster.kubectl().patch("ConfigMap", "settings", {"data": {"colour": "pink"}})
    async with stage.running(stage.world) as hub:
        await stage.until(lambda: colour(cluster) == "red")
        await stage.until(lambda: [r.state for r in hub.status().repositories] == ["Failed"])
        shutil.move(away, stage.repository.path)
        revision = stage.repository.commit("blue", {"app/settings.yaml": config("blue")})
        await stage.synced(("one", "shop"), revision=revision, timeout_s=600)


async def test_a_bad_inventory_file_keeps_its_last_good_version(stage: Stage) -> None:
    """A file that breaks is shown with its place; what it said goes on; a right one counts again."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        (stage.inventory / "apps.yaml").write_text(
            "apiVersion: fleet/v1\nkind: App\nmetadata: {name: shop}\nspec: {pth: x}\n"
        )
        await stage.until(lambda: hub.status().problems)
        assert "apps.yaml" in hub.status().problems[0].file
        cluster.kubectl().patch("ConfigMap", "settings", {"data": {"colour": "pink"}})
        await stage.until(lambda: colour(cluster) == "red")
        stage.declare("apps.yaml", app_document("shop", "app"))
        await stage.until(lambda: not hub.status().problems)


async def test_an_emptied_inventory_removes_nothing(stage: Stage) -> None:
    """A directory that is suddenly empty is an error, never the wish to delete everything."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        for file in stage.inventory.iterdir():
            file.unlink()
        await stage.until(lambda: hub.status().problems)
        await asyncio.sleep(60)
        assert colour(cluster) == "red"
        assert [row.state for row in hub.targets()] == ["Synced"]


async def test_a_silent_cluster_becomes_stale_and_comes_back(stage: Stage) -> None:
    """A server that vanishes shows within 30 s on its cluster, after 90 s on its targets, and catches up afterwards."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        cluster.die()
        await stage.until(lambda: hub.clusters()[0].state == "Connecting", timeout_s=30)
        assert stage.row("one", "shop").state == "Synced"  # type: ignore[union-attr]
        revision = stage.repository.commit("blue", {"app/settings.yaml": config("blue")})
        row = await stage.state("one", "shop", "Stale", timeout_s=120)
        assert "not observed for" in row.message
        detail = hub.target("one", "shop")
        assert detail is not None
        assert detail.last_state
        await cluster.revive()
        await stage.synced(("one", "shop"), revision=revision, timeout_s=120)


async def test_a_hanging_cluster_is_noticed_within_half_a_minute(stage: Stage) -> None:
    """A server that accepts requests and never answers shows as not answering; its neighbour is not held up."""
    slow, other = await stage.add_cluster("one"), await stage.add_cluster("two")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"), ("two", "shop"))
        slow.faults.hang()
        slow.faults.stall_watches()
        await stage.until(lambda: hub.clusters()[0].reason == "Timeout", timeout_s=30)
        revision = stage.repository.commit("blue", {"app/settings.yaml": config("blue")})
        await stage.synced(("two", "shop"), revision=revision)
        assert colour(other) == "blue"
        slow.faults.clear()
        slow.faults.stall_watches(False)
        await stage.synced(("one", "shop"), revision=revision, timeout_s=240)


async def test_refusals_of_the_api_server_are_named_and_pass(stage: Stage) -> None:
    """401, 403 and 500 on writes show on the target within 30 s with their reason, and it recovers when they end."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        for code, paint in ((401, "blue"), (403, "green"), (500, "grey")):
            cluster.faults.fail(code, verb="patch", path="configmaps")
            revision = stage.repository.commit(paint, {"app/settings.yaml": config(paint)})
            await stage.until(lambda: (row := stage.row("one", "shop")) and row.state != "Synced", timeout_s=30)
            row = stage.row("one", "shop")
            assert row is not None
            assert row.reason in ("Unauthorized", "Forbidden", "ServerFailure", "Applying"), row
            cluster.faults.clear()
            await stage.synced(("one", "shop"), revision=revision, timeout_s=90)


async def test_a_wrong_token_is_said_and_a_right_one_heals(stage: Stage) -> None:
    """A kubeconfig with a wrong token fails its cluster alone; correcting the file is enough."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    kubeconfig = stage.root / "one.kubeconfig"
    right = kubeconfig.read_text()
    kubeconfig.write_text(right.replace(cluster.token, "wrong"))
    async with stage.running(stage.world) as hub:
        await stage.until(lambda: hub.clusters() and hub.clusters()[0].reason == "Unauthorized", timeout_s=30)
        kubeconfig.write_text(right)
        await stage.synced(("one", "shop"), timeout_s=120)


async def test_a_pause_ends_by_itself(stage: Stage) -> None:
    """A pause with an end holds a commit back until then, and no longer."""
    from datetime import timedelta

    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        until = stage.world.clock.now() + timedelta(minutes=10)
        await hub.pause(PauseRequest(environment="dev", reason="audit", until=until), ADA)
        revision = stage.repository.commit("blue", {"app/settings.yaml": config("blue")})
        await asyncio.sleep(300)
        assert colour(cluster) == "red"
        assert stage.row("one", "shop").state == "Paused"  # type: ignore[union-attr]
        await asyncio.sleep(360)
        await stage.synced(("one", "shop"), revision=revision)


async def test_sync_fetches_at_once(stage: Stage) -> None:
    """With a poll once an hour, `sync` brings a new commit now, and its answer already names it."""
    cluster = await stage.add_cluster("one")
    stage.declare("fleet.yaml", repository_document(stage.repository.path, interval="1h"), environment_document())
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        revision = stage.repository.commit("blue", {"app/settings.yaml": config("blue")})
        rows = await hub.sync(SyncRequest(app="shop"), ADA)
        assert [row.desired_revision for row in rows] == [revision]
        await stage.synced(("one", "shop"), revision=revision, timeout_s=10)
        assert colour(cluster) == "blue"


async def test_another_hub_is_left_alone(stage: Stage) -> None:
    """A cluster that another hub holds is not written, and the status says whose it is and what to do."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fleet-system"}})
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"holderIdentity": "somebody"}}
    cluster.create({**lease, "metadata": {"name": "fleet-hub", "namespace": "fleet-system"}})
    cluster.forget_requests()
    async with stage.running(stage.world) as hub:
        await stage.until(lambda: hub.clusters() and hub.clusters()[0].reason == "OwnedByAnotherHub")
        assert "somebody" in hub.clusters()[0].message
        await asyncio.sleep(60)
        assert cluster.count("create", "update", "patch", "delete") == 0


async def test_another_cluster_under_the_same_name_is_not_written(stage: Stage) -> None:
    """When a different cluster answers where a known one was, nothing is written to it."""
    await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
    impostor = SimCluster("one", seed=99)
    stage.network.unlisten("one.example", 443)
    await impostor.register(stage.network, "one.example")
    stage.clusters["one"] = impostor
    stage.point_to("one")
    async with stage.running(stage.world) as hub:
        await stage.until(lambda: hub.clusters() and hub.clusters()[0].reason == "IdentityChanged")
        await asyncio.sleep(60)
        assert impostor.count("create", "update", "patch", "delete") == 0


async def test_two_names_for_one_cluster_are_refused(stage: Stage) -> None:
    """The same API server under two names is reconciled under one of them only."""
    cluster = await stage.add_cluster("one")
    await cluster.register(stage.network, "alias.example")
    stage.clusters["two"] = cluster
    stage.point_to("two")
    kubeconfig = stage.root / "two.kubeconfig"
    kubeconfig.write_text(kubeconfig.read_text().replace("one.example", "alias.example"))
    stage.repository.commit("first", {"app/settings.yaml": config()})
    async with stage.running(stage.world) as hub:
        await stage.until(lambda: [c for c in hub.clusters() if c.reason == "SameCluster"])


async def test_a_kind_that_nobody_serves_is_a_failure(stage: Stage) -> None:
    """A slip in a built-in kind is Failed with the nearest kind, the rest is applied, and the corrected file heals it."""
    cluster = await stage.add_cluster("one")
    wrong = config(name="other").replace("kind: ConfigMap", "kind: ConfigMpa")
    stage.repository.commit("first", {"app/settings.yaml": config(), "app/other.yaml": wrong})
    async with stage.running(stage.world):
        row = await stage.state("one", "shop", "Failed", "UnknownKind")
        assert "app/other.yaml" in row.message
        assert "did you mean ConfigMap?" in row.message
        assert colour(cluster) == "red"
        good = stage.repository.commit("right", {"app/other.yaml": config(name="other")})
        await stage.synced(("one", "shop"), revision=good)


async def test_a_wrong_inventory_is_an_error_at_start(stage: Stage) -> None:
    """A directory that is not there is logged as an error, once, with the flag to look at; the hub waits for it."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", {"app/settings.yaml": config()})
    hidden = stage.inventory.rename(stage.root / "elsewhere")
    with capture_logs() as logs:
        async with stage.running(stage.world):
            await stage.until(lambda: [entry for entry in logs if entry["log_level"] == "error"])
            await asyncio.sleep(60)
            [told] = [entry for entry in logs if entry["log_level"] == "error"]
            assert told["event"] == "InventoryUnreadable"
            assert "check --inventory" in told["message"]
            hidden.rename(stage.inventory)
            await stage.synced(("one", "shop"))
    assert colour(cluster) == "red"
