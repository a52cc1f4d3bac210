"""Gates of rollouts on a whole hub, in virtual time: each holds what it should, says so, and opens by itself."""

import asyncio
import itertools
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from fleet.errors import TargetError
from fleet.hub.rolloutview import RolloutDetail, Steering, SteerRequest
from fleet.hub.view import Actor
from fleet.rollout.state import ClusterState, RunState
from fleet.sim.cluster import SimCluster
from fleet.store.token import Role
from tests.harness.fleet import ADA, app_document, environment_document, repository_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import WEB, colour, config
from tests.integration.hub.test_rollout import fleet_of, images, run_in, run_of

BOB = Actor(name="bob", role=Role.ADMIN)


def now_s() -> float:
    """Return virtual time."""
    return asyncio.get_running_loop().time()


def colours(clusters: Mapping[str, SimCluster]) -> str:
    """Name the clusters that have the commit."""
    return " ".join(name for name, cluster in clusters.items() if colour(cluster) == "new")


def at(stage: Stage, *, in_: timedelta) -> str:
    """Write the minute that comes so much later as a daily cron line."""
    then = stage.world.clock.now() + in_
    return f"{then.minute} {then.hour} * * *"


async def install(stage: Stage, counts: tuple[int, int, int] = (1, 1, 1), **policies: Any) -> dict[str, SimCluster]:
    """Give every cluster a first release without gates, then put rules in force."""
    clusters = await fleet_of(stage, counts, dev={}, staging={}, production={})
    stage.repository.commit("first", {"app/settings.yaml": config("old")})
    async with stage.running(stage.world):
        await run_in(stage, RunState.SUCCEEDED)
    documents = [
        environment_document(name, **({"after": [after]} if after else {}), rollout=policies.get(name, {}))
        for name, after in (("dev", ""), ("staging", "dev"), ("production", "staging"))
    ]
    stage.declare("fleet.yaml", repository_document(stage.repository.path), *documents)
    return clusters


def begin(stage: Stage) -> None:
    """Commit what is to be rolled out."""
    stage.repository.commit("second", {"app/settings.yaml": config("new")})


async def shown(stage: Stage) -> RolloutDetail:
    """Return what people see of the newest rollout."""
    detail = await stage.hub.rollouts.show("shop")
    assert detail is not None
    return detail


async def say(stage: Stage, verb: Steering, environment: str, actor: Actor = ADA, plan: str = "") -> None:
    """Say something about a stage."""
    request = SteerRequest(app="shop", verb=verb, reason="because", stage=environment, plan=plan)
    await stage.hub.rollouts.steer(request, actor)


async def test_a_window_opens_at_its_time(stage: Stage) -> None:
    """Before it the stage is Held and says when; what comes before it went on; then it goes on without a word."""
    opens_in = timedelta(minutes=40)
    window = {"cron": at(stage, in_=opens_in), "duration": "1h", "timezone": "UTC", "reason": "office hours"}
    clusters = await install(stage, staging={"windows": [window]})
    async with stage.running(stage.world):
        begin(stage)
        await stage.until(lambda: colours(clusters) == "d1")
        await asyncio.sleep(600)
        assert colours(clusters) == "d1"
        detail = await shown(stage)
        gates = [(g.kind, g.at[:16]) for s in detail.stages for g in s.gates if s.environment == "staging"]
        assert gates[0][0] == "Window"
        assert "office hours" in detail.rollout.waits_for
        await run_in(stage, RunState.SUCCEEDED, release=2, timeout_s=3600)
        begun = (await shown(stage)).stages[1].started_at
        assert begun[:16] == gates[0][1]


