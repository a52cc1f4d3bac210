"""The live-state cache: what events make of it, and what it tells about drift."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from fleet.kube.ownership import FieldSet
from fleet.kube.wire import ManagedEntry, Observed
from fleet.object import GroupKind, ObjectKey
from fleet.reconcile.health import Health, Verdict
from fleet.reconcile.live import SETTLE_S, Live, LiveObject, pack_uid, summarise, unpack_uid

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KIND = GroupKind("", "ConfigMap")
KEY = ObjectKey("", "ConfigMap", "shop", "a")
UID, NEW_UID = (f"00000000-0000-4000-8000-{n:012d}" for n in (1, 2))
LABELS = {"fleet/hub": "hub", "applyset.kubernetes.io/part-of": "set"}


def entry(
    manager: str, *names: str, operation: str = "Update", subresource: str = "", root: str = "data"
) -> ManagedEntry:
    """Own `.data.<name>` for each name."""
    fields = FieldSet.of([(f"f:{root}", f"f:{name}") for name in names]).serialise()
    return ManagedEntry(
        manager=manager,
        operation=operation,
        api_version="v1",
        subresource=subresource,
        time="2026-01-01T00:00:00Z",
        fields=fields,
    )


def ours(*names: str) -> ManagedEntry:
    """Our own entry."""
    return entry("fleet", *names, operation="Apply")


def observed(rv: int = 10, *managed: ManagedEntry, **more: Any) -> Observed:
    """An object with our labels."""
    known: dict[str, Any] = {"key": KEY, "uid": UID, "labels": LABELS, "managed": managed or (ours("k"),)}
    return Observed(version="v1", rv=rv, **{**known, **more})


@dataclass
class Cache:
    """A cache and what it told."""

    told: list[tuple[int, int]] = field(default_factory=list)
    """resourceVersion before and after each change; 0 = absent."""

    def __post_init__(self) -> None:
        self.live = Live(self._note)

    def _note(self, _key: ObjectKey, before: LiveObject | None, after: LiveObject | None) -> None:
        self.told.append((before.rv if before else 0, after.rv if after else 0))

    def see(self, rv: int = 10, *managed: ManagedEntry, **more: Any) -> None:
        """Show a state."""
        self.live.see(observed(rv, *managed, **more), "hub", NOW)

    def wrote(self, rv: int, *managed: ManagedEntry, **more: Any) -> None:
        """Take the answer to a write of ours."""
        self.live.put(KEY, summarise(observed(rv, *managed, **more), "hub", NOW), written=True)

    def relist(self, *seen: tuple[int, ManagedEntry]) -> None:
        """Show a fresh list."""
        self.live.restart(KIND)
        for rv, managed in seen:
            self.see(rv, managed)
        self.live.sync(KIND)

    @property
    def rv(self) -> int:
        """The resourceVersion of the object now; 0 = absent."""
        known = self.live.get(KEY)
        return known.rv if known else 0

    @property
    def paths(self) -> list[tuple[str, str, bool]]:
        """The drift noted."""
        drift = self.live.drift(KEY)
        return [(p.path, p.manager, p.added) for p in drift.paths] if drift else []


@pytest.fixture
async def cache() -> Cache:
    """An empty cache."""
    return Cache()


@pytest.mark.parametrize(
    "uid",
    [UID, "0F3A2B1C-0000-4000-8000-00000000BEEF", "0123456789abcdef0123456789abcdef", "custom", "x" * 36, "", "a" * 16],
)
def test_uids_survive_packing(uid: str) -> None:
    """Any uid comes back as it was."""
    assert unpack_uid(pack_uid(uid)) == uid


@pytest.mark.parametrize(
    ("more", "is_ours"),
    [
        ({}, True),
        ({"labels": {}}, False),
        ({"labels": {"fleet/hub": "another"}}, False),
        ({"managed": (entry("fleet", "k"),)}, False),
        ({"managed": ()}, False),
        ({"controller": "Thing/x"}, False),
    ],
)
def test_the_three_marks(more: dict[str, Any], *, is_ours: bool) -> None:
    """Ours is what has our label, our Apply entry, and no controller."""
    known = observed()
    fields = {name: getattr(known, name) for name in known.__struct_fields__}
    assert summarise(Observed(**{**fields, **more}), "hub", NOW).ours is is_ours


def test_what_is_kept_of_an_object() -> None:
    """Foreign managers, who scales, who opted out, and health for kinds that have one."""
    scaled = entry("kube-controller-manager", "replicas", subresource="scale", root="spec")
    managed = (ours("k"), entry("kubectl-edit", "x"), entry("status-writer", "y", subresource="status"), scaled)
    live = summarise(observed(10, *managed), "hub", NOW)
    assert live.foreign == ("kubectl-edit",)
    assert live.scaled_by == "kube-controller-manager"
    assert live.verdict is None
    assert live.opted_out_by == ""
    annotation = FieldSet.of([("f:metadata", "f:annotations", "f:fleet/reconcile")]).serialise()
    who = ManagedEntry(manager="kubectl", operation="Update", api_version="v1", time="T", fields=annotation)
    opted = summarise(observed(10, ours("k"), who, annotations={"fleet/reconcile": "disabled"}), "hub", NOW)
    assert opted.opted_out_by == "kubectl at T"
    deleting = summarise(observed(deleting=True, finalizers=("a/b",)), "hub", NOW)
    assert deleting.verdict is not None
    assert deleting.verdict.message == "being deleted, waiting on finalizers a/b"


def test_an_object_is_small() -> None:
    """A hundred thousand objects fit into a hub: about half a kilobyte each."""
    live = summarise(observed(10, ours(*[f"k{n}" for n in range(20)])), "hub", NOW)
    assert sum(len(part) for part in (live.uid_bytes, live.owned, live.fields)) < 200
    assert msgspec.structs.fields(live)


async def test_newer_wins(cache: Cache) -> None:
    """Events may cross answers: what is older changes nothing, whoever it is about."""
    cache.see(10)
    cache.wrote(12)
    cache.see(11)
    cache.see(11, uid=NEW_UID)
    assert cache.rv == 12
    assert cache.told == [(0, 10), (10, 12)]
    cache.live.drop(KEY, 11)
    assert cache.rv == 12
    cache.live.drop(KEY, 13)
    assert cache.rv == 0


async def test_an_answer_without_status_keeps_the_health(cache: Cache) -> None:
    """The answer to a write is metadata only: at the same resourceVersion the health already seen is kept."""
    body = b'{"apiVersion":"v1","kind":"ConfigMap"}'
    cache.see(10, body=body)
    cache.wrote(10)
    known = cache.live.get(KEY)
    assert known is not None
    assert known.verdict is not None
    cache.wrote(11)
    known = cache.live.get(KEY)
    assert known is not None
    assert known.verdict is None


async def test_a_fresh_list_drops_what_it_lacks(cache: Cache) -> None:
    """Absence is told at the end of a list, not at its beginning."""
    cache.see(10)
    cache.live.restart(KIND)
    assert cache.rv == 10
    assert not cache.live.is_synced(KIND)
    cache.live.sync(KIND)
    assert cache.rv == 0
    assert cache.live.is_synced(KIND)
    assert cache.live.drift(KEY) is not None


async def test_a_list_does_not_undo_a_write_that_crossed_it(cache: Cache) -> None:
    """What was written while a list was under way is neither dropped nor replaced by what that list still shows."""
    cache.wrote(12)
    cache.relist()
    assert cache.rv == 12
    cache.relist((11, ours("k")))
    assert cache.rv == 12
    assert cache.paths == []


async def test_what_was_written_and_not_listed_is_listed_again(cache: Cache) -> None:
    """A list without what was just written is no proof of anything: the next one, when the write is old, is."""
    cache.wrote(12)
    cache.live.restart(KIND)
    assert cache.live.sync(KIND)
    assert cache.rv == 12
    await asyncio.sleep(SETTLE_S)
    cache.live.restart(KIND)
    assert not cache.live.sync(KIND)
    assert cache.live.get(KEY) is None


async def test_a_list_may_go_back_in_time(cache: Cache) -> None:
    """A cluster restored from a backup shows older objects, and they are what there is."""
    cache.wrote(100)
    await asyncio.sleep(SETTLE_S)
    cache.relist((50, ours("k")))
    assert cache.rv == 50
    cache.see(51)
    assert cache.rv == 51
    cache.see(49)
    assert cache.rv == 51


async def test_a_broken_watch_keeps_its_view(cache: Cache) -> None:
    """What was seen stays readable; only absence proves nothing any more."""
    cache.relist((10, ours("k")))
    cache.live.unsync(KIND)
    assert cache.rv == 10
    assert not cache.live.is_synced(KIND)


async def test_a_closed_watch_is_forgotten(cache: Cache) -> None:
    """Nothing of the kind is left, and nothing is told as gone."""
    cache.relist((10, ours("k")))
    cache.see(11, ours("k"), entry("kubectl", "x"))
    told = list(cache.told)
    cache.live.forget_kind(KIND)
    assert (cache.rv, cache.live.is_synced(KIND), cache.live.drift(KEY)) == (0, False, None)
    assert cache.told == told


async def test_what_was_taken_is_named(cache: Cache) -> None:
    """A taken value is noted with its taker, an addition with its author, once each; a repair forgets both."""
    cache.see(10, ours("k", "j"))
    cache.see(11, ours("j"), entry("rival", "k"))
    cache.see(12, ours("j"), entry("rival", "k"), entry("kubectl-edit", "x"))
    cache.see(13, ours("j"), entry("rival", "k"), entry("kubectl-edit", "x"))
    assert (".data.k", "rival", False) in cache.paths
    assert (".data.x", "kubectl-edit", True) in cache.paths
    assert len(cache.paths) == len(set(cache.paths))
    cache.wrote(14, ours("k", "j"))
    cache.live.forget_drift(KEY, 14)
    assert cache.paths == []


async def test_what_came_after_a_repair_is_kept(cache: Cache) -> None:
    """A rival that answers before our own answer is read is not forgotten with what we repaired."""
    cache.see(10, ours("k"))
    cache.see(12, ours("j"), entry("rival", "k"))
    cache.live.forget_drift(KEY, 11)
    assert (".data.k", "rival", False) in cache.paths


async def test_our_own_deletion_is_no_drift(cache: Cache) -> None:
    """An object that we deleted leaves without a note; another one of its name stays."""
    cache.see(10)
    cache.live.forget(KEY, NEW_UID)
    assert cache.rv == 10
    cache.live.forget(KEY, UID)
    cache.live.drop(KEY, 11)
    assert cache.rv == 0
    assert cache.live.drift(KEY) is None
    cache.see(12)
    cache.live.drop(KEY, 13)
    drift = cache.live.drift(KEY)
    assert drift is not None
    assert drift.paths == ()


async def test_waiting_ends_with_the_event(cache: Cache) -> None:
    """Who waits for an object is woken by its change, and by nothing else; a deadline ends it."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(cache.live.wait(KEY, lambda live: live is not None and live.rv > 10, 60.0))
        await asyncio.sleep(1)
        cache.see(10)
        await asyncio.sleep(1)
        assert not task.done()
        cache.see(11)
    assert task.result()
    assert not await cache.live.wait(KEY, lambda live: live is None, 5.0)


