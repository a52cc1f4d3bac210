"""What a run does not do, and how it goes on: failures, waiting, adoption, hand-over, deletions that hang."""

import asyncio
from typing import Any

import pytest

from fleet.errors import Forbidden, Invalid, KubeError, ServerFailure, Unauthorized
from fleet.object import Adopt, GroupKind, ObjectKey, TargetId
from fleet.reconcile.port import Policy
from tests.harness.reconcile import (
    CLUSTER,
    Rig,
    annotated,
    change_of,
    config,
    deployment,
    job,
    key_of,
    plain,
    says,
)

A, B = key_of(config("a")), key_of(config("b"))
BAD = Invalid("spec.x: wrong", status=422)


async def test_one_bad_object_fails_alone(rig: Rig) -> None:
    """The others are applied; the failure is named, and the target is not complete."""
    rig.cluster.refuse("apply", A, BAD)
    report = await rig.run(config("a"), config("b"), deployment())
    assert set(report.failures) == {A}
    assert B in rig.cluster.objects
    assert not report.complete
    assert [note.reason for note in report.notes] == ["Invalid"]
    failed = rig.summary(report).failed
    assert failed is not None
    assert "spec.x: wrong" in failed.message


async def test_a_failure_is_tried_again_later_and_not_before(rig: Rig) -> None:
    """A failed object waits for its time even when the target runs for other reasons; then it recovers by itself."""
    rig.cluster.refuse("apply", A, BAD)
    report = await rig.run(config("a"))
    assert report.wake_in_s is not None
    assert 0 < report.wake_in_s <= 30
    rig.cluster.drain()
    again = await rig.run(config("a"))
    assert rig.cluster.drain() == []
    assert set(again.failures) == {A}
    await asyncio.sleep(report.wake_in_s + 1)
    report = await rig.run(config("a"))
    assert report.complete
    assert report.failures == {}


async def test_failures_back_off(rig: Rig) -> None:
    """A failure that may pass is retried after about 1, 2, 4 ... and at most 30 s; the first is a note, once."""
    rig.cluster.refuse("apply", A, *[ServerFailure("away", status=500) for _ in range(8)])
    pauses, notes = [], 0
    for _ in range(8):
        report = await rig.run(config("a"))
        notes += len(report.notes)
        assert report.wake_in_s is not None
        pauses.append(report.wake_in_s)
        await asyncio.sleep(report.wake_in_s + 0.01)
    assert pauses[0] < 1.3
    assert pauses[0] < pauses[2] < pauses[4]
    assert max(pauses) <= 36
    assert notes == 1
    assert (await rig.run(config("a"))).complete


async def test_a_new_digest_is_tried_at_once(rig: Rig) -> None:
    """What failed is not held back when Git offers another version of it."""
    rig.cluster.refuse("apply", A, BAD)
    await rig.run(config("a", k="1"))
    report = await rig.run(config("a", k="2"), release=2)
    assert report.complete


async def test_nothing_is_pruned_after_a_failure(rig: Rig) -> None:
    """While a desired object cannot be applied, what left Git stays, unless a person insists."""
    await rig.run(config("a"))
    rig.cluster.refuse("apply", B, BAD)
    report = await rig.run(config("b"), release=2)
    assert report.pruned == 0
    assert A in rig.cluster.objects
    assert says(report)["ConfigMap/a"] == "prune NotInGit"
    report = await rig.run(config("b"), release=2, prune_now=True)
    assert report.pruned == 1


async def test_nothing_is_pruned_after_a_failed_repair(rig: Rig) -> None:
    """A repair that fails is a failed apply, too."""
    await rig.run(config("a"), config("b", k="1"))
    rig.cluster.edit(B, **{"data/k": "x"})
    rig.cluster.refuse("apply", B, BAD)
    report = await rig.run(config("b", k="1"), release=2)
    assert report.pruned == 0
    assert A in rig.cluster.objects