async def test_a_freeze_holds_until_somebody_promotes(stage: Stage) -> None:
    """Nothing starts inside it; the way round it takes a reason, which the audit log keeps."""
    clusters = await install(stage, staging={"freezes": [{"cron": "* * * * *", "duration": "1h", "timezone": "UTC"}]})
    async with stage.running(stage.world) as hub:
        begin(stage)
        await stage.until(lambda: colours(clusters) == "d1")
        await asyncio.sleep(1200)
        assert colours(clusters) == "d1"
        assert [g.kind for g in (await shown(stage)).stages[1].gates] == ["Freeze"]
        await say(stage, Steering.PROMOTE, "staging")
        await run_in(stage, RunState.SUCCEEDED, release=2)
        acts = [(row.action, row.actor, row.reason) for row in await hub.audit(limit=100, app="shop")]
        assert ("StagePromoted", "ada", "because") in acts


async def test_an_approval_takes_two_people_and_is_for_one_plan(stage: Stage) -> None:
    """One who says it twice is one; a plan that is not the present one is refused, and one that changed needs both anew."""
    clusters = await install(stage, production={"approval": {"required": 2}})
    async with stage.running(stage.world):
        begin(stage)
        await run_in(stage, RunState.AWAITING_APPROVAL, release=2)
        with pytest.raises(TargetError) as refused:
            await say(stage, Steering.APPROVE, "production", plan="0123456789abcdef")
        assert refused.value.reason == "StalePlan"
        for _ in range(2):
            await say(stage, Steering.APPROVE, "production")
        await asyncio.sleep(60)
        assert colours(clusters) == "d1 s1"
        clusters["p2"] = await stage.add_cluster("p2", environment="production")
        await stage.until(lambda: colour(clusters["p2"]) == "old", timeout_s=600)

        async def joined() -> bool:
            run = await run_of(stage)
            return run is not None and "p2" in run.clusters

        await stage.until(joined, timeout_s=600)
        await say(stage, Steering.APPROVE, "production", BOB)
        await asyncio.sleep(600)
        assert colours(clusters) == "d1 s1"
        assert "1 of 2 approvals (bob)" in (await shown(stage)).rollout.waits_for
        await say(stage, Steering.APPROVE, "production")
        await run_in(stage, RunState.SUCCEEDED, release=2)
        assert colours(clusters) == "d1 s1 p1 p2"


async def test_an_approval_expires(stage: Stage) -> None:
    """What the first said too long ago no longer counts when the second says it."""
    clusters = await install(stage, production={"approval": {"required": 2, "expires": "10m"}})
    async with stage.running(stage.world):
        begin(stage)
        await run_in(stage, RunState.AWAITING_APPROVAL, release=2)
        await say(stage, Steering.APPROVE, "production")
        await asyncio.sleep(900)
        await say(stage, Steering.APPROVE, "production", BOB)
        await asyncio.sleep(60)
        assert colours(clusters) == "d1 s1"
        await say(stage, Steering.APPROVE, "production")
        await run_in(stage, RunState.SUCCEEDED, release=2)


async def test_order_and_pace(stage: Stage) -> None:
    """The canary goes first, then by the label's number; between two starts lies the interval."""
    rules = {"order": {"first": ["d3"], "label": "ring"}, "pace": "90s"}
    clusters = await install(stage, (4, 0, 0), dev=rules)
    for name, ring in (("d1", "20"), ("d2", "3"), ("d4", "100")):
        stage.point_to(name, environment="dev", labels={"ring": ring})
    seen: list[tuple[str, float]] = []

    def look() -> bool:
        known = {name for name, _ in seen}
        seen.extend((name, now_s()) for name in colours(clusters).split() if name not in known)
        return len(seen) == 4

    async with stage.running(stage.world):
        begin(stage)
        await stage.until(look, timeout_s=3600)
        assert [name for name, _ in seen] == ["d3", "d2", "d1", "d4"]
        gaps = [later - earlier for (_, earlier), (_, later) in itertools.pairwise(seen)]
        assert all(89 < gap < 95 for gap in gaps), gaps


