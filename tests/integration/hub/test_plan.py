"""Plans and preflights of a whole hub on simulated clusters, in virtual time."""

from collections.abc import Mapping

import pytest

from fleet.errors import TargetError
from fleet.hub.preflight import Preflights
from fleet.hub.view import HoldRequest, PauseRequest, PlanClusterRow, PlanRow
from fleet.object import TargetId
from fleet.reconcile.preflight import Outcome
from fleet.sim.cluster import SimCluster
from tests.harness.fleet import ADA, app_document, environment_document, repository_document
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import colour, config

NEWCOMER = """\
apiVersion: v1
kind: Namespace
metadata: {name: new}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: inside, namespace: new}
"""


def versions(cluster: SimCluster) -> Mapping[tuple[str, str], str]:
    """Every ConfigMap's resourceVersion."""
    found = cluster.list("v1", "ConfigMap")
    return {
        (m["namespace"], m["name"]): m["resourceVersion"]
        for m in (each["metadata"] for each in found)
        if m["name"] != "fleet-hub"
    }


def rows(plan: PlanRow) -> dict[str, PlanClusterRow]:
    """The clusters of a plan by name."""
    return {row.cluster: row for row in plan.clusters}


def told(row: PlanClusterRow) -> dict[str, str]:
    """The objects of a cluster as `name: action outcome reason`."""
    return {o.name: f"{o.action} {o.outcome} {o.reason}" for o in row.objects}


def desired(stage: Stage, cluster: str) -> str:
    """The revision that shop shall have on a cluster."""
    row = stage.row(cluster, "shop")
    return row.desired_revision if row is not None else ""


async def prepared(stage: Stage, *, files: Mapping[str, str]) -> None:
    """Bring the first release to every cluster, stop writing, and let Git move on."""
    hub = stage.hub
    first = stage.repository.commit("first", {"app/settings.yaml": config("red")})
    await stage.synced(*[(name, "shop") for name in stage.clusters], revision=first)
    await hub.pause(PauseRequest(app="shop", reason="look first"), ADA)
    second = stage.repository.commit("second", dict(files))
    await stage.until(lambda: all(desired(stage, name) == second for name in stage.clusters))


async def test_a_plan_shows_order_changes_and_refusals(stage: Stage) -> None:
    """Stage by stage; what one cluster refuses is known before any is touched, and nothing is written by asking."""
    stage.declare(
        "fleet.yaml",
        repository_document(stage.repository.path),
        environment_document("dev"),
        environment_document("prod", after=["dev"]),
    )
    dev = await stage.add_cluster("a", environment="prod")
    prod = await stage.add_cluster("z")
    async with stage.running(stage.world) as hub:
        await prepared(stage, files={"app/settings.yaml": config("blue"), "app/new.yaml": NEWCOMER})
        dev.faults.fail(403, verb="patch", path="configmaps/settings")
        before = versions(dev), versions(prod)
        plan = await hub.plan("shop")
        assert (versions(dev), versions(prod)) == before
        assert (plan.release, plan.outcome) == ("shop#2", "refused")
        assert [(s.environment, s.after, s.batches[0].clusters) for s in plan.stages] == [
            ("dev", (), ("z",)),
            ("prod", ("dev",), ("a",)),
        ]
        assert [row.cluster for row in plan.clusters] == ["z", "a"]
        assert told(rows(plan)["z"]) == {
            "settings": "configure ok Changed",
            "new": "create ok Absent",
            "inside": "create unverified ComesWithRelease",
        }
        assert told(rows(plan)["a"])["settings"] == "configure refused Forbidden"
        assert rows(plan)["z"].release == "shop#1"
        assert any("look first" in each for each in rows(plan)["z"].waits)
        assert (await hub.plan("shop", "shop#2")).stages == plan.stages


async def test_nothing_is_planned_where_nothing_changes(stage: Stage) -> None:
    """Neither is any cluster asked."""
    cluster = await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        first = stage.repository.commit("first", {"app/settings.yaml": config("red")})
        await stage.synced(("one", "shop"), revision=first)
        cluster.forget_requests()
        plan = await hub.plan("shop", first[:8])
        assert (plan.release, plan.clusters, plan.stages[0].unchanged) == ("shop#1", (), ("one",))
        assert cluster.count("patch") == 0