async def test_health_can_be_told_better(cache: Cache) -> None:
    """What pods show replaces what their workload says, and is told once."""
    cache.see(10)
    verdict = Verdict(Health.FAILED, "CrashLoopBackOff")
    cache.live.revise(KEY, verdict)
    cache.live.revise(KEY, verdict)
    known = cache.live.get(KEY)
    assert known is not None
    assert known.verdict == verdict
    assert len(cache.told) == 2


async def test_time_alone_changes_health(cache: Cache) -> None:
    """A custom resource that nobody gives a status is InProgress for its grace and Current afterwards, untouched."""
    body = b'{"apiVersion":"example.com/v1","kind":"W","metadata":{"creationTimestamp":"2026-01-01T00:00:00Z"}}'
    cache.see(10, body=body)
    known = cache.live.get(KEY)
    assert known is not None
    assert known.verdict is not None
    assert known.verdict.health is Health.IN_PROGRESS
    assert known.verdict.recheck_at == NOW + timedelta(seconds=5)
    await asyncio.sleep(6)
    known = cache.live.get(KEY)
    assert known is not None
    assert known.verdict is not None
    assert known.verdict.health is Health.CURRENT


async def test_a_job_that_ended_is_remembered(cache: Cache) -> None:
    """The end of a Job outlives it, until another one of its name ends."""
    key = ObjectKey("batch", "Job", "shop", "j")
    body = b'{"apiVersion":"batch/v1","kind":"Job","status":{"conditions":[{"type":"Complete","status":"True"}]}}'
    cache.see(10, key=key, body=body)
    cache.live.drop(key, 11)
    assert cache.live.ended(key) == UID
    assert cache.live.ended(KEY) == ""
    cache.see(12, key=key, uid=NEW_UID, body=b'{"apiVersion":"batch/v1","kind":"Job"}')
    assert cache.live.ended(key) == UID
    cache.live.forget_kind(key.group_kind)
    assert cache.live.ended(key) == ""


async def test_objects_of_a_set(cache: Cache) -> None:
    """The objects of one ApplySet can be listed."""
    cache.see(10)
    assert [key for key, _ in cache.live.of_set("set")] == [KEY]
    assert list(cache.live.of_set("other")) == []
    assert len(cache.live) == 1
