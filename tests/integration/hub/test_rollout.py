"""Rollouts of a whole hub over simulated clusters: what goes where, when, and what stops it."""

import asyncio
import shutil
from collections.abc import Sequence
from typing import Any

import pytest

from fleet.hub.rolloutview import Steering, SteerRequest
from fleet.hub.view import HoldRequest, PauseRequest
from fleet.rollout.record import read_run
from fleet.rollout.state import ClusterState, Run, RunState, StageState
from fleet.sim.cluster import SimCluster
from fleet.store.rollout import RolloutStore
from tests.harness.fleet import ADA, app_document, environment_document, repository_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import WEB, colour, config

GOOD, BAD = WEB.format(image="web:2"), WEB.format(image="web:3-crash")
ORDER = ("dev", "staging", "production")


async def fleet_of(
    stage: Stage, counts: Sequence[int] = (1, 1, 2), **policies: dict[str, Any]
) -> dict[str, SimCluster]:
    """Three environments after each other, clusters d1, s1, p1 ...; `policies` are their `rollout`."""
    documents = []
    for i, name in enumerate(ORDER):
        spec: dict[str, Any] = {"after": [ORDER[i - 1]]} if i else {}
        documents.append(environment_document(name, **spec, rollout=policies.get(name, {"soak": "30s"})))
    stage.declare("fleet.yaml", repository_document(stage.repository.path), *documents)
    return {
        f"{name[0]}{i}": await stage.add_cluster(f"{name[0]}{i}", environment=name)
        for name, count in zip(ORDER, counts, strict=True)
        for i in range(1, count + 1)
    }


async def run_of(stage: Stage, app: str = "shop") -> Run | None:
    """Read the newest run of an app, as stored."""
    rows = [row for row in await RolloutStore(stage.world.database).load_newest() if row.app == app]
    return read_run(rows[0]) if rows else None


async def run_in(stage: Stage, *states: RunState, release: int = 0, timeout_s: float = 1200) -> Run:
    """Wait until the newest run is in one of these states."""

    async def found() -> Run | None:
        run = await run_of(stage)
        return run if run and run.state in states and release in (0, run.release) else None

    run = await stage.until(found, timeout_s=timeout_s)
    assert run is not None
    return run


def images(clusters: dict[str, SimCluster]) -> dict[str, str | None]:
    """Say which image each cluster's Deployment has."""
    found = {}
    for name, cluster in clusters.items():
        body = cluster.find("apps/v1", "Deployment", "default", "web")
        found[name] = body["spec"]["template"]["spec"]["containers"][0]["image"] if body else None
    return found


async def test_a_commit_walks_through_the_environments(stage: Stage) -> None:
    """Each environment follows the one before it, after its soak; in the end all have the commit."""
    clusters = await fleet_of(stage)
    stage.repository.commit("first", {"app/web.yaml": WEB.format(image="web:1")})
    async with stage.running(stage.world):
        first = await run_in(stage, RunState.SUCCEEDED)
        assert set(images(clusters).values()) == {"web:1"}
        stage.repository.commit("second", {"app/web.yaml": GOOD})
        await stage.until(lambda: images(clusters)["d1"] == "web:2")
        await asyncio.sleep(20)
        assert images(clusters) == {"d1": "web:2", "s1": "web:1", "p1": "web:1", "p2": "web:1"}
        row = stage.row("p1", "shop")
        assert row is not None
        assert (row.state, row.reason) == ("Waiting", "RolloutPending")
        done = await run_in(stage, RunState.SUCCEEDED, release=first.release + 1)
        assert set(images(clusters).values()) == {"web:2"}
        begun = [stage_.started_at for stage_ in done.stages]
        ended = [stage_.finished_at for stage_ in done.stages]
        for earlier, later in zip(ended, begun[1:], strict=False):
            assert earlier is not None
            assert later is not None
            assert earlier <= later
        assert begun[0] is not None
        assert ended[0] is not None
        assert (ended[0] - begun[0]).total_seconds() >= 30
        await stage.synced(("p2", "shop"), ("d1", "shop"))


