"""Drift that others own, fight for, or put back; and a cluster that went back in time."""

import asyncio
import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from fleet.kube.api import Applied
from fleet.object import GroupKind, Manifest, ObjectKey, TargetId
from fleet.reconcile.port import IgnoreRule, Policy
from fleet.store.ledger import Entry, Lease
from tests.harness.reconcile import FakeLedger, Rig, change_of, config, deployment, key_of, plain, says

A = key_of(config("a"))
WEB = key_of(deployment())
HPA = "kube-controller-manager"
IGNORED = Policy(ignore=(IgnoreRule(kind="ConfigMap", paths=("/data/k", "/data/theirs")),))


async def test_replicas_are_yielded_to_an_autoscaler(rig: Rig) -> None:
    """Who writes the scale subresource owns replicas: no drift, and releases leave the number alone."""
    await rig.run(deployment(replicas=2))
    rig.cluster.scale(WEB, HPA, 5)
    report = await rig.run(deployment(replicas=2))
    assert report.written == 0
    assert report.notes == ()
    assert report.complete
    await rig.run(deployment(replicas=2, image="web:2"), release=2)
    assert rig.cluster.value(WEB, "spec/replicas") == 5
    assert (await rig.run(deployment(replicas=2, image="web:2"), release=2)).written == 0


async def test_other_drift_beside_an_autoscaler_is_seen(rig: Rig) -> None:
    """Yielding replicas hides nothing else."""
    await rig.run(deployment())
    rig.cluster.scale(WEB, HPA, 5)
    rig.cluster.edit(WEB, **{"spec/template/spec/containers/[web]/image": "evil"})
    report = await rig.run(deployment())
    assert report.written == 1
    assert rig.cluster.value(WEB, "spec/template/spec/containers/[web]/image") == "web:1"
    assert rig.cluster.value(WEB, "spec/replicas") == 5


async def test_a_person_who_scales_is_undone(rig: Rig) -> None:
    """`kubectl scale` is a drift manager's work."""
    await rig.run(deployment(replicas=2))
    rig.cluster.scale(WEB, "kubectl", 5)
    report = await rig.run(deployment(replicas=2))
    assert rig.cluster.value(WEB, "spec/replicas") == 2
    assert report.notes[0].kind == "drift"


async def test_ignored_paths_belong_to_others(rig: Rig) -> None:
    """An ignored path is sent at first and then left to whoever changes or adds it, without a word about drift."""
    body = config("a", k="1", j="1")
    await rig.run(body, policy=IGNORED)
    assert rig.cluster.value(A, "data/k") == "1"
    rig.cluster.edit(A, **{"data/k": "2", "data/theirs": "x"})
    report = await rig.run(body, policy=IGNORED)
    assert (report.written, report.notes) == (0, ())
    await rig.run(config("a", k="1", j="2"), policy=IGNORED, release=2)
    values = [rig.cluster.value(A, f"data/{name}") for name in ("k", "j", "theirs")]
    assert values == ["2", "2", "x"]
    rig.cluster.edit(A, **{"data/k": "3"})
    assert (await rig.run(config("a", k="1", j="2"), policy=IGNORED, release=2)).written == 0


async def test_an_ignored_path_only_we_hold_keeps_its_value(rig: Rig) -> None:
    """A path that nobody else holds is sent with its live value: dropping it would remove it."""
    await rig.run(config("a", k="1", j="1"), policy=IGNORED)
    await rig.run(config("a", k="9", j="2"), policy=IGNORED, release=2)
    assert rig.cluster.value(A, "data/k") == "1"


async def test_a_fight_is_spaced_out_and_named(rig: Rig) -> None:
    """The sixth taking by one controller in a row pauses the repairs: 10 s, then doubling; each pause ends in a repair."""
    await rig.run(config("a", k="1"))
    repaired_at = []
    loop = asyncio.get_running_loop()
    for _ in range(9):
        rig.cluster.edit(A, "rival", **{"data/k": "2"})
        report = await rig.run(config("a", k="1"))
        while report.written == 0:
            assert report.contested[A].manager == "rival"
            assert report.wake_in_s is not None
            summary = rig.summary(report)
            assert summary.drifted is not None
            assert summary.drifted.reason == "Contested"
            assert "rival" in summary.drifted.message
            await rig.run(config("a", k="1"))  # other news do not cut the pause short, nor count as a round
            await asyncio.sleep(report.wake_in_s)
            report = await rig.run(config("a", k="1"))
        repaired_at.append(loop.time())
    pauses = [round(b - a) for a, b in pairwise(repaired_at)]
    assert pauses == [0, 0, 0, 0, 10, 20, 40, 80]


async def test_a_fight_that_ended_is_forgotten(rig: Rig) -> None:
    """When the last repair holds, the target is in sync again, and after half an hour the count begins anew."""
    await rig.run(config("a", k="1"))
    for _ in range(6):
        rig.cluster.edit(A, "rival", **{"data/k": "2"})
        report = await rig.run(config("a", k="1"))
    assert report.contested
    await asyncio.sleep(report.wake_in_s or 0)
    report = await rig.run(config("a", k="1"))
    assert report.written == 1
    await asyncio.sleep(60)
    report = await rig.run(config("a", k="1"))
    assert not report.contested
    await asyncio.sleep(1900)
    rig.cluster.edit(A, "rival", **{"data/k": "2"})
    assert (await rig.run(config("a", k="1"))).written == 1


