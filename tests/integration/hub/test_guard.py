"""Mass deletions wait for a person; what moves, vanishes for a moment or cannot be read is not deleted at all."""

import asyncio
import shutil

import pytest

from fleet.errors import TargetError
from fleet.hub.view import ApprovalRow
from fleet.sim.cluster import SimCluster
from tests.harness.fleet import ADA, app_document, environment_document, repository_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_handover import uid
from tests.integration.hub.test_main_job import colour, config

LETTERS = "abcdefghijklmopqrstuvwxz"
"""Without those that YAML takes for a boolean."""


def files(directory: str, names: str, prefix: str = "") -> dict[str, str]:
    """One ConfigMap per letter."""
    return {f"{directory}/{prefix}{n}.yaml": config(name=f"{prefix}{n}") for n in names}


def there(cluster: SimCluster, prefix: str = "") -> str:
    """Which of the letters' ConfigMaps exist."""
    return "".join(n for n in LETTERS if colour(cluster, f"{prefix}{n}") is not None)


def deletions(cluster: SimCluster) -> int:
    """How many deletions of an app's objects a cluster was asked for."""
    return sum(r.verb == "delete" and "/namespaces/default/" in r.path for r in cluster.requests)


def remove(stage: Stage, *paths: str) -> str:
    """Commit the removal of files; a marker keeps the directory."""
    for path in paths:
        (stage.repository.path / path).unlink()
    return stage.repository.commit("less", {"app/README.md": "x", "other/README.md": "x", "third/README.md": "x"})


def waiting(stage: Stage) -> list[ApprovalRow]:
    """What waits for approval."""
    return [row for row in stage.hub.approvals() if row.state == "waiting"]


async def approve(stage: Stage, app: str = "shop", cluster: str = "one") -> None:
    """Approve what waits for a target."""
    row = next(row for row in waiting(stage) if (row.cluster, row.app) == (cluster, app))
    await stage.hub.approve(cluster, app, digest=row.digest, reason="meant so", actor=ADA)


async def test_a_mass_change_waits_for_approval(stage: Stage) -> None:
    """A commit that takes 6 of 10 objects deletes nothing, says what it would and how to allow it; then it does."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", files("app", LETTERS[:10]))
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        revision = remove(stage, *files("app", LETTERS[:6]))
        row = await stage.state("one", "shop", "Waiting", "MassChange")
        assert "delete 6 of the 10 objects on one (ConfigMap default/a, ConfigMap default/b" in row.message
        [held] = hub.approvals()
        assert f"fleet approve one/shop --digest {held.digest} --reason" in row.message
        await asyncio.sleep(3600)
        assert (there(cluster), deletions(cluster)) == (LETTERS[:10], 0)
        await approve(stage)
        await stage.synced(("one", "shop"), revision=revision)
        assert there(cluster) == LETTERS[6:10]
        assert await hub.events(kind="audit")
        await stage.until(lambda: not hub.approvals())


@pytest.mark.parametrize("gone", [5, 6])
async def test_a_small_change_goes_on(stage: Stage, gone: int) -> None:
    """Five objects, or six of twenty-four, are an ordinary commit."""
    cluster = await stage.add_cluster("one")
    count = 10 if gone == 5 else 24
    stage.repository.commit("first", files("app", LETTERS[:count]))
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        await stage.synced(("one", "shop"), revision=remove(stage, *files("app", LETTERS[:gone])))
        assert there(cluster) == LETTERS[gone:count]


async def test_what_is_spread_over_apps_counts_together(stage: Stage) -> None:
    """Four objects of each of two apps in one commit are a mass change; approving one app frees that one alone."""
    cluster = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("shop", "app"), app_document("other", "other"))
    stage.repository.commit("first", {**files("app", LETTERS[:8]), **files("other", LETTERS[:8], "o")})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"), ("one", "other"))
        gone = [*files("app", LETTERS[:4]), *files("other", LETTERS[:4], "o")]
        revision = remove(stage, *gone)
        await stage.state("one", "shop", "Waiting", "MassChange")
        await stage.state("one", "other", "Waiting", "MassChange")
        await approve(stage)
        await stage.synced(("one", "shop"), revision=revision)
        await asyncio.sleep(300)
        assert (there(cluster), there(cluster, "o")) == (LETTERS[4:8], LETTERS[:8])
        await approve(stage, "other")
        await stage.synced(("one", "other"), revision=revision)
        assert there(cluster, "o") == LETTERS[4:8]


async def test_a_withdrawn_change_frees_the_rest(stage: Stage) -> None:
    """When one app's files come back, what the other loses is no mass change any more."""
    cluster = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("shop", "app"), app_document("other", "other"))
    stage.repository.commit("first", {**files("app", LETTERS[:8]), **files("other", LETTERS[:8], "o")})
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"), ("one", "other"))
        remove(stage, *files("app", LETTERS[:4]), *files("other", LETTERS[:4], "o"))
        await stage.state("one", "other", "Waiting", "MassChange")
        revision = stage.repository.commit("back", files("app", LETTERS[:4]))
        await stage.synced(("one", "shop"), ("one", "other"), revision=revision)
        assert (there(cluster), there(cluster, "o")) == (LETTERS[:8], LETTERS[4:8])