async def test_a_crash_stops_in_the_first_stage(stage: Stage) -> None:
    """What crashes is seen at once, named with object and container, and goes no further."""
    clusters = await fleet_of(stage)
    stage.repository.commit("first", {"app/web.yaml": WEB.format(image="web:1")})
    async with stage.running(stage.world):
        await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("bad", {"app/web.yaml": BAD})
        run = await run_in(stage, RunState.PAUSED)
        assert run.reason == "CrashLoopBackOff"
        assert "d1: Deployment.apps default/web" in run.message
        assert "container web" in run.message
        await asyncio.sleep(600)
        assert images(clusters) == {"d1": "web:3-crash", "s1": "web:1", "p1": "web:1", "p2": "web:1"}


async def test_a_crash_goes_back_when_the_policy_says_so(stage: Stage) -> None:
    """The touched cluster gets back what it had, once; the bad release is not rolled out again by itself."""
    clusters = await fleet_of(stage, dev={"onFailure": "rollback"})
    stage.repository.commit("first", {"app/web.yaml": WEB.format(image="web:1")})
    async with stage.running(stage.world):
        await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("bad", {"app/web.yaml": BAD})
        run = await run_in(stage, RunState.ROLLED_BACK)
        assert run.clusters["d1"].state is ClusterState.ROLLED_BACK
        assert set(images(clusters).values()) == {"web:1"}
        await asyncio.sleep(600)
        await stage.synced(("d1", "shop"), ("p1", "shop"))
    async with stage.running(stage.world):
        await asyncio.sleep(300)
        assert set(images(clusters).values()) == {"web:1"}
        revision = stage.repository.commit("good", {"app/web.yaml": GOOD})
        await run_in(stage, RunState.SUCCEEDED)
        await stage.synced(("d1", "shop"), ("p1", "shop"), revision=revision)


async def test_an_unreachable_cluster_is_deferred_and_caught_up(stage: Stage) -> None:
    """A cluster that is off does not hold the others up, and gets the release when it is back."""
    clusters = await fleet_of(stage)
    stage.repository.commit("first", {"app/web.yaml": WEB.format(image="web:1")})
    async with stage.running(stage.world):
        await run_in(stage, RunState.SUCCEEDED)
        conditions = stage.network.conditions("p1.example", 443)
        conditions.refuse = True
        stage.network.cut("p1.example", 443)
        await asyncio.sleep(200)
        stage.repository.commit("second", {"app/web.yaml": GOOD})
        run = await run_in(stage, RunState.SUCCEEDED, release=2)
        assert run.clusters["p1"].state is ClusterState.DEFERRED
        assert (images(clusters)["p1"], images(clusters)["p2"]) == ("web:1", "web:2")
        conditions.refuse = False
        await stage.synced(("p1", "shop"), timeout_s=600)
        assert images(clusters)["p1"] == "web:2"


async def test_a_run_waits_for_an_api_server_that_restarts(stage: Stage) -> None:
    """A cluster that had said nothing for most of a minute, and is away for ten seconds, is not left out."""
    clusters = await fleet_of(stage)
    stage.repository.commit("first", {"app/web.yaml": WEB.format(image="web:1")})
    async with stage.running(stage.world):
        await run_in(stage, RunState.SUCCEEDED)
        conditions = stage.network.conditions("p1.example", 443)
        await asyncio.sleep(45)
        conditions.refuse = True
        stage.network.cut("p1.example", 443)
        stage.repository.commit("second", {"app/web.yaml": GOOD})
        await asyncio.sleep(10)
        conditions.refuse = False
        run = await run_in(stage, RunState.SUCCEEDED, release=2)
        assert (run.clusters["p1"].state, images(clusters)["p1"]) == (ClusterState.DONE, "web:2")