@pytest.mark.parametrize(("budget", "end"), [(1, RunState.SUCCEEDED), (0, RunState.PAUSED)])
async def test_the_budget(stage: Stage, budget: int, end: RunState) -> None:
    """As many clusters may break as it says; with one more nothing further is started, and the cluster is named."""
    rules = {"batches": [1, 2, "100%"], "soak": "60s", "failureBudget": budget}
    clusters = await install(stage, (3, 1, 0), dev=rules)
    async with stage.running(stage.world):
        begin(stage)
        await stage.until(lambda: colours(clusters) == "d1")
        clusters["d2"].faults.fail(422, verb="patch", path="configmaps")
        run = await run_in(stage, end, release=2)
        assert run.clusters["d2"].state is ClusterState.FAILED
        assert colours(clusters) == ("d1 d3 s1" if budget else "d1")
        assert budget or run.message.startswith("d2: ConfigMap default/settings")


async def test_a_dependency_holds_one_cluster(stage: Stage) -> None:
    """Where the app it depends on is not ready a cluster is Held and says so; its neighbour goes on."""
    clusters = await install(stage, (2, 0, 0), dev={})
    shop = app_document("shop", "app", dependsOn=[{"app": "base"}])
    stage.declare("apps.yaml", app_document("base", "base"), shop)
    clusters["d2"].faults.fail(500, verb="patch", path="configmaps/base")
    stage.repository.commit("both", {"base/base.yaml": config("x", name="base"), "app/settings.yaml": config("new")})
    async with stage.running(stage.world):
        await stage.until(lambda: colours(clusters) == "d1", timeout_s=600)
        await asyncio.sleep(60)
        assert colours(clusters) == "d1"
        run = await run_of(stage)
        assert run is not None
        held = run.clusters["d2"]
        assert (held.state, held.reason) == (ClusterState.HELD, "Dependency")
        assert "waiting for app base" in (await shown(stage)).rollout.waits_for
        clusters["d2"].faults.clear()
        await stage.until(lambda: colours(clusters) == "d1 d2", timeout_s=1200)


@pytest.mark.parametrize("rule", ["wait", {"wait": "10m"}, "fail"])
async def test_a_cluster_out_of_reach(stage: Stage, rule: Any) -> None:
    """It is waited for, for so long, or not at all; the run says which, and goes on when it is back in time."""
    clusters = await install(stage, (1, 1, 0), dev={"soak": "60s"}, staging={"onUnreachable": rule})
    gone = stage.network.conditions("s1.example", 443)
    async with stage.running(stage.world):
        await stage.synced(("s1", "shop"))
        begin(stage)
        await stage.until(lambda: colours(clusters) == "d1")
        gone.refuse = True
        stage.network.cut("s1.example", 443)
        began = now_s()
        if rule == "wait":
            await asyncio.sleep(1200)
            assert "s1" in (await shown(stage)).rollout.waits_for
            run = await run_of(stage)
            assert run is not None
            assert run.active
            gone.refuse = False
            await run_in(stage, RunState.SUCCEEDED, release=2)
            return
        run = await run_in(stage, RunState.PAUSED, release=2)
        assert run.reason == "Unreachable"
        assert run.message.startswith("s1: it could not be reached for")
        waited_s = now_s() - began
        assert waited_s >= 600 if isinstance(rule, dict) else waited_s < 300


async def test_apps_roll_out_side_by_side(stage: Stage) -> None:
    """One that breaks stops its own run; the other's passes it, over the same clusters."""
    clusters = await install(stage, dev={"soak": "60s"}, staging={"soak": "60s"})
    stage.declare("apps.yaml", app_document("shop", "app"), app_document("other", "other"))
    good = {"app/settings.yaml": config("new"), "other/web.yaml": WEB.format(image="web:2-crash")}
    stage.repository.commit("both", good)
    async with stage.running(stage.world):
        done = await run_in(stage, RunState.SUCCEEDED, release=2)
        other = await run_of(stage, "other")
        assert other is not None
        assert (other.state, other.reason) == (RunState.PAUSED, "CrashLoopBackOff")
        assert colours(clusters) == "d1 s1 p1"
        assert [images(clusters)[name] for name in clusters] == ["web:2-crash", None, None]
        begun, ended = other.created_at, done.finished_at
        assert ended is not None
        assert done.created_at <= begun < ended
