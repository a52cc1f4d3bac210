"""Runs that do not end as planned: cancelled, cut off from the cluster, or without the lease."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from fleet.aio import spawn
from fleet.errors import LeaseLost, Unauthorized, Unreachable
from fleet.object import ObjectKey, TargetId
from fleet.store.ledger import Entry, Lease
from tests.harness.reconcile import Rig, config, deployment, key_of, says

A, WEB = key_of(config("a")), key_of(deployment())


async def test_a_cancelled_run_keeps_what_it_did(rig: Rig) -> None:
    """What was applied before a cancel is in the ledger; the rest is finished by the next process, without a needless write."""
    apply, hangs = rig.cluster.apply, asyncio.Event()

    async def hanging(m: Any, **options: Any) -> Any:
        if m.key == WEB:
            hangs.set()
            await asyncio.sleep(3600)
        return await apply(m, **options)

    rig.cluster.apply = hanging  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as group:
        task = spawn(group, "run", rig.run(config("a"), deployment()))
        await hangs.wait()
        task.cancel()
    rows = rig.ledger.rows[rig.target().id]
    assert rows[A].uid == rig.cluster.objects[A].uid
    assert rows[WEB].uid == ""
    rig.cluster.apply = apply  # type: ignore[method-assign]
    again = rig.restarted()
    rig.cluster.drain()
    report = await again.run(config("a"), deployment())
    assert report.complete
    assert [key for verb, key in rig.cluster.drain() if verb == "apply" and key.namespace == "shop"] == [WEB]


@pytest.mark.parametrize("error", [Unreachable("down"), Unauthorized("who", status=401)])
async def test_a_cluster_that_goes_away_is_nobodys_failure(rig: Rig, error: Exception) -> None:
    """When every request of a rank finds no cluster, the run ends; no object is blamed, and later ranks are not tried."""
    rig.cluster.refuse("apply", A, error)  # type: ignore[arg-type]
    with pytest.raises(type(error)):
        await rig.run(config("a"), deployment())
    assert ("apply", WEB) not in rig.cluster.calls
    report = await rig.run(config("a"), deployment())
    assert report.complete
    assert report.notes == ()


async def test_one_request_that_times_out_is_its_objects(rig: Rig) -> None:
    """A slow webhook of one kind is not the cluster's failure."""
    rig.cluster.refuse("apply", A, Unreachable("no answer in time", reason="Timeout"))
    report = await rig.run(config("a"), deployment())
    assert set(report.failures) == {A}
    assert WEB in rig.cluster.objects


async def test_a_lost_lease_ends_the_run(rig: Rig) -> None:
    """A newer session holds the cluster: nothing is written any more."""

    async def refuse(target: TargetId, keys: Sequence[ObjectKey], lease: Lease) -> None:
        raise LeaseLost("taken")

    rig.ledger.intend = refuse  # type: ignore[method-assign]
    with pytest.raises(LeaseLost):
        await rig.run(config("a"))
    assert A not in rig.cluster.objects


async def test_a_database_that_fails_after_the_act(rig: Rig) -> None:
    """The object is written and the row is not: the next run finds it as ours and only notes it down."""
    record = rig.ledger.record

    async def broken(target: TargetId, entries: Sequence[Entry], gone: Sequence[ObjectKey], lease: Lease) -> None:
        raise OSError("disk full")

    rig.ledger.record = broken  # type: ignore[method-assign]
    with pytest.raises(OSError, match="disk full"):
        await rig.run(config("a", k="1"))
    rig.ledger.record = record  # type: ignore[method-assign]
    again = rig.restarted()
    report = await again.run(config("a", k="1"))
    assert says(report) == {"ConfigMap/a": "unchanged InSync"}
    assert report.notes == ()
    assert rig.ledger.rows[rig.target().id][A].uid == rig.cluster.objects[A].uid
