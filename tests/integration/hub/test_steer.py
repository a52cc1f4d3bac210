"""People and rollouts of a whole hub: what is shown of one under way, and what each verb does."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fleet.errors import TargetError
from fleet.hub.rolloutview import GateRow, RolloutDetail, RolloutStageRow, Steering, SteerRequest
from fleet.hub.view import Actor
from fleet.store.token import Role
from tests.harness.fleet import ADA
from tests.integration.hub.conftest import Stage
from tests.integration.hub.test_main_job import WEB
from tests.integration.hub.test_rollout import BAD, GOOD, fleet_of, images

BOB = Actor(name="bob", role=Role.APPROVER)
FIRST = {"app/web.yaml": WEB.format(image="web:1")}
ALWAYS = {"cron": "0 0 1 7 *", "duration": "1m", "timezone": "UTC"}
"""A window that is open for one minute a year."""


async def steer(stage: Stage, verb: str, actor: Actor = ADA, /, **names: Any) -> str:
    """Tell the newest rollout of shop something; return its state then."""
    request = SteerRequest(app="shop", verb=Steering(verb), reason="because", **names)
    return (await stage.hub.rollouts.steer(request, actor)).state


async def shown(stage: Stage, number: int = 0) -> RolloutDetail:
    """Look at a rollout of shop."""
    detail = await stage.hub.rollouts.show("shop", number)
    assert detail is not None
    return detail


async def when(stage: Stage, true: Callable[[RolloutDetail], Any], timeout_s: float = 600) -> RolloutDetail:
    """Wait until something is true of the newest rollout of shop."""
    async with asyncio.timeout(timeout_s):
        while True:
            detail = await stage.hub.rollouts.show("shop")
            if detail is not None and true(detail):
                return detail
            await asyncio.sleep(1)


def in_state(state: str, number: int = 0) -> Callable[[RolloutDetail], bool]:
    """Tell whether a rollout is in a state, and of a release if one is given."""
    return lambda d: d.rollout.state == state and number in (0, d.rollout.number)


def part(detail: RolloutDetail, environment: str) -> RolloutStageRow:
    """Return one stage."""
    return next(s for s in detail.stages if s.environment == environment)


def gates_of(detail: RolloutDetail, cluster: str) -> list[GateRow]:
    """Return what a cluster waits for."""
    return [g for s in detail.stages for c in s.clusters if c.cluster == cluster for g in c.gates]


def states(detail: RolloutDetail) -> dict[str, str]:
    """Return the state of every cluster."""
    return {c.cluster: c.state for s in detail.stages for c in s.clusters}


async def audited(stage: Stage) -> list[tuple[str, str, str, str]]:
    """Return action, actor, reason and result of every act, oldest first."""
    return [(row.action, row.actor, row.reason, row.result) for row in await stage.hub.audit(limit=1000, app="shop")]


async def test_a_rollout_shows_what_it_waits_for(stage: Stage) -> None:
    """Batches as they round, the soak with its end, the stages behind, and one sentence; then times and history."""
    await fleet_of(stage, (2, 1, 1), dev={"soak": "5m", "batches": ["50%", "100%"]}, staging={}, production={})
    stage.repository.commit("first", FIRST)
    async with stage.running(stage.world):
        detail = await when(stage, lambda d: gates_of(d, "d1") and gates_of(d, "d1")[0].kind == "Soak")
        dev = part(detail, "dev")
        assert [(b.size, b.clusters, b.over) for b in dev.batches] == [
            ("50%", ("d1",), False),
            ("100%", ("d2",), False),
        ]
        soak = gates_of(detail, "d1")[0]
        assert detail.now < soak.at
        assert detail.rollout.waits_for == "dev waits: d1: it must stay healthy for 300 s"
        assert [g.message for g in part(detail, "staging").gates] == ["comes after dev"]
        assert [row.release for row in stage.hub.status().rollouts] == ["shop#1"]
        detail = await when(stage, lambda d: gates_of(d, "d2") and gates_of(d, "d2")[0].kind == "Soak")
        assert [b.over for b in part(detail, "dev").batches] == [True, False]
        done = await when(stage, in_state("Succeeded"))
        assert stage.hub.status().rollouts == ()
        assert done.rollout.waits_for == ""
        assert all(s.started_at and s.finished_at and not s.gates for s in done.stages)
        assert [step.after for step in done.history if not step.environment] == ["Planned", "Running", "Succeeded"]


async def test_pause_and_resume(stage: Stage) -> None:
    """A paused rollout starts nothing more and says who waits for whom; saying it twice is no harm."""
    clusters = await fleet_of(stage, dev={"soak": "1m"})
    stage.repository.commit("first", FIRST)
    async with stage.running(stage.world):
        await when(stage, lambda d: states(d)["d1"] == "Soaking")
        assert await steer(stage, "pause") == "Paused"
        assert await steer(stage, "pause") == "Paused"
        await asyncio.sleep(600)
        detail = await shown(stage)
        assert (states(detail)["d1"], states(detail)["s1"]) == ("Done", "Pending")
        assert detail.rollout.waits_for == "waits for somebody: because"
        assert images(clusters)["s1"] is None
        assert await steer(stage, "resume") == "Running"
        await steer(stage, "resume")
        done = await when(stage, in_state("Succeeded"))
        assert [(s.reason, s.actor) for s in done.history if s.actor] == [("PausedByUser", "ada"), ("Resumed", "ada")]
        names = [act[0] for act in await audited(stage)]
        assert names == ["RolloutPaused", "RolloutPaused", "RolloutResumed", "RolloutResumed"]
        assert {act[1:] for act in await audited(stage)} == {("ada", "because", "done")}


async def test_the_status_looks_again_when_a_run_changes_or_time_goes_by(stage: Stage) -> None:
    """Asked twice at once it looks once; what a verb did shows at once; what is only seen shows a second later."""
    await fleet_of(stage, dev={"soak": "1h"})
    stage.repository.commit("first", FIRST)
    async with stage.running(stage.world) as hub:
        await when(stage, lambda d: states(d)["d1"] == "Soaking")
        first = hub.rollouts.current()
        assert hub.rollouts.current() is first
        await asyncio.sleep(2)
        assert hub.rollouts.current() is not first
        await steer(stage, "pause")
        assert [row.state for row in hub.status().rollouts] == ["Paused"]


async def test_abort_leaves_everything_as_it_is(stage: Stage) -> None:
    """What has the release keeps it, what has not does not get it, and only retry goes on."""
    clusters = await fleet_of(stage, dev={"soak": "1m"})
    stage.repository.commit("first", FIRST)
    async with stage.running(stage.world):
        await when(stage, lambda d: states(d)["d1"] == "Soaking")
        assert await steer(stage, "abort") == "Aborted"
        assert await steer(stage, "abort") == "Aborted"
        await asyncio.sleep(300)
        assert (images(clusters)["d1"], images(clusters)["s1"]) == ("web:1", None)
        with pytest.raises(TargetError, match="Aborted"):
            await steer(stage, "pause")
        assert (await audited(stage))[-1][3].startswith("failed: RunEnded")
        await steer(stage, "retry")
        await when(stage, in_state("Succeeded"))
        assert set(images(clusters).values()) == {"web:1"}


async def test_a_verb_may_be_held_to_one_rollout(stage: Stage) -> None:
    """Said again when the next release is on its way it is refused, by name, and leaves that one alone."""
    await fleet_of(stage, counts=(1, 1, 1), dev={"soak": "1h", "onNewRelease": "queue"})
    stage.repository.commit("first", FIRST)
    async with stage.running(stage.world):
        await when(stage, in_state("Running"))
        stage.repository.commit("second", {"app/web.yaml": GOOD})
        await asyncio.sleep(10)
        request = SteerRequest(app="shop", verb=Steering.ABORT, reason="because", release=1)
        await stage.hub.rollouts.steer(request, ADA)
        await when(stage, in_state("Running", 2))
        with pytest.raises(TargetError, match="is shop#2, not shop#1; nothing was done"):
            await stage.hub.rollouts.steer(request, ADA)
        assert (await shown(stage)).rollout.state == "Running"


async def test_who_aborts_is_told_of_what_was_aborted(stage: Stage) -> None:
    """Not of the release that waited behind it, which begins at once."""
    await fleet_of(stage, dev={"soak": "10m", "onNewRelease": "queue"})
    stage.repository.commit("first", FIRST)
    async with stage.running(stage.world):
        first = await when(stage, lambda d: states(d)["d1"] == "Soaking")
        stage.repository.commit("second", {"app/web.yaml": WEB.format(image="web:2")})
        await asyncio.sleep(120)
        request = SteerRequest(app="shop", verb=Steering.ABORT, reason="because")
        row = await stage.hub.rollouts.steer(request, ADA)
        assert (row.number, row.state) == (first.rollout.number, "Aborted")
        assert (await shown(stage)).rollout.number == first.rollout.number + 1


async def test_retry_and_rollback_of_a_failure(stage: Stage) -> None:
    """A crash pauses; a retry tries again and pauses again; a rollback sends the touched cluster back."""
    clusters = await fleet_of(stage)
    stage.repository.commit("first", FIRST)
    async with stage.running(stage.world):
        await when(stage, in_state("Succeeded"))
        stage.repository.commit("bad", {"app/web.yaml": BAD})
        detail = await when(stage, in_state("Paused"))
        assert "container web" in detail.rollout.waits_for
        await steer(stage, "retry")
        detail = await when(stage, in_state("Paused"))
        assert [(s.after, s.actor) for s in detail.history if s.reason == "Retried"] == [
            ("Pending", "ada"),
            ("Running", "ada"),
        ]
        await steer(stage, "rollback")
        await steer(stage, "rollback")
        detail = await when(stage, in_state("RolledBack"))
        assert images(clusters)["d1"] == "web:1"
        assert [row.state for row in stage.hub.status().rollouts] == ["RolledBack"]
        assert [(s.cluster, s.after) for s in detail.history if s.reason == "SentBack"] == [("d1", "RolledBack")]


async def test_skip_leaves_a_cluster_out(stage: Stage) -> None:
    """A cluster that is not started is left out, and what comes after its stage goes on without it."""
    clusters = await fleet_of(stage, (2, 1, 1), dev={"batches": [1, "100%"], "soak": "1m"}, staging={}, production={})
    stage.repository.commit("first", FIRST)
    async with stage.running(stage.world):
        await when(stage, in_state("Succeeded"))
        stage.repository.commit("second", {"app/web.yaml": GOOD})
        await when(stage, lambda d: d.rollout.number == 2 and states(d)["d1"] == "Soaking")
        with pytest.raises(TargetError, match="it has: d1, d2, p1, s1"):
            await steer(stage, "skip", cluster="d9")
        await steer(stage, "skip", cluster="d2")
        await steer(stage, "skip", cluster="d2")
        detail = await when(stage, in_state("Succeeded"))
        await asyncio.sleep(60)
        assert states(detail) == {"d1": "Done", "d2": "Skipped", "s1": "Done", "p1": "Done"}
        assert images(clusters) == {"d1": "web:2", "d2": "web:1", "s1": "web:2", "p1": "web:2"}
        assert [(s.cluster, s.actor) for s in detail.history if s.reason == "SkippedByUser"] == [("d2", "ada")]


async def test_promote_does_without_the_gates(stage: Stage) -> None:
    """A stage whose window is closed and whose soak is long goes at once; the history says who and why."""
    closed = {"windows": [ALWAYS], "soak": "1h"}
    clusters = await fleet_of(stage, dev={}, staging=closed, production={})
    stage.repository.commit("first", FIRST)
    async with stage.running(stage.world):
        detail = await when(stage, lambda d: part(d, "staging").state == "Held")
        gate = part(detail, "staging").gates[0]
        assert (gate.kind, gate.at > detail.now) == ("Window", True)
        assert "the next window opens at" in detail.rollout.waits_for
        with pytest.raises(TargetError, match="it has: dev, staging, production"):
            await steer(stage, "promote", stage="prod")
        await steer(stage, "promote", stage="staging")
        await steer(stage, "promote", stage="staging")
        done = await when(stage, in_state("Succeeded"))
        assert images(clusters)["s1"] == "web:1"
        assert part(done, "staging").promoted
        told = [(s.environment, s.actor, s.message) for s in done.history if s.reason == "Promoted"]
        assert told == [("staging", "ada", "because")]


async def test_approvals_of_different_people(stage: Stage) -> None:
    """Two tokens must say yes to the plan as it is; the same one twice is one; another plan moves nothing."""
    clusters = await fleet_of(stage, dev={}, staging={"approval": {"required": 2}}, production={})
    stage.repository.commit("first", FIRST)
    async with stage.running(stage.world):
        detail = await when(stage, in_state("AwaitingApproval"))
        staging = part(detail, "staging")
        assert (staging.approvals_needed, staging.approvals) == (2, ())
        with pytest.raises(TargetError, match=staging.digest) as stale:
            await steer(stage, "approve", stage="staging", plan="f" * 16)
        assert stale.value.reason == "StalePlan"
        with pytest.raises(TargetError, match="needs no approval"):
            await steer(stage, "approve", stage="dev")
        assert await steer(stage, "approve", stage="staging", plan=staging.digest) == "AwaitingApproval"
        assert await steer(stage, "approve", stage="staging") == "AwaitingApproval"
        detail = await shown(stage)
        assert [(g.actor, g.counts) for g in part(detail, "staging").approvals] == [("ada", True)]
        assert "1 of 2 approvals (ada)" in detail.rollout.waits_for
        await asyncio.sleep(60)
        assert images(clusters)["s1"] is None
        await steer(stage, "approve", BOB, stage="staging")
        done = await when(stage, in_state("Succeeded"))
        assert {s.actor for s in done.history if s.reason == "Approved"} == {"ada", "bob"}
        refused = [act[3] for act in await audited(stage) if act[3].startswith("failed")]
        assert [text.split(": ")[1] for text in refused] == ["StalePlan", "NothingToApprove"]


async def test_rollouts_of_the_past_stay_to_be_seen(stage: Stage) -> None:
    """Also after a restart: what ended is listed with its state, and shown with its history by its number."""
    await fleet_of(stage, dev={}, staging={}, production={})
    stage.repository.commit("first", FIRST)
    async with stage.running(stage.world):
        await when(stage, in_state("Succeeded"))
        stage.repository.commit("second", {"app/web.yaml": GOOD})
        await when(stage, in_state("Succeeded", 2))
    async with stage.running(stage.world) as hub:
        rows = [row for _, row in await hub.rollouts.list(app="shop")]
        assert [(row.release, row.state) for row in rows] == [("shop#2", "Succeeded"), ("shop#1", "Succeeded")]
        assert await hub.rollouts.list(states=["Failed"]) == []
        [(last, _)] = await hub.rollouts.list(limit=1)
        assert [row.number for _, row in await hub.rollouts.list(before=last)] == [1]
        brief = await hub.rollouts.show("shop", 1, history=False)
        assert brief is not None
        assert brief.history == ()
        first = await shown(stage, 1)
        assert (first.stages[0].batches, first.stages[0].digest) == ((), "")
        assert first.history[-1].after == "Succeeded"
        assert await hub.rollouts.show("shop", 9) is None
        with pytest.raises(TargetError, match="has no rollout"):
            await hub.rollouts.steer(SteerRequest(app="db", verb=Steering.PAUSE, reason="r"), ADA)


async def test_what_people_said_survives_a_restart(stage: Stage) -> None:
    """A pause, an approval and a skip are as they were when the hub comes back, and end in the same place."""
    policy = {"approval": {"required": 2}, "batches": [1, "100%"], "soak": "1m"}
    clusters = await fleet_of(stage, (1, 2, 1), dev={}, staging=policy, production={})
    stage.repository.commit("first", FIRST)
    async with stage.running(stage.world):
        await when(stage, in_state("AwaitingApproval"))
        for actor in (ADA, BOB):
            await steer(stage, "approve", actor, stage="staging")
        await when(stage, in_state("Succeeded"))
        stage.repository.commit("second", {"app/web.yaml": GOOD})
        await when(stage, in_state("AwaitingApproval", 2))
        await steer(stage, "approve", stage="staging")
        await steer(stage, "skip", cluster="s2")
        await steer(stage, "pause")
    async with stage.running(stage.world):
        await asyncio.sleep(120)
        detail = await shown(stage)
        assert (detail.rollout.state, states(detail)["s2"]) == ("Paused", "Skipped")
        assert [g.actor for g in part(detail, "staging").approvals if g.counts] == ["ada"]
        await steer(stage, "resume")
    async with stage.running(stage.world) as hub:
        with pytest.raises(TargetError, match="has not read its inventory"):
            await steer(stage, "approve", BOB, stage="staging")
        await stage.until(lambda: hub.status().environments)
        await steer(stage, "approve", BOB, stage="staging")
        await when(stage, in_state("Succeeded", 2))
        assert images(clusters) == {"d1": "web:2", "s1": "web:2", "s2": "web:1", "p1": "web:2"}


async def test_a_cluster_left_behind_keeps_its_rollout_in_the_status(stage: Stage) -> None:
    """Until it is back and caught up; then nothing is to be said any more."""
    clusters = await fleet_of(stage, (1, 2, 1), dev={}, staging={}, production={})
    stage.repository.commit("first", FIRST)
    async with stage.running(stage.world) as hub:
        await when(stage, in_state("Succeeded"))
        assert hub.status().rollouts == ()
        clusters["s1"].die()
        await asyncio.sleep(200)
        stage.repository.commit("second", {"app/web.yaml": GOOD})
        behind = await when(stage, in_state("Succeeded", 2))
        assert behind.rollout.waits_for == "waits until s1 can be reached"
        assert [row.release for row in hub.status().rollouts] == ["shop#2"]
        await clusters["s1"].revive()
        caught_up = await when(stage, lambda d: states(d)["s1"] == "Done")
        assert (caught_up.rollout.message, hub.status().rollouts) == ("", ())