async def test_nothing_is_pruned_while_an_object_is_refused(rig: Rig) -> None:
    """When an object cannot be taken over, what left Git with the same commit stays."""
    await rig.run(config("a"))
    rig.cluster.seed(config("b"))
    report = await rig.run(config("b"), release=2, policy=Policy(adopt=Adopt.NEVER))
    assert report.pruned == 0
    assert A in rig.cluster.objects


async def test_nothing_is_pruned_without_a_full_view(rig: Rig) -> None:
    """A kind whose watch is broken makes the view incomplete: absence proves nothing."""
    await rig.run(config("a"), deployment())
    rig.live.unsync(A.group_kind)
    rig.cluster.remove(A)
    report = await rig.run(config("a"), release=2)
    assert says(report)["ConfigMap/a"] == "skip NotObserved"
    assert report.pruned == 0
    assert not report.complete


async def test_nothing_is_pruned_while_other_apps_have_news(rig: Rig) -> None:
    """What this app lost may be what another one is about to gain: it is asked again soon."""
    await rig.run(config("a"), config("b"))
    report = await rig.run(config("b"), release=2, prune_later=True)
    assert (report.pruned, report.complete) == (0, False)
    assert report.wake_in_s is not None
    assert report.wake_in_s < 1
    report = await rig.run(config("b"), release=2)
    assert (report.pruned, report.complete) == (1, True)


async def test_prune_spares_what_is_not_ours(rig: Rig) -> None:
    """An object that was replaced by somebody, or is held by a controller, is not deleted."""
    await rig.run(config("a"), config("b"))
    rig.cluster.objects[B].owner = "Thing/owner"
    rig.cluster.edit(B, "someone", **{"data/x": "y"})
    rig.cluster.objects[A].managers = [m for m in rig.cluster.objects[A].managers if m.name != "fleet"]
    rig.cluster.edit(A, "someone", **{"data/x": "y"})
    report = await rig.run(release=2)
    assert {A, B} <= rig.cluster.objects.keys()
    assert report.complete
    assert rig.ledger.rows[rig.target().id] == {}


async def test_prune_names_the_uid(rig: Rig) -> None:
    """An object that was replaced between plan and delete survives."""
    await rig.run(config("a"))
    rig.lag = True
    rig.cluster.remove(A)
    rig.cluster.seed(config("a", other="1"))
    report = await rig.run(release=2)
    assert A in rig.cluster.objects
    assert report.pruned == 0
    rig.deliver()
    await asyncio.sleep(60)
    report = await rig.run(release=2)
    assert A in rig.cluster.objects
    assert report.complete


async def test_data_is_orphaned_never_deleted(rig: Rig) -> None:
    """Namespaces, definitions, volumes and claims lose our labels and their ledger row, and stay."""
    bodies = [
        plain("v1", "Namespace", "extra"),
        plain("v1", "PersistentVolume", "pv", spec={"x": 1}),
        plain("v1", "PersistentVolumeClaim", "pvc", spec={"x": 1}),
        annotated(config("kept"), **{"fleet/prune": "disabled"}),
    ]
    await rig.run(*bodies)
    report = await rig.run(release=2)
    assert report.complete
    assert {note.reason for note in report.notes} == {"Orphaned"}
    for body in bodies:
        assert "labels" not in rig.cluster.body(key_of(body))["metadata"]
    assert rig.ledger.rows[rig.target().id] == {}
    assert ("delete", key_of(bodies[0])) not in rig.cluster.calls


async def test_a_deletion_that_hangs_is_waited_for(rig: Rig) -> None:
    """A pruned object with finalizers is Terminating, not deleted again, and forgotten when it is gone."""
    await rig.run(config("a"))
    rig.cluster.hold_deletions = True
    report = await rig.run(release=2)
    assert (report.pruned, report.complete) == (0, False)
    rig.cluster.drain()
    report = await rig.run(release=2)
    assert says(report) == {"ConfigMap/a": "skip Terminating"}
    assert rig.cluster.drain() == []
    rig.cluster.finish_deletion(A)
    report = await rig.run(release=2)
    assert report.complete
    assert rig.ledger.rows[rig.target().id] == {}
    assert rig.live.drift(A) is None