async def test_an_approval_is_for_one_change(stage: Stage) -> None:
    """A digest that no longer fits is refused with the right one; an approved change that grows waits again."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", files("app", LETTERS[:12]))
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        with pytest.raises(TargetError, match="nothing of one/shop waits"):
            await hub.approve("one", "shop", digest="0" * 16, reason="r", actor=ADA)
        remove(stage, *files("app", LETTERS[:6]))
        await stage.state("one", "shop", "Waiting", "MassChange")
        [first] = waiting(stage)
        remove(stage, "app/g.yaml")
        await stage.until(lambda: [row.digest for row in waiting(stage)] != [first.digest])
        [second] = waiting(stage)
        assert second.count == 7
        with pytest.raises(TargetError, match=second.digest):
            await hub.approve("one", "shop", digest=first.digest, reason="r", actor=ADA)
        assert there(cluster) == LETTERS[:12]


async def test_an_approval_survives_a_restart(stage: Stage) -> None:
    """What waits is held again by the next process; what was approved while the cluster was away is done when it is back."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", files("app", LETTERS[:8]))
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        remove(stage, *files("app", LETTERS[:6]))
        await stage.state("one", "shop", "Waiting", "MassChange")
    async with stage.running(stage.world) as hub:
        await stage.state("one", "shop", "Waiting", "MassChange")
        assert there(cluster) == LETTERS[:8]
        cluster.die()
        await stage.until(lambda: hub.clusters()[0].state != "Ready")
        await approve(stage)
        await asyncio.sleep(30)
    await cluster.revive()
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"), timeout_s=300)
        assert there(cluster) == "gh"


async def test_a_served_approval_does_not_last(stage: Stage) -> None:
    """The same objects, made anew and taken out again, need a new approval."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", files("app", LETTERS[:8]))
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        remove(stage, *files("app", LETTERS[:6]))
        await stage.state("one", "shop", "Waiting", "MassChange")
        await approve(stage)
        await stage.until(lambda: there(cluster) == "gh")
        await stage.synced(("one", "shop"), revision=stage.repository.commit("back", files("app", LETTERS[:6])))
        remove(stage, *files("app", LETTERS[:6]))
        await stage.state("one", "shop", "Waiting", "MassChange")
        assert there(cluster) == LETTERS[:8]


async def test_an_app_that_renders_to_nothing_waits(stage: Stage) -> None:
    """Even one object is not deleted because its file is no manifest any more."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", files("app", "a"))
    async with stage.running(stage.world):
        await stage.synced(("one", "shop"))
        revision = remove(stage, "app/a.yaml")
        row = await stage.state("one", "shop", "Waiting", "EmptyRender")
        assert "renders to nothing" in row.message
        assert there(cluster) == "a"
        await approve(stage)
        await stage.synced(("one", "shop"), revision=revision)
        assert there(cluster) == ""