async def test_people_never_make_a_fight(rig: Rig) -> None:
    """Somebody who edits again and again is undone each time."""
    await rig.run(config("a", k="1"))
    for n in range(8):
        rig.cluster.edit(A, **{"data/k": f"x{n}"})
        report = await rig.run(config("a", k="1"))
        assert report.written == 1
    assert not report.contested


async def test_a_bystander_is_no_rival(rig: Rig) -> None:
    """A controller that adds fields of its own is not taken for the one that a person's edits come from."""
    await rig.run(config("a", k="1"))
    for n in range(8):
        rig.cluster.edit(A, "some-controller", **{f"data/note{n}": "x"})
        rig.cluster.edit(A, **{"data/k": f"x{n}"})
        report = await rig.run(config("a", k="1"))
        assert report.written == 1
        assert "some-controller" not in report.notes[0].message
    assert not report.contested


async def test_a_fast_rival_is_noticed(rig: Rig) -> None:
    """A controller that answers before we have read the reply to our repair is counted all the same."""
    await rig.run(config("a", k="1"))
    apply = rig.cluster.apply

    async def answered(m: Manifest, **options: Any) -> Applied:
        applied = await apply(m, **options)
        if m.key == A:
            rig.cluster.edit(A, "rival", **{"data/k": "2"})
        return applied

    rig.cluster.apply = answered  # type: ignore[method-assign]
    rig.cluster.edit(A, "rival", **{"data/k": "2"})
    for _ in range(6):
        report = await rig.run(config("a", k="1"))
    assert report.contested[A].manager == "rival"


async def test_who_deletes_again_and_again_makes_a_fight(rig: Rig) -> None:
    """Deletions count whoever makes them."""
    await rig.run(config("a"))
    for _ in range(5):
        rig.cluster.remove(A)
        assert (await rig.run(config("a"))).written == 1
    rig.cluster.remove(A)
    report = await rig.run(config("a"))
    assert A in report.contested
    assert A not in rig.cluster.objects


async def test_a_release_notes_no_drift(rig: Rig) -> None:
    """A field that a release takes away is no drift, whichever way its news come."""
    await rig.run(config("a", k="1", gone="1"))
    await rig.run(config("a", k="1"), release=2)
    assert rig.live.drift(A) is None
    assert rig.cluster.value(A, "data/gone") is None


async def test_a_cluster_restored_from_a_backup_is_repaired(rig: Rig) -> None:
    """An object older than what we wrote, in a complete view, is applied again."""
    await rig.run(config("a", k="1"))
    stored = rig.cluster.objects[A]
    old = copy.deepcopy(stored)
    await rig.run(config("a", k="2"), release=2)
    old.rv = stored.rv
    rig.cluster.objects[A] = old
    await asyncio.sleep(20)
    rig.relist(GroupKind("", "ConfigMap"))
    report = await rig.run(config("a", k="2"), release=2)
    assert rig.cluster.value(A, "data/k") == "2"
    assert report.complete
    assert (await rig.run(config("a", k="2"), release=2)).written == 0


async def test_late_news_of_a_recreated_object(rig: Rig) -> None:
    """What a watch still tells of the object that was there before changes nothing about the new one."""
    service = plain("v1", "Service", "s", spec={"clusterIP": "1"}, metadata={})
    service["metadata"] = {"name": "s", "namespace": "shop", "annotations": {"fleet/force": "enabled"}}
    key = key_of(service)
    await rig.run(service)
    rig.lag = True
    await rig.run({**service, "spec": {"clusterIP": "2"}}, release=2)
    uid = rig.cluster.objects[key].uid
    rig.deliver()
    live = rig.live.get(key)
    assert live is not None
    assert live.uid == uid
    rig.cluster.drain()
    report = await rig.run({**service, "spec": {"clusterIP": "2"}}, release=2)
    assert rig.cluster.drain() == []
    assert says(report) == {"Service/s": "unchanged InSync"}
    assert change_of(report, key).entry is not None


async def test_a_changed_schema_applies_once_more(rig: Rig) -> None:
    """A definition that changed marks its objects for one apply, which is not drift."""
    await rig.run(config("a"), config("b"))
    rig.target().schema_changed.add(A.group_kind)
    report = await rig.run(config("a"), config("b"))
    assert report.written == 2
    assert report.notes == ()
    assert (await rig.run(config("a"), config("b"))).written == 0


class EventfulLedger(FakeLedger):
    """Calls `on_record` before rows are stored, as an event that comes while a run writes."""

    on_record: Callable[[], None] | None = None

    async def record(self, target: TargetId, entries: Sequence[Entry], gone: Sequence[ObjectKey], lease: Lease) -> None:
        """Store what was written."""
        if self.on_record is not None:
            self.on_record()
        await super().record(target, entries, gone, lease)


async def test_a_schema_that_changes_during_a_run_is_not_forgotten() -> None:
    """The mark that comes while a run writes, as from our own definition, is for the next run: that plan had none."""
    ledger = EventfulLedger()
    rig = Rig(ledger=ledger)
    await rig.run(config("a"), config("b"))
    ledger.on_record = lambda: rig.target().schema_changed.add(A.group_kind)
    await rig.run(config("a", k="2"), config("b"))
    ledger.on_record = None
    report = await rig.run(config("a", k="2"), config("b"))
    assert report.written == 2
    assert (await rig.run(config("a", k="2"), config("b"))).written == 0