async def test_a_terminating_object_is_not_written(rig: Rig) -> None:
    """Somebody deletes an object that has finalizers: it is written again only when it is gone."""
    await rig.run(config("a", k="1"))
    stored = rig.cluster.objects[A]
    rig.cluster.hold_deletions = True
    await rig.cluster.delete(A, stored.uid, priority=0)  # type: ignore[arg-type]
    rig.cluster.drain()
    report = await rig.run(config("a", k="2"), release=2)
    assert says(report) == {"ConfigMap/a": "skip Terminating"}
    assert rig.cluster.drain() == []
    assert rig.summary(report).waiting is not None
    rig.cluster.finish_deletion(A)
    assert (await rig.run(config("a", k="2"), release=2)).complete


async def test_a_foreign_terminating_object_is_waited_for(rig: Rig) -> None:
    """An object of somebody else that is being deleted is neither adopted nor written; it is looked up again soon."""
    rig.cluster.seed(config("a"), deleting=True)
    report = await rig.run(config("a"))
    assert says(report) == {"ConfigMap/a": "skip Terminating"}
    assert report.wake_in_s is not None
    rig.cluster.remove(A)
    await asyncio.sleep(report.wake_in_s)
    assert (await rig.run(config("a"))).complete


async def test_a_missing_namespace_is_waited_for(rig: Rig) -> None:
    """The object waits on that namespace by name, which is no failure, and is written when it comes."""
    body = {**config("a"), "metadata": {"name": "a", "namespace": "late"}}
    report = await rig.run(body)
    late = ObjectKey("", "Namespace", "", "late")
    assert report.waits_for == {late}
    summary = rig.summary(report)
    assert summary.failed is None
    assert summary.waiting is not None
    rig.cluster.seed(plain("v1", "Namespace", "late"))
    rig.target().retry_now()
    assert (await rig.run(body)).complete


async def test_an_existing_object_is_adopted_with_what_people_set(rig: Rig) -> None:
    """An unowned object is taken: Git's fields are set, everything else stays for good and is no drift."""
    rig.cluster.seed(config("a", k="old", theirs="1"))
    report = await rig.run(config("a", k="1"))
    assert [note.kind for note in report.notes] == ["adopt"]
    assert report.complete
    assert rig.cluster.value(A, "data/k") == "1"
    assert rig.cluster.value(A, "data/theirs") == "1"
    assert rig.cluster.owners(A, "data/theirs") == ["fleet-preexisting"]
    await rig.run(config("a", k="2"), release=2)
    assert rig.cluster.value(A, "data/theirs") == "1"


async def test_adopt_exact_leaves_only_what_git_says(rig: Rig) -> None:
    """With `adopt: exact` what people had set before goes."""
    rig.cluster.seed(config("a", k="old", theirs="1"))
    await rig.run(config("a", k="1"), policy=Policy(adopt=Adopt.EXACT))
    assert rig.cluster.value(A, "data/theirs") is None
    assert rig.cluster.value(A, "data/k") == "1"