async def test_any_commit_can_be_planned(stage: Stage) -> None:
    """An earlier release by its number, and a commit that is no release; a word that is neither is refused."""
    await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        first = stage.repository.commit("first", {"app/settings.yaml": config("red")})
        await stage.synced(("one", "shop"), revision=first)
        aside = stage.repository.commit("aside", {"README.md": "hello"})
        second = stage.repository.commit("second", {"app/settings.yaml": config("blue")})
        await stage.synced(("one", "shop"), revision=second)
        back, between = await hub.plan("shop", "1"), await hub.plan("shop", aside)
        assert (back.release, between.release, between.revision) == ("shop#1", "", aside)
        assert told(rows(back)["one"]) == told(rows(between)["one"]) == {"settings": "configure ok Changed"}
        with pytest.raises(TargetError) as wrong:
            await hub.plan("shop", "yesterday")
        assert wrong.value.reason == "ReleaseUnknown"
        with pytest.raises(TargetError) as unknown:
            await hub.plan("shpo")
        assert "did you mean shop?" in unknown.value.message


async def test_a_cluster_that_cannot_be_asked_is_unverified(stage: Stage) -> None:
    """The others are tried; why it cannot be asked is said."""
    away = await stage.add_cluster("away")
    await stage.add_cluster("here")
    async with stage.running(stage.world) as hub:
        await prepared(stage, files={"app/settings.yaml": config("blue")})
        away.die()
        await stage.until(lambda: hub.clusters()[0].state != "Ready")
        plan = await hub.plan("shop")
        assert {name: row.outcome for name, row in rows(plan).items()} == {"away": "unverified", "here": "ok"}
        assert rows(plan)["away"].reason
        assert plan.outcome == "unverified"


async def test_a_release_is_tried_on_each_of_its_clusters(stage: Stage) -> None:
    """As a rollout asks; a release that is not there is refused, and an unknown cluster as well."""
    await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        await prepared(stage, files={"app/settings.yaml": config("blue")})
        one, nowhere = TargetId("one", "shop"), TargetId("nowhere", "shop")
        preflights = Preflights(hub._supervisor)
        found = await preflights.preflight_release("shop", 2, [one, nowhere])
        assert {t: each.outcome for t, each in found.items()} == {one: Outcome.OK, nowhere: Outcome.REFUSED}
        assert [t.change.action.value for t in found[one].trials] == ["configure"]
        lost = await preflights.preflight_release("shop", 9, [one])
        assert lost[one].explain() == "there is no release shop#9"


async def test_what_does_not_render_is_refused(stage: Stage) -> None:
    """A broken file is known for each cluster before the first one is touched."""
    await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        first = stage.repository.commit("first", {"app/settings.yaml": config("red")})
        await stage.synced(("one", "shop"), revision=first)
        bad = stage.repository.commit("bad", {"app/settings.yaml": "kind: [\n"})
        await stage.state("one", "shop", "Failed")
        (row,) = (await hub.plan("shop", bad)).clusters
        assert (row.outcome, "settings.yaml" in row.message) == ("refused", True)


async def test_a_held_cluster_takes_no_part(stage: Stage) -> None:
    """It is listed with its stage, and is not asked."""
    await stage.add_cluster("one")
    await stage.add_cluster("two")
    stage.declare("apps.yaml", app_document("shop", "app"))
    async with stage.running(stage.world) as hub:
        first = stage.repository.commit("first", {"app/settings.yaml": config("red")})
        await stage.synced(("one", "shop"), ("two", "shop"), revision=first)
        await hub.rollback(HoldRequest(app="shop", cluster="two", to="1", reason="audit"), ADA)
        await hub.pause(PauseRequest(app="shop", reason="look first"), ADA)
        second = stage.repository.commit("second", {"app/settings.yaml": config("blue")})
        await stage.until(lambda: desired(stage, "one") == second)
        plan = await hub.plan("shop")
        assert (list(rows(plan)), plan.stages[0].held) == (["one"], ("two",))


SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: default}
stringData: {password: hunter2}
"""


async def test_no_secret_value_is_told(stage: Stage) -> None:
    """What a server says about an object with secret values is withheld: it may quote them. The plan holds none."""
    cluster = await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        await prepared(stage, files={"app/key.yaml": SECRET})
        assert "hunter2" not in repr(await hub.plan("shop"))
        cluster.faults.fail(422, verb="patch", path="secrets/key")
        plan = await hub.plan("shop")
        assert told(rows(plan)["one"]) == {"key": "create refused Invalid"}
        assert "withheld" in rows(plan)["one"].objects[0].message
        assert "hunter2" not in repr(plan)


CRD = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {kind: Gadget, listKind: GadgetList, plural: gadgets, singular: gadget}
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
"""
GADGET = "apiVersion: example.org/v1\nkind: Gadget\nmetadata: {name: one, namespace: default}\n"


async def test_a_definition_may_come_with_another_app(stage: Stage) -> None:
    """A kind that no app brings is refused; one that another app is about to bring cannot be told yet."""
    stage.declare("apps.yaml", app_document("shop", "app"), app_document("kinds", "kinds", apply="report"))
    await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        stage.repository.commit("kinds", {"kinds/settings.yaml": config("red").replace("settings", "kinds")})
        await prepared(stage, files={"app/gadget.yaml": GADGET})
        assert told(rows(await hub.plan("shop"))["one"]) == {"one": "skip refused MissingKind"}
        third = stage.repository.commit("third", {"kinds/crd.yaml": CRD})
        await stage.until(lambda: (r := stage.row("one", "kinds")) is not None and r.desired_revision == third)
        assert told(rows(await hub.plan("shop"))["one"]) == {"one": "skip unverified ComesWithRelease"}


async def test_a_dependency_is_waited_for_while_it_is_not_ready(stage: Stage) -> None:
    """An app that is healthy with its release keeps nobody."""
    apps = [app_document("base", "base"), app_document("shop", "app", dependsOn=[{"app": "base"}])]
    stage.declare("apps.yaml", *apps)
    cluster = await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        stage.repository.commit("base", {"base/settings.yaml": config("red").replace("settings", "base")})
        await prepared(stage, files={"app/settings.yaml": config("blue")})
        assert not any("base" in each for each in rows(await hub.plan("shop"))["one"].waits)
        cluster.faults.fail(403, verb="patch", path="configmaps/base")
        stage.repository.commit("worse", {"base/settings.yaml": config("blue").replace("settings", "base")})
        await stage.state("one", "base", "Failed")
        waits = rows(await hub.plan("shop"))["one"].waits
        assert waits[0] == "app base must be healthy there with its release"


async def test_trying_another_release_disturbs_no_repair(stage: Stage) -> None:
    """Drift that is mended meanwhile is mended to what the cluster should have, not to what is tried."""
    cluster = await stage.add_cluster("one")
    async with stage.running(stage.world) as hub:
        for value in ("red", "blue"):
            revision = stage.repository.commit(value, {"app/settings.yaml": config(value)})
            await stage.synced(("one", "shop"), revision=revision)
        for _ in range(5):
            cluster.kubectl().patch("ConfigMap", "settings", {"data": {"colour": "pink"}})
            await hub.plan("shop", "1")
            await stage.until(lambda: colour(cluster) != "pink")
            assert colour(cluster) == "blue"


async def test_a_rollout_does_not_begin_when_a_cluster_would_refuse(stage: Stage) -> None:
    """The last cluster's refusal is known before the first one is touched; the run says which cluster and object."""
    stage.declare(
        "fleet.yaml",
        repository_document(stage.repository.path),
        environment_document("dev", rollout={"soak": "1s"}),
        environment_document("prod", after=["dev"], rollout={"soak": "1s"}),
    )
    dev = await stage.add_cluster("a")
    prod = await stage.add_cluster("z", environment="prod")
    async with stage.running(stage.world) as hub:
        first = stage.repository.commit("first", {"app/settings.yaml": config("red")})
        await stage.synced(("a", "shop"), ("z", "shop"), revision=first)
        prod.faults.fail(403, verb="patch", path="configmaps/settings")
        stage.repository.commit("second", {"app/settings.yaml": config("blue")})

        async def failed() -> list[str]:
            return [e.message for e in await hub.events(kind="rollout") if e.reason == "PreflightFailed"]

        messages = await stage.until(failed)
        assert any("z: ConfigMap default/settings" in message for message in messages)
        assert (colour(dev), colour(prod)) == ("red", "red")
