"""One target's run on a cluster that behaves: install, rest, configure, prune, restart."""

from dataclasses import replace

import pytest

from fleet.errors import ServerFailure
from fleet.object import GroupKind, ObjectKey
from fleet.reconcile.applyset import parent_key, set_id
from fleet.reconcile.health import Health
from fleet.reconcile.port import Policy
from tests.harness.cluster import FakeCluster
from tests.harness.reconcile import (
    HUB_ID,
    Rig,
    annotated,
    change_of,
    config,
    definition,
    deployment,
    job,
    key_of,
    plain,
    says,
)

A, B = key_of(config("a")), key_of(config("b"))
WEB = key_of(deployment())


async def test_install_creates_everything_with_our_marks(rig: Rig) -> None:
    """Every object is created with the labels of its hub and set, and the ledger knows each."""
    report = await rig.run(config("a", k="1"), deployment())
    assert says(report) == {"ConfigMap/a": "unchanged InSync", "Deployment/web": "unchanged InSync"}
    assert (report.written, report.pruned, report.complete) == (2, 0, True)
    labels = rig.cluster.body(A)["metadata"]["labels"]
    target = rig.target().id
    assert labels == {"applyset.kubernetes.io/part-of": set_id(target), "fleet/hub": HUB_ID}
    assert set(rig.ledger.rows[target]) == {A, WEB}
    assert rig.around.owners == {A: target, WEB: target}


async def test_a_run_without_news_asks_for_nothing(rig: Rig) -> None:
    """Unchanged, undrifted objects cost no request and no ledger write."""
    await rig.run(config("a", k="1"), deployment())
    rig.cluster.drain()
    writes = rig.ledger.writes
    report = await rig.run(config("a", k="1"), deployment())
    assert rig.cluster.drain() == []
    assert rig.ledger.writes == writes
    assert report.complete
    assert report.wake_in_s is None


async def test_only_what_changed_is_written(rig: Rig) -> None:
    """A new release that changes one of three objects is one request."""
    await rig.run(config("a", k="1"), config("b"), deployment())
    rig.cluster.drain()
    report = await rig.run(config("a", k="2"), config("b"), deployment(), release=2)
    assert rig.cluster.drain() == [("apply", A)]
    assert rig.cluster.value(A, "data/k") == "2"
    assert report.complete


async def test_a_restart_writes_nothing(rig: Rig) -> None:
    """A new process with the same database sees that everything is as it left it."""
    await rig.run(config("a", k="1"), deployment())
    rig.cluster.drain()
    again = rig.restarted()
    report = await again.run(config("a", k="1"), deployment())
    assert rig.cluster.drain() == []
    assert report.complete


async def test_what_leaves_git_is_pruned_last(rig: Rig) -> None:
    """Pruning comes after everything desired was applied, workloads before what they read."""
    await rig.run(config("a"), deployment(), plain("v1", "ServiceAccount", "sa"))
    rig.cluster.drain()
    report = await rig.run(config("b"), release=2)
    deletes = [(verb, key) for verb, key in rig.cluster.drain() if verb in ("apply", "delete")]
    kinds = [(verb, key.kind) for verb, key in deletes if key.name != "fleet-app-app"]
    assert kinds == [
        ("apply", "ConfigMap"),
        ("delete", "Deployment"),
        ("delete", "ConfigMap"),
        ("delete", "ServiceAccount"),
    ]
    assert (report.pruned, report.complete) == (3, True)
    assert A not in rig.cluster.objects
    assert set(rig.ledger.rows[rig.target().id]) == {B}


async def test_drift_by_hand_is_repaired_and_told(rig: Rig) -> None:
    """A value that Git sets is set back; the note names the field and who had changed it."""
    await rig.run(config("a", k="1"))
    rig.cluster.edit(A, **{"data/k": "evil"})
    report = await rig.run(config("a", k="1"))
    assert rig.cluster.value(A, "data/k") == "1"
    assert [note.kind for note in report.notes] == ["drift"]
    assert ".data.k changed by kubectl-edit" in report.notes[0].message
    assert rig.live.drift(A) is None
    rig.cluster.drain()
    assert (await rig.run(config("a", k="1"))).complete
    assert rig.cluster.drain() == []