async def test_a_joining_cluster_gets_the_last_good_release_first(stage: Stage) -> None:
    """A cluster that comes while a run waits gets what its environment has, then takes part."""
    clusters = await fleet_of(stage, production={"approval": {"required": 1}})
    stage.declare(
        "apps.yaml",
        app_document("shop", "app", rollout={"environments": {"production": {"approval": {"required": 0}}}}),
    )
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world):
        await run_in(stage, RunState.SUCCEEDED)
        stage.declare("apps.yaml", app_document("shop", "app"))
        await asyncio.sleep(15)
        stage.repository.commit("second", {"app/settings.yaml": config("blue")})
        run = await run_in(stage, RunState.AWAITING_APPROVAL, release=2)
        assert [s.state for s in run.stages] == [StageState.DONE, StageState.DONE, StageState.HELD]
        newcomer = await stage.add_cluster("p3", environment="production")
        await stage.until(lambda: colour(newcomer) == "red", timeout_s=300)
        await asyncio.sleep(60)
        assert [colour(c) for c in (*clusters.values(), newcomer)] == ["blue", "blue", "red", "red", "red"]
        run = await run_in(stage, RunState.AWAITING_APPROVAL)
        assert run.clusters["p3"].before == 1
        late = await stage.add_cluster("d2", environment="dev")
        await stage.until(lambda: colour(late) == "blue", timeout_s=300)


async def test_drift_is_healed_to_what_a_cluster_should_have(stage: Stage) -> None:
    """While a release waits further up, what somebody changes by hand goes back to the release that is in force there."""
    clusters = await fleet_of(stage, counts=(1, 1, 1), staging={"soak": "1h"})
    stage.declare("apps.yaml", app_document("shop", "app", rollout={"environments": {"staging": {"soak": "1s"}}}))
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world):
        await run_in(stage, RunState.SUCCEEDED)
        stage.declare("apps.yaml", app_document("shop", "app"))
        await asyncio.sleep(15)
        stage.repository.commit("second", {"app/settings.yaml": config("blue")})
        await stage.until(lambda: colour(clusters["s1"]) == "blue", timeout_s=300)
        for name, wanted in (("p1", "red"), ("s1", "blue")):
            clusters[name].kubectl().patch("ConfigMap", "settings", {"data": {"colour": "yellow"}})
            assert colour(clusters[name]) == "yellow"
            await stage.until(lambda name=name, wanted=wanted: colour(clusters[name]) == wanted)  # type: ignore[misc]


async def test_a_release_that_changes_nothing_makes_no_step(stage: Stage) -> None:
    """A commit that changes one environment's output is no step elsewhere; an inventory edit goes through the stages."""
    await fleet_of(stage, counts=(1, 1, 1))
    stage.declare(
        "apps.yaml",
        app_document(
            "shop",
            "app",
            substitute=True,
            overrides=[{"environment": "dev", "variables": {"COLOUR": "red"}}],
            variables={"COLOUR": "blue"},
        ),
    )
    stage.repository.commit("first", {"app/settings.yaml": config('"${COLOUR}"')})
    async with stage.running(stage.world):
        await run_in(stage, RunState.SUCCEEDED)
        stage.declare(
            "apps.yaml",
            app_document(
                "shop",
                "app",
                substitute=True,
                variables={"COLOUR": "blue"},
                overrides=[{"environment": "dev", "variables": {"COLOUR": "green"}}],
            ),
        )
        run = await run_in(stage, RunState.SUCCEEDED, release=2)
        assert sorted(run.clusters) == ["d1"]
        assert colour(stage.clusters["d1"]) == "green"
        assert colour(stage.clusters["p1"]) == "blue"


async def test_a_held_cluster_is_skipped_and_comes_back(stage: Stage) -> None:
    """What a person holds stays out of the run; without the hold it is caught up."""
    clusters = await fleet_of(stage, counts=(1, 1, 1))
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world) as hub:
        await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("second", {"app/settings.yaml": config("blue")})
        await run_in(stage, RunState.SUCCEEDED, release=2)
        request = HoldRequest(app="shop", cluster="s1", to="shop#1", reason="r")
        await hub.rollback(request, actor=ADA)
        await stage.until(lambda: colour(clusters["s1"]) == "red")
        stage.repository.commit("third", {"app/settings.yaml": config("green")})
        run = await run_in(stage, RunState.SUCCEEDED, release=3)
        assert "s1" not in run.clusters or run.clusters["s1"].state is ClusterState.SKIPPED
        assert (colour(clusters["p1"]), colour(clusters["s1"])) == ("green", "red")
        await hub.unhold(HoldRequest(app="shop", cluster="s1", reason="r"), actor=ADA)
        await stage.until(lambda: colour(clusters["s1"]) == "green", timeout_s=600)