@pytest.mark.parametrize(
    ("body", "more", "policy", "allowed"),
    [
        (config("a"), {}, Policy(), True),
        (config("a"), {}, Policy(adopt=Adopt.NEVER), False),
        (config("a"), {"owner": "Thing/x"}, Policy(), False),
        (config("a"), {"owner": "Thing/x"}, Policy(adopt=Adopt.ALWAYS), True),
        (annotated(config("a"), **{"argocd.argoproj.io/tracking-id": "x"}), {}, Policy(), False),
    ],
)
async def test_who_may_be_adopted(
    rig: Rig, body: dict[str, Any], more: dict[str, Any], policy: Policy, *, allowed: bool
) -> None:
    """Another tool's mark or a controller refuses; `always` takes all the same; a refusal is a failure that heals."""
    rig.cluster.seed(body, **more)
    report = await rig.run(config("a", k="1"), policy=policy)
    assert (rig.cluster.value(A, "data/k") == "1") is allowed
    if not allowed:
        assert change_of(report, A).reason == "OwnedElsewhere"
        assert rig.summary(report).failed is not None
        assert report.wake_in_s is not None
        rig.cluster.remove(A)
        await asyncio.sleep(report.wake_in_s)
        assert (await rig.run(config("a", k="1"), policy=policy)).complete


async def test_if_not_present_only_creates(rig: Rig) -> None:
    """An object that is only created is left as it is, at no cost, and is as healthy as one can say."""
    body = annotated(config("a", k="1"), **{"fleet/ssa": "if-not-present"})
    rig.cluster.seed(config("a", k="mine"))
    report = await rig.run(body)
    assert says(report) == {"ConfigMap/a": "unchanged IfNotPresent"}
    assert report.complete
    assert rig.summary(report).done
    rig.cluster.drain()
    await rig.run(body)
    assert rig.cluster.drain() == []
    assert rig.cluster.value(A, "data/k") == "mine"


async def test_merge_keeps_additions(rig: Rig) -> None:
    """With `fleet/ssa: merge` what others add stays, also through a new release."""
    body = annotated(config("a", k="1"), **{"fleet/ssa": "merge"})
    await rig.run(body)
    rig.cluster.edit(A, **{"data/added": "x"})
    assert (await rig.run(body)).written == 0
    await rig.run(annotated(config("a", k="2"), **{"fleet/ssa": "merge"}), release=2)
    assert rig.cluster.value(A, "data/added") == "x"


async def test_drift_report_leaves_drift(rig: Rig) -> None:
    """With `drift: report` drift is shown and left, but a new release is applied."""
    policy = Policy(repair=False)
    await rig.run(config("a", k="1"), config("b"), policy=policy)
    rig.cluster.edit(A, **{"data/k": "x"})
    rig.cluster.remove(B)
    report = await rig.run(config("a", k="1"), config("b"), policy=policy)
    assert says(report) == {"ConfigMap/a": "skip Drifted", "ConfigMap/b": "skip Deleted"}
    summary = rig.summary(report)
    assert summary.drifted is not None
    assert summary.drifted_count == 2
    report = await rig.run(config("a", k="2"), config("b", k="2"), release=2, policy=policy)
    assert report.complete
    assert rig.cluster.value(A, "data/k") == rig.cluster.value(B, "data/k") == "2"


async def test_an_object_moves_between_apps(rig: Rig) -> None:
    """An object that leaves one app and enters another is handed over: the row moves, the labels change, no delete."""
    await rig.run(config("a", k="1"), app="old")
    uid = rig.cluster.objects[A].uid
    rig.wishes[TargetId(CLUSTER, "old")] = ()
    report = await rig.run(config("a", k="1"), app="new")
    assert report.complete
    assert rig.cluster.objects[A].uid == uid
    live = rig.live.get(A)
    assert live is not None
    assert live.part_of == rig.target("new").part_of
    assert (await rig.run(app="old", release=2)).pruned == 0
    assert A in rig.cluster.objects
    assert set(rig.ledger.rows[TargetId(CLUSTER, "new")]) == {A}


async def test_a_move_does_not_hide_what_was_there(rig: Rig) -> None:
    """A run that takes one object over still asks whether it may take another that existed before."""
    await rig.run(config("a"), app="old")
    rig.wishes[TargetId(CLUSTER, "old")] = ()
    rig.cluster.seed(config("b", k="theirs"))
    report = await rig.run(config("a"), config("b", k="1"), app="new", policy=Policy(adopt=Adopt.NEVER))
    assert rig.cluster.value(B, "data/k") == "theirs"
    assert change_of(report, B).reason == "OwnedElsewhere"