async def test_a_removed_app_waits(stage: Stage) -> None:
    """An App document that goes takes nothing with it before that is approved; when it comes back, nothing happened."""
    cluster = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("shop", "app"), app_document("other", "other"))
    stage.repository.commit("first", {**files("app", LETTERS[:8]), **files("other", "ab", "o")})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"), ("one", "other"))
        stage.declare("apps.yaml", app_document("shop", "app"))
        row = await stage.state("one", "other", "Waiting", "MassChange")
        assert "nothing of the app would stay" in row.message
        stage.declare("apps.yaml", app_document("shop", "app"), app_document("other", "other"))
        await stage.synced(("one", "other"))
        assert deletions(cluster) == 0
        stage.declare("apps.yaml", app_document("shop", "app"))
        await stage.state("one", "other", "Waiting", "MassChange")
        await approve(stage, "other")
        await stage.until(lambda: [row.app for row in hub.targets()] == ["shop"])
        assert (there(cluster), there(cluster, "o")) == (LETTERS[:8], "")


async def test_a_removed_cluster_never_counts(stage: Stage) -> None:
    """A Cluster document that goes deletes nothing in it, and asks for no approval."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", files("app", LETTERS[:8]))
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        (stage.inventory / "one.yaml").unlink()
        await stage.until(lambda: not hub.clusters())
        await asyncio.sleep(120)
        assert (there(cluster), list(hub.approvals())) == (LETTERS[:8], [])


async def test_a_renamed_app_hands_over(stage: Stage) -> None:
    """The same directory under a new app name is the same objects: none is deleted, nothing is to be approved."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", files("app", LETTERS[:8]))
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        before = [uid(cluster, name) for name in LETTERS[:8]]
        stage.declare("apps.yaml", app_document("store", "app"))
        await stage.synced(("one", "store"))
        await stage.until(lambda: [row.app for row in hub.targets()] == ["store"])
        assert [uid(cluster, name) for name in LETTERS[:8]] == before
        assert (deletions(cluster), list(hub.approvals())) == (0, [])


async def test_a_moved_directory_hands_over(stage: Stage) -> None:
    """All manifests of an app move to another in one commit: an empty render, and yet nothing to delete."""
    cluster = await stage.add_cluster("one")
    stage.declare("apps.yaml", app_document("shop", "app"), app_document("other", "other"))
    stage.repository.commit("first", {**files("app", LETTERS[:8]), **files("other", "z")})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"), ("one", "other"))
        before = [uid(cluster, name) for name in LETTERS[:8]]
        for path in files("app", LETTERS[:8]):
            (stage.repository.path / path).unlink()
        moved = {**files("other", LETTERS[:8]), "app/README.md": "x"}
        revision = stage.repository.commit("move", moved)
        await stage.synced(("one", "shop"), ("one", "other"), revision=revision)
        assert [uid(cluster, name) for name in LETTERS[:8]] == before
        assert (deletions(cluster), list(hub.approvals())) == (0, [])


