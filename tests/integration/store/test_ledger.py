"""The ledger: rows per object, guarded by the cluster's epoch."""

from datetime import timedelta

import pytest

from fleet.errors import LeaseLost
from fleet.object import ObjectKey, TargetId
from fleet.store.cluster import ClusterStore
from fleet.store.database import Database
from fleet.store.ledger import Entry, LedgerStore
from tests.integration.store.conftest import START, HandClock

SHOP, BLOG = TargetId("one", "shop"), TargetId("one", "blog")
WEB = ObjectKey("apps", "Deployment", "shop", "web")
ROLE = ObjectKey("rbac.authorization.k8s.io", "ClusterRole", "", "web")


@pytest.fixture
def ledger(database: Database, clock: HandClock) -> LedgerStore:
    """An empty ledger."""
    return LedgerStore(database, clock)


def entry(key: ObjectKey, desired: bytes = b"d", **more: object) -> Entry:
    """A result."""
    values = {"version": "v1", "owned": b"\x00\xff", "uid": "u", "rv": 2**63 - 1, "applied_at": START, **more}
    return Entry(key=key, desired=desired, **values)  # type: ignore[arg-type]


async def test_intents_become_results(ledger: LedgerStore, clock: HandClock) -> None:
    """An intent is a row without a digest; a result replaces it; what is gone is dropped."""
    lease = await ledger.take("one")
    await ledger.intend(SHOP, [WEB, ROLE], lease)
    intended = (await ledger.load_cluster("one"))[SHOP]
    assert set(intended) == {WEB, ROLE}
    assert (intended[WEB].desired, intended[WEB].applied_at) == (b"", START)
    clock.move(minutes=1)
    done = entry(WEB, state="finished", applied_at=clock.now())
    await ledger.record(SHOP, [done], [ROLE], lease)
    assert await ledger.load_cluster("one") == {SHOP: {WEB: done}}
    assert done.applied_at - START == timedelta(minutes=1)


async def test_an_intent_does_not_undo_a_result(ledger: LedgerStore) -> None:
    """Intending, recording and dropping twice is like doing it once."""
    lease = await ledger.take("one")
    for _ in range(2):
        await ledger.record(SHOP, [entry(WEB)], [ROLE], lease)
        await ledger.intend(SHOP, [WEB], lease)
    assert await ledger.load_cluster("one") == {SHOP: {WEB: entry(WEB)}}


async def test_a_row_belongs_to_one_target(ledger: LedgerStore) -> None:
    """Handing over moves rows; the former target can neither drop nor intend them any more."""
    lease = await ledger.take("one")
    await ledger.record(SHOP, [entry(WEB), entry(ROLE)], [], lease)
    for _ in range(2):
        await ledger.hand_over(SHOP, BLOG, [WEB], lease)
    await ledger.record(SHOP, [], [WEB], lease)
    await ledger.intend(SHOP, [WEB], lease)
    assert await ledger.load_cluster("one") == {SHOP: {ROLE: entry(ROLE)}, BLOG: {WEB: entry(WEB)}}


async def test_clusters_do_not_mix(ledger: LedgerStore) -> None:
    """Equal objects of two clusters are two rows."""
    one, two = await ledger.take("one"), await ledger.take("two")
    await ledger.record(SHOP, [entry(WEB)], [], one)
    await ledger.record(TargetId("two", "shop"), [entry(WEB, uid="other")], [], two)
    await ledger.record(SHOP, [], [WEB], one)
    assert await ledger.load_cluster("one") == {}
    assert [row.uid for row in (await ledger.load_cluster("two"))[TargetId("two", "shop")].values()] == ["other"]


async def test_an_old_lease_writes_nothing(ledger: LedgerStore) -> None:
    """Whoever took the cluster later is the only one to write; the older session is told and nothing is changed."""
    old = await ledger.take("one")
    new = await ledger.take("one")
    assert new.epoch > old.epoch
    await ledger.record(SHOP, [entry(WEB)], [], new)
    for late in (
        ledger.intend(SHOP, [ROLE], old),
        ledger.record(SHOP, [entry(ROLE)], [WEB], old),
        ledger.hand_over(SHOP, BLOG, [WEB], old),
    ):
        with pytest.raises(LeaseLost) as lost:
            await late
        assert lost.value.subject == "one"
    assert await ledger.load_cluster("one") == {SHOP: {WEB: entry(WEB)}}


async def test_clusters_are_pinned_once(database: Database, ledger: LedgerStore, clock: HandClock) -> None:
    """The first uid stays, whatever answers later; taking a cluster before contact keeps it unpinned."""
    clusters = ClusterStore(database, clock)
    await ledger.take("one")
    row = await clusters.get("one")
    assert row is not None
    assert (row.uid, row.contacted_at) == ("", None)
    await clusters.pin("one", "uid-1", "v1.36.3")
    clock.move(hours=1)
    await clusters.pin("one", "uid-2", "v1.36.4")
    await clusters.pin("two", "uid-3", "v1.36.3")
    loaded = await clusters.load()
    assert (loaded["one"].uid, loaded["one"].version) == ("uid-1", "v1.36.4")
    assert loaded["one"].contacted_at == START + timedelta(hours=1)
    assert await clusters.others_with_uid("three", "uid-1") == ["one"]
    assert await clusters.others_with_uid("one", "uid-1") == []
    assert await clusters.get("absent") is None
    assert (await ledger.take("one")).epoch == 2


async def test_a_rebuilt_ledger_is_stored_whole(ledger: LedgerStore) -> None:
    """Rows of all targets come in one batch; an older lease stores none of them."""
    old, lease = await ledger.take("one"), await ledger.take("one")
    rows = {target: {key: entry(key, b"", state="found")} for target, key in ((SHOP, WEB), (BLOG, ROLE))}
    with pytest.raises(LeaseLost):
        await ledger.rebuild(rows, old)
    assert await ledger.load_cluster("one") == {}
    await ledger.rebuild(rows, lease)
    assert await ledger.load_cluster("one") == rows