async def test_what_another_app_desires_is_not_pruned(rig: Rig) -> None:
    """The app that lets an object go leaves it to the one that desires it, even before that one has run."""
    await rig.run(config("a"), app="old")
    rig.wish("new", config("a"))
    report = await rig.run(app="old", release=2)
    assert A in rig.cluster.objects
    assert report.pruned == 0
    assert report.complete
    assert (await rig.run(config("a"), app="new")).complete


async def test_the_holder_keeps_a_duplicate(rig: Rig) -> None:
    """Two apps render one object: the one that holds it keeps it; only that object fails for the other, naming both."""
    await rig.run(config("a", k="1"), app="first")
    report = await rig.run(config("a", k="2"), config("b"), app="second")
    change = change_of(report, A)
    assert change.reason == "Duplicate"
    assert "first already holds" in change.message
    assert change.message.endswith("only one of them may")
    assert rig.cluster.value(A, "data/k") == "1"
    assert B in rig.cluster.objects
    assert report.wake_in_s is not None


async def test_immutable_fields_need_force(rig: Rig) -> None:
    """Without `fleet/force` the change fails; with it the object is recreated."""
    body = plain("v1", "Service", "s", spec={"clusterIP": "10.0.0.1"})
    changed = plain("v1", "Service", "s", spec={"clusterIP": "10.0.0.2"})
    await rig.run(body)
    report = await rig.run(changed, release=2)
    assert [error.reason for error in report.failures.values()] == ["ImmutableField"]
    report = await rig.run(annotated(changed, **{"fleet/force": "enabled"}), release=3)
    assert report.complete
    assert rig.cluster.value(key_of(body), "spec/clusterIP") == "10.0.0.2"


async def test_a_recreation_does_not_hold_the_run(rig: Rig) -> None:
    """While the old Job is being deleted the target waits for its end, and goes on with everything else."""
    key = key_of(job())
    await rig.run(job(), config("a"))
    rig.cluster.hold_deletions = True
    report = await rig.run(job(image="m:2"), config("a", k="1"), release=2)
    assert says(report) == {"ConfigMap/a": "unchanged InSync", "Job/migrate": "skip Terminating"}
    assert report.written == 1
    assert rig.summary(report).waiting is not None
    rig.cluster.drain()
    await rig.run(job(image="m:2"), config("a", k="1"), release=2)
    assert rig.cluster.drain() == []
    rig.cluster.finish_deletion(key)
    rig.cluster.hold_deletions = False
    report = await rig.run(job(image="m:2"), config("a", k="1"), release=2)
    assert report.complete
    assert report.notes == ()
    assert [call for call in rig.cluster.drain() if call[1] == key] == [("apply", key)]


async def test_a_foreign_object_is_recreated_by_force(rig: Rig) -> None:
    """An object of somebody else that no watch shows is looked at again until it is gone."""
    body = plain("v1", "Service", "s", spec={"clusterIP": "1"})
    forced = annotated(plain("v1", "Service", "s", spec={"clusterIP": "2"}), **{"fleet/force": "enabled"})
    rig.cluster.seed(body)
    rig.cluster.hold_deletions = True
    report = await rig.run(forced)
    assert report.wake_in_s is not None
    report = await rig.run(forced)
    assert says(report) == {"Service/s": "skip Terminating"}
    assert report.wake_in_s is not None
    rig.cluster.finish_deletion(key_of(body))
    report = await rig.run(forced)
    assert report.complete
    assert rig.cluster.value(key_of(body), "spec/clusterIP") == "2"


