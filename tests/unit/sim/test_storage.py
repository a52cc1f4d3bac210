"""Storage: one counter, bounded history, snapshots, backups."""

import pytest

from fleet.sim.storage import Event, HistoryGone, Object, Storage

MAPS = ("", "configmaps")
PODS = ("", "pods")


def _obj(name: str, **more: object) -> Object:
    return {"metadata": {"name": name, "namespace": "n", "uid": f"uid-{name}"}, **more}


def _put(storage: Storage, name: str, **more: object) -> Object:
    return storage.put(MAPS, ("n", name), _obj(name, **more))


def _told(storage: Storage, since: int) -> list[tuple[str, int]]:
    events: list[Event] = list(storage.subscribe(MAPS, since, lambda: None).pending)
    return [(event.type, event.rv) for event in events]


def test_one_counter_for_all_kinds() -> None:
    """Each write anywhere takes the next version; a deletion too."""
    storage = Storage()
    first = int(_put(storage, "a")["metadata"]["resourceVersion"])
    second = int(storage.put(PODS, ("n", "p"), _obj("p"))["metadata"]["resourceVersion"])
    gone = int(storage.remove(MAPS, ("n", "a"))["metadata"]["resourceVersion"])
    assert (second, gone, storage.rv) == (first + 1, first + 2, first + 2)


def test_history_is_told_from_a_version_on() -> None:
    """A subscription gets exactly the changes after its version, then the live ones."""
    storage = Storage()
    _put(storage, "a")
    since = storage.rv
    _put(storage, "a", data=1)
    storage.remove(MAPS, ("n", "a"))
    assert _told(storage, since) == [("MODIFIED", since + 1), ("DELETED", since + 2)]


def test_history_is_bounded() -> None:
    """A version older than the window is refused, naming the oldest that works."""
    storage = Storage(window=2)
    for number in range(4):
        _put(storage, "a", data=number)
    with pytest.raises(HistoryGone) as caught:
        storage.subscribe(MAPS, 2, lambda: None)
    assert caught.value.oldest == 3
    assert len(_told(storage, 3)) == 2


def test_compaction_forgets_all_kinds() -> None:
    """After compaction earlier versions are refused, also for kinds that had no objects."""
    storage = Storage()
    _put(storage, "a")
    before = storage.rv - 1
    storage.compact()
    with pytest.raises(HistoryGone):
        storage.subscribe(PODS, before, lambda: None)
    assert _told(storage, storage.rv) == []


def test_objects_are_not_changed_in_place() -> None:
    """What a reader holds stays as it was."""
    storage = Storage()
    before = _put(storage, "a", data=1)
    _put(storage, "a", data=2)
    assert before["data"] == 1


def test_past_lists_are_rebuilt() -> None:
    """The list of an earlier version has what was there then, as it was."""
    storage = Storage(window=3)
    _put(storage, "a", data=1)
    rv = storage.rv
    _put(storage, "b")
    _put(storage, "a", data=2)
    storage.remove(MAPS, ("n", "a"))
    then = storage.items_at(MAPS, rv)
    assert [(obj["metadata"]["name"], obj["data"]) for obj in then] == [("a", 1)]
    assert [obj["metadata"]["name"] for obj in storage.items_at(MAPS, storage.rv)] == ["b"]
    with pytest.raises(HistoryGone):
        storage.items_at(MAPS, rv - 1)


def test_restore_rewinds_silently() -> None:
    """A restored backup brings old objects and versions back; an open subscription stays silent until it is passed."""
    storage = Storage()
    _put(storage, "a")
    backup = storage.backup()
    _put(storage, "b")
    _put(storage, "c")
    subscription = storage.subscribe(MAPS, storage.rv, lambda: None)
    storage.restore(backup)
    assert [obj["metadata"]["name"] for obj in storage.items(MAPS)] == ["a"]
    assert int(_put(storage, "d")["metadata"]["resourceVersion"]) == backup.rv + 1
    assert not subscription.pending
    _put(storage, "e")
    _put(storage, "f")
    assert [event.key for event in subscription.pending] == [("n", "f")]


def test_kinship_follows_owner_references() -> None:
    """Dependents are found by the uid of their owner, as long as they name it."""
    storage = Storage()
    storage.put(PODS, ("n", "p"), _obj("p"))
    child = _obj("c")
    child["metadata"]["ownerReferences"] = [{"uid": "uid-p"}]
    storage.put(MAPS, ("n", "c"), child)
    assert storage.kinship.dependents("uid-p") == [(MAPS, ("n", "c"))]
    _put(storage, "c")
    assert storage.kinship.dependents("uid-p") == []
