"""Ways back: holds on earlier releases, in virtual time."""

import asyncio
import shutil
import sqlite3
import zlib

import pytest

from fleet.errors import FleetError
from fleet.hub.view import HoldRequest, ReleaseRow
from fleet.sim.cluster import SimCluster
from tests.harness.fleet import ADA, app_document, environment_document, repository_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import colour, config, writes

SECRET = """\
apiVersion: v1
kind: Secret
metadata: {{name: key, namespace: default}}
stringData: {{password: {password}}}
"""


def password(cluster: SimCluster) -> str | None:
    """What a cluster's Secret says."""
    found = cluster.find("v1", "Secret", "default", "key")
    return str((found.get("data") or {}).get("password") or found["stringData"]["password"]) if found else None


def request(**fields: str) -> HoldRequest:
    """Ask for something of app shop."""
    return HoldRequest(app="shop", **{"reason": "incident 12", **fields})


async def commit(stage: Stage, value: str) -> str:
    """Commit a colour and return the revision."""
    return stage.repository.commit(value, {"app/settings.yaml": config(value)})


async def test_rollback_holds_the_release_before(stage: Stage) -> None:
    """The hold brings the last good release, new commits do not move it, and without it targets follow Git again."""
    cluster = await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        first = await commit(stage, "red")
        await stage.synced(("one", "shop"), revision=first)
        await stage.synced(("one", "shop"), revision=await commit(stage, "blue"))
        row = await hub.rollback(request(), ADA)
        assert (row.scope, row.release, row.actor) == ("app shop", "shop#1", "ada")
        await stage.synced(("one", "shop"), revision=first)
        assert colour(cluster) == "red"
        shown = stage.row("one", "shop")
        assert shown is not None
        assert (shown.release, shown.desired_revision) == ("shop#1", first)
        assert "held at shop#1 by ada: incident 12" in shown.message
        assert [hold.reason for hold in hub.status().holds] == ["incident 12"]
        green = await commit(stage, "green")
        releases = await stage.until(lambda: _newest(stage, 3))
        assert [(r.number, r.runs_on, r.changed) for r in releases] == [
            (3, (), ("ConfigMap default/settings",)),
            (2, (), ("ConfigMap default/settings",)),
            (1, ("one",), ()),
        ]
        assert (releases[2].holds, releases[2].added) == (("app shop",), ("ConfigMap default/settings",))
        cluster.kubectl().patch("ConfigMap", "settings", {"data": {"colour": "pink"}})
        await stage.until(lambda: colour(cluster) == "red")
        assert await hub.unhold(request(), ADA) == 1
        await stage.synced(("one", "shop"), revision=green)
        assert (colour(cluster), await hub.unhold(request(), ADA)) == ("green", 0)


async def _newest(stage: Stage, number: int) -> list[ReleaseRow]:
    releases = await stage.hub.releases("shop")
    return list(releases) if releases and releases[0].number == number else []


async def test_a_hold_survives_a_restart(stage: Stage) -> None:
    """Nothing is written by the restart, no release is made by it, and the hold still holds."""
    cluster = await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        first = await commit(stage, "red")
        await stage.synced(("one", "shop"), revision=first)
        await stage.synced(("one", "shop"), revision=await commit(stage, "blue"))
        await hub.rollback(request(), ADA)
        await stage.synced(("one", "shop"), revision=first)
    cluster.forget_requests()
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"), revision=first)
        assert (writes(cluster), len(await hub.releases("shop"))) == ([], 2)
        assert await hub.unhold(request(), ADA) == 1
        await stage.until(lambda: colour(cluster) == "blue")


async def test_a_hold_of_one_cluster_leaves_the_others(stage: Stage) -> None:
    """Scopes are the app, an environment or a cluster; the newest hold that covers a target counts."""
    stage.declare("fleet.yaml", repository_document(stage.repository.path), *map(environment_document, ("dev", "prod")))
    one, two = await stage.add_cluster("one"), await stage.add_cluster("two", environment="prod")
    async with stage.running(stage.world) as hub:
        both = (("one", "shop"), ("two", "shop"))
        revisions = []
        for each in ("red", "blue", "green"):
            revisions.append(await commit(stage, each))
            await stage.synced(*both, revision=revisions[-1])
        await hub.rollback(request(cluster="two"), ADA)
        await stage.synced(("two", "shop"), revision=revisions[1])
        assert (colour(one), colour(two)) == ("green", "blue")
        await hub.rollback(request(environment="prod", to=revisions[0][:8]), ADA)
        await stage.synced(("two", "shop"), revision=revisions[0])
        assert (colour(one), colour(two)) == ("green", "red")
        with pytest.raises(FleetError, match="fleet unhold shop --cluster two; fleet unhold shop --environment prod"):
            await hub.unhold(request(), ADA)
        assert await hub.unhold(request(environment="prod"), ADA) == 1
        await stage.synced(("two", "shop"), revision=revisions[1])
        assert await hub.unhold(request(cluster="two"), ADA) == 1
        await stage.synced(*both, revision=revisions[2])