async def test_a_field_added_by_hand_is_removed(rig: Rig) -> None:
    """What a drift manager adds after our first apply goes; what other controllers add stays."""
    await rig.run(config("a", k="1"))
    rig.cluster.edit(A, "some-controller", **{"data/theirs": "x"})
    rig.cluster.edit(A, **{"data/added": "x"})
    report = await rig.run(config("a", k="1"))
    assert rig.cluster.value(A, "data/added") is None
    assert rig.cluster.value(A, "data/theirs") == "x"
    assert ".data.added added by kubectl-edit" in report.notes[0].message
    assert report.complete


async def test_a_deleted_object_comes_back(rig: Rig) -> None:
    """A deletion by hand is drift."""
    await rig.run(config("a", k="1"))
    rig.cluster.remove(A)
    report = await rig.run(config("a", k="1"))
    assert rig.cluster.value(A, "data/k") == "1"
    assert report.notes[0].reason == "Deleted"
    assert rig.live.drift(A) is None


async def test_our_label_taken_off_is_repaired(rig: Rig) -> None:
    """An object that lost our label leaves the watch and is brought back into it, as it is."""
    await rig.run(deployment())
    rig.cluster.scale(WEB, "kube-controller-manager", 7)
    await rig.settle(deployment())
    rig.cluster.unlabel(WEB, "fleet/hub")
    report = await rig.run(deployment())
    assert rig.cluster.body(WEB)["metadata"]["labels"]["fleet/hub"] == HUB_ID
    assert rig.cluster.value(WEB, "spec/replicas") == 7
    assert report.written == 1


async def test_many_new_objects_are_looked_up_by_one_list(rig: Rig) -> None:
    """Above five new objects of a kind and namespace, one LIST replaces the look-ups by name."""
    bodies = [config(f"c{n}") for n in range(6)]
    await rig.run(*bodies)
    verbs = [verb for verb, key in rig.cluster.drain() if key.namespace == "shop"]
    assert verbs.count("list") == 1
    assert verbs.count("get") == 0
    assert verbs.count("apply") == 6


async def test_the_parent_knows_kinds_and_namespaces(rig: Rig) -> None:
    """The ApplySet parent is written before new kinds, not for new objects, and shrinks after a prune."""
    parent = parent_key(rig.target().id)
    await rig.run(config("a"))
    assert rig.cluster.calls.index(("apply", parent)) < rig.cluster.calls.index(("apply", A))
    rig.cluster.drain()
    await rig.run(config("a"), config("b"), release=2)
    assert ("apply", parent) not in rig.cluster.drain()
    await rig.run(config("a"), deployment(), release=3)
    kinds = "applyset.kubernetes.io/contains-group-kinds"
    assert rig.cluster.body(parent)["metadata"]["annotations"][kinds] == "ConfigMap,Deployment.apps"
    await rig.run(config("a"), release=4)
    assert rig.cluster.body(parent)["metadata"]["annotations"][kinds] == "ConfigMap"


async def test_a_tenant_does_not_write_the_parent(rig: Rig) -> None:
    """An App that impersonates somebody writes its objects as that one, and its parent as the hub."""
    tenant = FakeCluster()
    rig.around = replace(rig.around, api=lambda _: tenant, system=rig.cluster)
    await rig.run(config("a"))
    parent = parent_key(rig.target().id)
    assert A in tenant.objects
    assert parent not in tenant.objects
    assert parent in rig.cluster.objects
    assert A not in rig.cluster.objects


async def test_a_repair_after_a_restart_is_one_request(rig: Rig) -> None:
    """The parent is not read for objects that it covers already."""
    await rig.run(config("a", k="1"))
    again = rig.restarted()
    await again.run(config("a", k="1"))
    rig.cluster.edit(A, **{"data/k": "2"})
    rig.cluster.drain()
    await again.run(config("a", k="1"))
    assert rig.cluster.drain() == [("apply", A)]