async def test_a_foreign_job_is_not_deleted(rig: Rig) -> None:
    """A Job that existed before is never deleted to make room for ours, unless force says so."""
    rig.cluster.seed(job(image="theirs:1"))
    uid = rig.cluster.objects[key_of(job())].uid
    report = await rig.run(job())
    assert [error.reason for error in report.failures.values()] == ["ImmutableField"]
    assert rig.cluster.objects[key_of(job())].uid == uid


async def test_a_look_up_that_is_refused_fails_its_object(rig: Rig) -> None:
    """Without leave to read one kind, only its objects fail, and they are not created blindly."""
    secret = plain("v1", "Secret", "s")
    rig.cluster.refuse("get", key_of(secret), Forbidden("no", status=403))
    report = await rig.run(secret, config("a"))
    assert A in rig.cluster.objects
    assert key_of(secret) not in rig.cluster.objects
    assert set(report.failures) == {key_of(secret)}
    assert rig.summary(report).failed is not None
    await asyncio.sleep(60)
    assert (await rig.run(secret, config("a"))).complete


@pytest.mark.parametrize("error", [Unauthorized("who", status=401), ServerFailure("away", status=503)])
async def test_a_cluster_that_fails_ends_the_run(rig: Rig, error: KubeError) -> None:
    """When look-ups fail because the cluster does, the run fails as a whole and writes nothing."""
    rig.cluster.refuse("get", A, error)
    with pytest.raises(type(error)):
        await rig.run(config("a"), config("b"))
    assert [verb for verb, _ in rig.cluster.drain() if verb == "apply"] == []


async def test_refused_kinds_and_namespaces(rig: Rig) -> None:
    """What the App's `allow` does not cover is never asked for."""
    policy = Policy(allow_namespaces=("team-*",), allow_cluster_scoped=False)
    report = await rig.run(config("a"), plain("rbac.authorization.k8s.io/v1", "ClusterRole", "r"), policy=policy)
    assert set(says(report).values()) == {"skip NotAllowed"}
    assert [verb for verb, _ in rig.cluster.drain() if verb == "apply"] == []
    assert rig.summary(report).failed_count == 2


async def test_a_kind_that_went_away_is_forgotten(rig: Rig) -> None:
    """When a definition was deleted its objects went with it: nothing waits for them, and other prunes go on."""
    widget = plain("example.com/v1", "Widget", "w", spec={"size": 1})
    rig.cluster.serve(GroupKind("example.com", "Widget"))
    await rig.run(widget, config("a"))
    rig.cluster.unserve(GroupKind("example.com", "Widget"))
    rig.live.forget_kind(GroupKind("example.com", "Widget"))
    report = await rig.run(release=2)
    assert report.complete
    assert A not in rig.cluster.objects


async def test_a_crash_between_intent_and_result(rig: Rig) -> None:
    """What was intended before a crash is looked up again: what people had set before still counts as theirs."""
    rig.cluster.seed(config("a", k="old", theirs="1"))
    await rig.ledger.intend(rig.target().id, [A], rig.around.lease)
    again = rig.restarted()
    report = await again.run(config("a", k="1"))
    assert report.complete
    assert rig.cluster.value(A, "data/theirs") == "1"
    assert rig.cluster.owners(A, "data/theirs") == ["fleet-preexisting"]
    await again.run(config("a", k="2"), release=2)
    assert rig.cluster.value(A, "data/theirs") == "1"


async def test_an_unknown_outcome_is_pruned_too(rig: Rig) -> None:
    """An object whose creation timed out but happened is pruned when Git drops it."""
    apply = rig.cluster.apply

    async def timed_out(m: Any, **options: Any) -> Any:
        await apply(m, **options)
        if m.key == A:
            raise ServerFailure("timeout", status=504, reason="Timeout")

    rig.cluster.apply = timed_out  # type: ignore[method-assign]
    await rig.run(config("a"))
    rig.cluster.apply = apply  # type: ignore[method-assign]
    report = await rig.run(release=2)
    assert A not in rig.cluster.objects
    assert report.complete