async def test_an_unmounted_inventory_deletes_nothing(stage: Stage) -> None:
    """A directory that is gone, then there but empty, then filled again: an error, and no deletion."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", files("app", "a"))
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        away = stage.root / "away"
        shutil.move(stage.inventory, away)
        await stage.until(lambda: hub.status().problems)
        await asyncio.sleep(60)
        stage.inventory.mkdir()
        await asyncio.sleep(60)
        assert hub.status().problems
        stage.inventory.rmdir()
        shutil.move(away, stage.inventory)
        await stage.until(lambda: not hub.status().problems)
        await asyncio.sleep(60)
        assert (there(cluster), deletions(cluster)) == ("a", 0)


async def test_a_half_written_pull_deletes_nothing(stage: Stage) -> None:
    """Files that a `git pull` takes away and writes again, one after the other, were never gone."""
    stage.removal_quiet_s = 10.0
    cluster = await stage.add_cluster("one")
    stage.declare("other.yaml", app_document("other", "other"))
    stage.repository.commit("first", {**files("app", "a"), **files("other", "o")})
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"), ("one", "other"))
        texts = {path: path.read_text() for path in sorted(stage.inventory.iterdir())}
        for _ in range(3):
            for path in texts:
                path.unlink()
                await asyncio.sleep(2)
            for path, text in texts.items():
                path.write_text(text[: len(text) // 2])
                await asyncio.sleep(2)
                path.write_text(text)
        await stage.until(lambda: not hub.status().problems)
        await asyncio.sleep(60)
        assert (there(cluster), deletions(cluster)) == ("ao", 0)
        assert {row.state for row in hub.targets()} == {"Synced"}


async def test_a_paused_app_deletes_only_after_approval(stage: Stage) -> None:
    """A pause does not wear the guard out: when it ends, the change is held as it would have been."""
    from fleet.hub.view import PauseRequest

    cluster = await stage.add_cluster("one")
    stage.declare("fleet.yaml", repository_document(stage.repository.path), environment_document())
    stage.repository.commit("first", files("app", LETTERS[:8]))
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        await hub.pause(PauseRequest(app="shop", reason="audit"), ADA)
        remove(stage, *files("app", LETTERS[:6]))
        await asyncio.sleep(60)
        await stage.state("one", "shop", "Paused")
        await hub.resume(PauseRequest(app="shop", reason=""), ADA)
        await stage.state("one", "shop", "Waiting", "MassChange")
        assert there(cluster) == LETTERS[:8]


async def test_prune_now_goes_before_a_failed_apply(stage: Stage) -> None:
    """What fails blocks the prune; the command prunes, once, with its reason in the audit log."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", files("app", "abc"))
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        assert await hub.prune("one", "shop", reason="nothing to do", actor=ADA) == 0
        cluster.faults.fail(403, verb="patch", path="configmaps/d")
        stage.repository.commit("more", files("app", "d"))
        await stage.state("one", "shop", "Failed")
        remove(stage, "app/a.yaml")
        await asyncio.sleep(60)
        assert there(cluster) == "abc"
        assert await hub.prune("one", "shop", reason="a is in the way", actor=ADA) == 1
        await stage.until(lambda: there(cluster) == "bc")
        remove(stage, "app/b.yaml")
        await asyncio.sleep(60)
        assert there(cluster) == "bc"
        [event] = await hub.events(kind="audit", reason="PruneNow")
        assert (event.actor, "a is in the way" in event.message) == ("ada", True)


async def test_prune_now_does_not_go_round_the_guard(stage: Stage) -> None:
    """A mass change behind a failed apply waits for its approval, and is then pruned without asking once more."""
    cluster = await stage.add_cluster("one")
    stage.repository.commit("first", files("app", LETTERS[:8]))
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        cluster.faults.fail(403, verb="patch", path="configmaps/z")
        stage.repository.commit("more", files("app", "z"))
        await stage.state("one", "shop", "Failed")
        revision = remove(stage, *files("app", LETTERS[:6]))
        await stage.until(lambda: (row := stage.row("one", "shop")) and row.desired_revision == revision)
        await asyncio.sleep(30)
        assert not waiting(stage)
        assert await hub.prune("one", "shop", reason="z needs room", actor=ADA) == 6
        await stage.until(lambda: waiting(stage))
        with pytest.raises(TargetError, match="fleet approve one/shop"):
            await hub.prune("one", "shop", reason="again", actor=ADA)
        await asyncio.sleep(600)
        assert there(cluster) == LETTERS[:8]
        await approve(stage)
        await stage.until(lambda: there(cluster) == LETTERS[6:8])


@pytest.mark.parametrize(
    ("spec", "reason", "command"),
    [
        ({"paused": {"reason": "audit"}}, "Paused", "fleet resume"),
        ({"apply": "report"}, "ReportOnly", "apply: auto"),
    ],
)
async def test_prune_now_is_refused_where_nothing_is_written(
    stage: Stage, spec: dict[str, object], reason: str, command: str
) -> None:
    """A paused and a report-only app are left alone; the refusal says what to do first."""
    await stage.add_cluster("one")
    stage.repository.commit("first", files("app", "abc"))
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"))
        stage.declare("apps.yaml", app_document("shop", "app", **spec))
        await asyncio.sleep(30)
        with pytest.raises(TargetError, match=command) as refused:
            await hub.prune("one", "shop", reason="r", actor=ADA)
        assert refused.value.reason == reason
        with pytest.raises(TargetError, match="does not go to cluster"):
            await hub.prune("one", "ghost", reason="r", actor=ADA)