async def test_a_newer_release_takes_over(stage: Stage) -> None:
    """While one release soaks the next supersedes it: the last environments skip the one in the middle."""
    clusters = await fleet_of(stage, counts=(1, 1, 1))
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world):
        await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("second", {"app/settings.yaml": config("blue")})
        await stage.until(lambda: colour(clusters["d1"]) == "blue")
        stage.repository.commit("third", {"app/settings.yaml": config("green")})
        await run_in(stage, RunState.SUCCEEDED, release=3)
        assert [colour(c) for c in clusters.values()] == ["green"] * 3
        old = await RolloutStore(stage.world.database).get("shop", 2)
        assert old is not None
        assert old.state == RunState.SUPERSEDED


@pytest.mark.parametrize(
    ("rule", "seen"), [("finish", ["red", "blue", "green", "white"]), ("queue", ["red", "blue", "white"])]
)
async def test_newer_releases_wait_for_their_turn(stage: Stage, rule: str, seen: list[str]) -> None:
    """`finish` runs every release that came meanwhile, in order; `queue` only the newest."""
    policy = {"soak": "60s", "onNewRelease": rule}
    clusters = await fleet_of(stage, counts=(1, 1, 1), dev=policy, staging=policy, production=policy)
    shown: list[str | None] = []

    def look() -> bool:
        now = colour(clusters["p1"])
        if now is not None and (not shown or shown[-1] != now):
            shown.append(now)
        return now == "white"

    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world):
        await stage.until(lambda: look() or shown, timeout_s=600)
        await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("second", {"app/settings.yaml": config("blue")})
        await stage.until(lambda: colour(clusters["d1"]) == "blue")
        for name in ("green", "white"):
            stage.repository.commit(name, {"app/settings.yaml": config(name)})
            await asyncio.sleep(5)
        await stage.until(look, timeout_s=1200)
        assert shown == seen


async def test_a_paused_cluster_is_not_late(stage: Stage) -> None:
    """While somebody pauses a cluster that was started, its deadline does not pass."""
    clusters = await fleet_of(stage, counts=(1, 1, 1), dev={"deadline": "60s"})
    stage.repository.commit("first", {"app/web.yaml": WEB.format(image="web:1")})
    async with stage.running(stage.world) as hub:
        await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("second", {"app/web.yaml": WEB.format(image="web:2-slow")})
        await stage.until(lambda: images(clusters)["d1"] == "web:2-slow")
        await hub.pause(PauseRequest(cluster="d1", reason="a look at it"), actor=ADA)
        clusters["d1"].kubectl().scale("Deployment", "web", 9)
        await asyncio.sleep(50)
        clusters["d1"].kubectl().set_image("web", "web", "web:4-pending")
        await asyncio.sleep(600)
        run = await run_of(stage)
        assert run is not None
        assert (run.state, run.release) == (RunState.RUNNING, 2)
        await hub.resume(PauseRequest(cluster="d1", reason="done"), actor=ADA)
        await run_in(stage, RunState.SUCCEEDED, release=2)


async def test_a_hub_that_starts_reads_the_repository_first(stage: Stage) -> None:
    """A run that was under way goes on when there is something to give, and keeps what is there until then."""
    clusters = await fleet_of(stage, counts=(1, 1, 1), dev={"soak": "60s"})
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world):
        await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("second", {"app/settings.yaml": config("blue")})
        await stage.until(lambda: colour(clusters["d1"]) == "blue")
    hidden = stage.repository.path.rename(stage.root / "away")
    shutil.rmtree(stage.world.directory.git)
    async with stage.running(stage.world):
        await asyncio.sleep(600)
        assert [colour(c) for c in clusters.values()] == ["blue", "red", "red"]
        hidden.rename(stage.repository.path)
        await run_in(stage, RunState.SUCCEEDED, release=2)
        assert [colour(c) for c in clusters.values()] == ["blue"] * 3