async def test_a_hold_on_what_runs_is_a_freeze(stage: Stage) -> None:
    """`--to` the current release writes nothing and keeps what comes after it away."""
    cluster = await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        first = await commit(stage, "red")
        await stage.synced(("one", "shop"), revision=first)
        cluster.forget_requests()
        await hub.rollback(request(to="shop#1"), ADA)
        await commit(stage, "blue")
        await stage.until(lambda: _newest(stage, 2))
        await stage.synced(("one", "shop"), revision=first)
        assert (writes(cluster), colour(cluster)) == ([], "red")


async def test_rollback_from_a_commit_that_does_not_render(stage: Stage) -> None:
    """What Git says now need not even be readable for the way back."""
    cluster = await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        first = await commit(stage, "red")
        await stage.synced(("one", "shop"), revision=first)
        await stage.synced(("one", "shop"), revision=await commit(stage, "blue"))
        stage.repository.commit("broken", {"app/settings.yaml": "kind: ["})
        await stage.state("one", "shop", "Failed")
        await hub.rollback(request(), ADA)
        await stage.synced(("one", "shop"), revision=first)
        assert colour(cluster) == "red"


async def test_stored_bytes_need_no_repository(stage: Stage) -> None:
    """A release comes back although its commit is gone, and so are the files of today's."""
    cluster = await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        first = await commit(stage, "red")
        await stage.synced(("one", "shop"), revision=first)
        await stage.synced(("one", "shop"), revision=await commit(stage, "blue"))
    for clone in stage.world.directory.git.iterdir():
        shutil.rmtree(clone)
    stage.repository.path.rename(stage.repository.path.with_name("gone"))
    async with stage.running(stage.world) as hub:
        await stage.until(lambda: stage.row("one", "shop"))
        await hub.rollback(request(to="1"), ADA)
        await stage.until(lambda: colour(cluster) == "red")


async def test_secret_values_are_never_stored(stage: Stage) -> None:
    """Going back to a release with a Secret takes its values from its commit; the database holds none of them."""
    cluster = await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        for value in ("hunter2hunter2", "swordfish"):
            files = {"app/key.yaml": SECRET.format(password=value), "app/settings.yaml": config(value[:4])}
            await stage.synced(("one", "shop"), revision=stage.repository.commit(value, files))
        newer = password(cluster)
        await hub.rollback(request(), ADA)
        await stage.until(lambda: colour(cluster) == "hunt")
        await stage.until(lambda: password(cluster) != newer)
    with sqlite3.connect(f"file:{stage.world.directory.database}?mode=ro", uri=True) as database:
        renders = [zlib.decompress(row[0]) for row in database.execute("SELECT manifests FROM render")]
    database.close()
    assert len(renders) == 2
    assert not any(b"hunter2" in r or b"swordfish" in r or b"aHVudGVy" in r or b"c3dvcmRm" in r for r in renders)
    assert all(b"colour" in r for r in renders)


async def test_a_changed_policy_holds_with_the_release(stage: Stage) -> None:
    """Manifests come from the release, the policy from the inventory as it is now."""
    cluster = await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        first = await commit(stage, "red")
        await stage.synced(("one", "shop"), revision=first)
        await stage.synced(("one", "shop"), revision=await commit(stage, "blue"))
        await hub.rollback(request(), ADA)
        await stage.synced(("one", "shop"), revision=first)
        stage.declare("apps.yaml", app_document("shop", "app", drift="report"))
        await asyncio.sleep(3)  # the inventory is looked at once a second
        cluster.kubectl().patch("ConfigMap", "settings", {"data": {"colour": "pink"}})
        await stage.state("one", "shop", "Drifted", timeout_s=120)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "NoEarlierRelease"),
        ({"to": "9"}, "ReleaseUnknown"),
        ({"to": "soon"}, "ReleaseUnknown"),
        ({"cluster": "two"}, "NothingInScope"),
        ({"to": "abcdef12"}, "RevisionMissing"),
    ],
)
async def test_a_rollback_to_nowhere_is_refused(stage: Stage, fields: dict[str, str], reason: str) -> None:
    """What cannot be gone back to is said, and holds nothing."""
    await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        await stage.synced(("one", "shop"), revision=await commit(stage, "red"))
        with pytest.raises(FleetError) as caught:
            await hub.rollback(request(**fields), ADA)
        assert (caught.value.reason, hub.status().holds) == (reason, ())


async def test_ten_good_releases_are_kept(stage: Stage) -> None:
    """The eleventh drops the first, with its bytes; one that is held stays."""
    await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        for number in range(1, 14):
            await stage.synced(("one", "shop"), revision=await commit(stage, f"c{number}"))
            if number == 2:
                await hub.rollback(request(to="2", cluster="one"), ADA)
                await hub.rollback(request(to="2"), ADA)
                assert await hub.unhold(request(cluster="one"), ADA) == 1
                assert await hub.unhold(request(), ADA) == 1
        good = [r.number for r in await hub.releases("shop") if r.good_on]
        assert good == list(range(13, 3, -1))
        with pytest.raises(FleetError, match="shop#1 is no longer kept"):
            await hub.rollback(request(to="1"), ADA)
    with sqlite3.connect(f"file:{stage.world.directory.database}?mode=ro", uri=True) as database:
        assert database.execute("SELECT count(*) FROM render").fetchone() == (10,)
    database.close()