async def test_a_failed_parent_is_written_at_the_next_run(rig: Rig) -> None:
    """A parent that could not be written is not taken for written."""
    parent = parent_key(rig.target().id)
    rig.cluster.refuse("apply", parent, ServerFailure("etcd is away", status=500))
    with pytest.raises(ServerFailure):
        await rig.run(config("a"))
    assert A not in rig.cluster.objects
    await rig.run(config("a"))
    assert parent in rig.cluster.objects
    assert A in rig.cluster.objects


async def test_a_removed_target_leaves_nothing(rig: Rig) -> None:
    """Everything it applied goes, and its parent last, also when the hub was restarted meanwhile."""
    await rig.run(config("a"), deployment())
    again = rig.restarted()
    again.watch([A.group_kind, WEB.group_kind])
    report = await again.run(removed=True)
    assert (report.pruned, report.complete) == (2, True)
    assert {A, WEB, parent_key(rig.target().id)}.isdisjoint(rig.cluster.objects)
    rig.cluster.drain()
    await again.run(removed=True)
    assert [verb for verb, _ in rig.cluster.drain() if verb != "get"] == []


async def test_on_remove_orphan_leaves_the_objects(rig: Rig) -> None:
    """With onRemove: orphan the objects stay and lose our labels."""
    policy = Policy(on_remove_prune=False)
    await rig.run(config("a", k="1"), policy=policy)
    report = await rig.run(removed=True, policy=policy)
    assert report.complete
    assert rig.cluster.value(A, "data/k") == "1"
    assert "labels" not in rig.cluster.body(A)["metadata"]
    assert rig.ledger.rows[rig.target().id] == {}


async def test_report_only_writes_nothing(rig: Rig) -> None:
    """Without leave to write, a run plans, tells and touches nothing."""
    report = await rig.run(config("a"), writable=False)
    assert says(report) == {"ConfigMap/a": "create Absent"}
    assert not report.complete
    assert [verb for verb, _ in rig.cluster.drain()] == ["get"]
    assert rig.ledger.rows == {}
    plan = await rig.target().plan_only(report.order)
    assert [c.reason for c in plan.changes] == ["Absent"]


async def test_a_definition_and_its_objects_in_one_commit(rig: Rig) -> None:
    """The definition is written first; its objects follow in the same run, once the kind is served."""
    widget = plain("example.com/v1", "Widget", "w", spec={"size": 1})
    report = await rig.run(definition(), widget)
    assert report.complete, says(report)
    key = ObjectKey("example.com", "Widget", "shop", "w")
    assert rig.cluster.value(key, "spec/size") == 1
    order = [k.kind for verb, k in rig.cluster.calls if verb == "apply"]
    assert order.index("CustomResourceDefinition") < order.index("Widget")


async def test_an_object_of_a_missing_kind_waits(rig: Rig) -> None:
    """A custom resource of another app's kind waits for that definition, named, and is applied when it is there."""
    widget = plain("example.com/v1", "Widget", "w", spec={"size": 1})
    report = await rig.run(widget, config("a"))
    assert says(report) == {"ConfigMap/a": "unchanged InSync", "Widget/w": "skip MissingKind"}
    assert {key.name for key in report.waits_for} == {"Widget.example.com"}
    assert rig.summary(report).waiting is not None
    assert rig.summary(report).failed is None
    rig.cluster.serve(GroupKind("example.com", "Widget"))
    assert (await rig.run(widget, config("a"))).complete


async def test_an_object_without_a_namespace_gets_the_apps(rig: Rig) -> None:
    """A custom resource that names no namespace is placed once discovery knows its scope."""
    widget = plain("example.com/v1", "Widget", "w", spec={"size": 1})
    del widget["metadata"]["namespace"]
    rig.cluster.serve(GroupKind("example.com", "Widget"))
    report = await rig.run(widget, policy=Policy(namespace="shop"))
    assert [change.key.namespace for change in report.changes] == ["shop"]
    assert report.complete