async def test_a_skipped_newcomer_gets_nothing(stage: Stage) -> None:
    """A cluster that a person leaves out of its first release has none, also when the run is over."""
    clusters = await fleet_of(stage, counts=(1, 1, 1), production={"approval": {"required": 1}})
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world) as hub:
        await run_in(stage, RunState.AWAITING_APPROVAL)
        request = SteerRequest(app="shop", verb=Steering.SKIP, cluster="p1", reason="not yet")
        await hub.rollouts.steer(request, actor=ADA)
        request = SteerRequest(app="shop", verb=Steering.APPROVE, stage="production", reason="fine")
        await hub.rollouts.steer(request, actor=ADA)
        await run_in(stage, RunState.SUCCEEDED)
        await asyncio.sleep(300)
        assert [colour(c) for c in clusters.values()] == ["red", "red", None]


async def test_a_cluster_keeps_what_it_has_until_its_turn(stage: Stage) -> None:
    """A release after an aborted one takes nobody back first, not even those that the aborted one was still watching."""
    clusters = await fleet_of(stage, counts=(1, 1, 1), dev={"soak": "30s"}, staging={"soak": "1h"})
    stage.repository.commit("first", {"app/settings.yaml": config("red")})
    async with stage.running(stage.world) as hub:
        await stage.until(lambda: colour(clusters["s1"]) == "red", timeout_s=600)
        promote = SteerRequest(app="shop", verb=Steering.PROMOTE, stage="staging", reason="r")
        await hub.rollouts.steer(promote, ADA)
        await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("second", {"app/settings.yaml": config("blue")})
        await stage.until(lambda: colour(clusters["s1"]) == "blue", timeout_s=600)
        await hub.rollouts.steer(SteerRequest(app="shop", verb=Steering.ABORT, reason="r"), ADA)
        stage.repository.commit("third", {"app/settings.yaml": config("green")})
        await stage.until(lambda: colour(clusters["d1"]) == "green")
        assert colour(clusters["s1"]) == "blue"
        run = await run_of(stage)
        assert run is not None
        assert (run.clusters["s1"].state, run.clusters["s1"].before) == (ClusterState.PENDING, 1)


async def test_what_git_took_back_is_no_longer_shown(stage: Stage) -> None:
    """A run that failed stays in the status until a commit undoes it, also when that changes nothing any more."""
    await fleet_of(stage, counts=(1, 1, 1), dev={"onFailure": "rollback"})
    stage.repository.commit("first", {"app/web.yaml": WEB.format(image="web:1")})
    async with stage.running(stage.world) as hub:
        await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("bad", {"app/web.yaml": BAD})
        await run_in(stage, RunState.ROLLED_BACK)
        assert [row.release for row in hub.status().rollouts] == ["shop#2"]
        revision = stage.repository.commit("back", {"app/web.yaml": WEB.format(image="web:1")})
        await stage.synced(("d1", "shop"), ("p1", "shop"), revision=revision)
        await asyncio.sleep(2)
        assert hub.status().rollouts == ()


async def test_the_way_back_has_a_deadline_of_its_own(stage: Stage) -> None:
    """A cluster that used up its deadline has it once more for going back, also when a person sends it."""
    clusters = await fleet_of(stage, counts=(1, 1, 1), dev={"deadline": "5s", "onFailure": "rollback"})
    stage.repository.commit("first", {"app/web.yaml": WEB.format(image="web:1")})
    async with stage.running(stage.world) as hub:
        await run_in(stage, RunState.SUCCEEDED)
        stage.repository.commit("slow", {"app/web.yaml": WEB.format(image="web:2-slow")})
        run = await run_in(stage, RunState.ROLLED_BACK, RunState.FAILED)
        assert (run.state, run.reason) == (RunState.ROLLED_BACK, "DeadlineExceeded")
        stage.repository.commit("good", {"app/web.yaml": WEB.format(image="web:3")})
        await run_in(stage, RunState.SUCCEEDED, release=3)
        await asyncio.sleep(600)
        request = SteerRequest(app="shop", verb=Steering.ROLLBACK, reason="a customer complains")
        await hub.rollouts.steer(request, actor=ADA)
        await run_in(stage, RunState.ROLLED_BACK, release=3)
        await asyncio.sleep(60)
        assert set(images(clusters).values()) == {"web:1"}