async def test_health_is_of_what_was_applied(rig: Rig) -> None:
    """A status counts only when the watch has shown our write; then it says whether the target is done."""
    rig.lag = True
    report = await rig.run(deployment())
    assert report.complete
    assert rig.summary(report).progressing is not None
    rig.deliver()
    assert not rig.summary(report).done
    conditions = [
        {"type": "Available", "status": "True"},
        {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
    ]
    numbers = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 2)
    rig.cluster.set_status(WEB, observedGeneration=1, conditions=conditions, **numbers)
    assert rig.summary(report).done
    live = rig.live.get(WEB)
    assert live is not None
    assert live.verdict is not None
    assert live.verdict.health is Health.CURRENT


async def test_a_finished_job_is_not_run_again(rig: Rig) -> None:
    """A Job seen done and then removed by its TTL stays gone until its manifest changes."""
    key = key_of(job())
    await rig.run(job())
    rig.cluster.set_status(key, conditions=[{"type": "Complete", "status": "True"}], startTime="2026-01-01T00:00:00Z")
    rig.cluster.remove(key)
    rig.cluster.drain()
    report = await rig.run(job())
    assert says(report) == {"Job/migrate": "unchanged Finished"}
    assert rig.summary(report).done
    again = rig.restarted()
    assert says(await again.run(job())) == {"Job/migrate": "unchanged Finished"}
    assert rig.cluster.drain() == []
    report = await again.run(job(image="m:2"), release=2)
    assert key in rig.cluster.objects


async def test_a_deleted_unfinished_job_runs_again(rig: Rig) -> None:
    """A Job that was deleted before it ended, or only suspended, is drift."""
    key = key_of(job())
    suspended = {**job(), "spec": {**job()["spec"], "suspend": True}}
    await rig.run(suspended)
    rig.cluster.set_status(key, conditions=[{"type": "Suspended", "status": "True"}])
    await rig.run(suspended)
    rig.cluster.remove(key)
    await rig.run(suspended)
    assert key in rig.cluster.objects


async def test_a_changed_job_is_recreated_once(rig: Rig) -> None:
    """A changed template cannot be applied: the Job is deleted and created, once per digest."""
    key = key_of(job())
    await rig.run(job())
    first = rig.cluster.objects[key].uid
    rig.cluster.drain()
    report = await rig.run(job(image="m:2"), release=2)
    assert report.complete
    assert rig.cluster.objects[key].uid != first
    assert [v for v, k in rig.cluster.drain() if k == key] == ["apply", "get", "delete", "apply"]
    await rig.run(job(image="m:2"), release=2)
    assert rig.cluster.drain() == []


async def test_an_opted_out_object_is_left_alone(rig: Rig) -> None:
    """An annotation on the live object stops repairs; it is shown, with who set it."""
    await rig.run(config("a", k="1"))
    rig.cluster.annotate(A, "fleet/reconcile", "disabled")
    rig.cluster.edit(A, **{"data/k": "mine"})
    report = await rig.run(config("a", k="1"))
    assert rig.cluster.value(A, "data/k") == "mine"
    change = change_of(report, A)
    assert change.reason == "OptedOut"
    assert "kubectl-annotate" in change.message
    summary = rig.summary(report)
    assert summary.drifted is not None
    assert summary.drifted_count == 1


async def test_an_opt_out_without_drift_is_no_drift(rig: Rig) -> None:
    """An opted-out object that is as Git says is not drifted, and a missing one is nobody's concern."""
    await rig.run(config("a", k="1"))
    rig.cluster.annotate(A, "fleet/reconcile", "disabled")
    absent = annotated(config("b"), **{"fleet/reconcile": "disabled"})
    report = await rig.run(config("a", k="1"), absent)
    summary = rig.summary(report)
    assert summary.drifted is None
    assert summary.progressing is None
    assert summary.done
