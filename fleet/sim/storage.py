"""What a simulated cluster holds: objects, one counter of resource versions, and a bounded history of changes.

Objects handed in and out are never changed in place: every write stores a new dict, so readers keep what they saw.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Object = dict[str, Any]
Key = tuple[str, str]
"""(namespace, name); the namespace of cluster-wide objects is empty."""
Collection = tuple[str, str]
"""(group, plural)."""
EventType = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change. `previous` is the object before it; a DELETED `obj` carries the version of the deletion."""

    type: EventType
    rv: int
    key: Key
    obj: Object
    previous: Object | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """The content of a storage at one version."""

    rv: int
    objects: Mapping[Collection, Mapping[Key, Object]]


class HistoryGone(Exception):
    """The asked version is older than the history kept; `oldest` is the first version that still works."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"history before {oldest} is gone")
        self.oldest = oldest


class Subscription:
    """The changes of one collection after version `since`, in order."""

    def __init__(self, since: int, wake: Callable[[], None]) -> None:
        self.since = since
        self.pending: deque[Event] = deque()
        self.closed = False
        self._wake = wake

    def push(self, event: Event) -> None:
        """Take in a change; one at or below the version already reached is skipped, as after a rewind."""
        if event.rv > self.since:
            self.since = event.rv
            self.pending.append(event)
            self._wake()

    def close(self) -> None:
        """End the stream after what is pending."""
        self.closed = True
        self._wake()


@dataclass(slots=True)
class _Shelf:
    """One collection: its objects, its recent events, and who listens."""

    history: deque[Event]
    objects: dict[Key, Object] = field(default_factory=dict)
    gone_before: int = 0
    subscriptions: list[Subscription] = field(default_factory=list)


class Kinship:
    """Who owns whom, by uid, kept up as objects change."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[Collection, Key]] = {}
        self._dependents: dict[str, dict[tuple[Collection, Key], None]] = {}

    def note(self, collection: Collection, key: Key, before: Object | None, after: Object | None) -> None:
        """Take in one change of one object."""
        place = (collection, key)
        if before is not None:
            self._places.pop(before["metadata"]["uid"], None)
            for owner in _owners(before):
                self._dependents.get(owner, {}).pop(place, None)
        if after is not None:
            self._places[after["metadata"]["uid"]] = place
            for owner in _owners(after):
                self._dependents.setdefault(owner, {})[place] = None

    def place(self, uid: str) -> tuple[Collection, Key] | None:
        """Return where the object with a uid is."""
        return self._places.get(uid)

    def dependents(self, uid: str) -> list[tuple[Collection, Key]]:
        """Return where the objects are that name a uid as an owner, oldest first."""
        return list(self._dependents.get(uid, ()))


def _owners(obj: Object) -> list[str]:
    return [reference["uid"] for reference in obj["metadata"].get("ownerReferences") or ()]


class Storage:
    """Objects of one cluster under one counter.

    Args:
        window: Events kept per collection; a watch resumed before them is 410.
    """

    def __init__(self, *, window: int = 4096) -> None:
        self.rv = 1
        self._window = window
        self._floor = 0
        self._shelves: dict[Collection, _Shelf] = {}
        self.kinship = Kinship()
        self.listeners: list[Callable[[Collection, Event], None]] = []

    def get(self, collection: Collection, key: Key) -> Object | None:
        shelf = self._shelves.get(collection)
        return shelf.objects.get(key) if shelf else None

    def items(self, collection: Collection, namespace: str = "") -> list[Object]:
        """Return the objects of a collection ordered by namespace and name."""
        shelf = self._shelves.get(collection)
        if shelf is None:
            return []
        return [
            obj
            for key, obj in sorted(shelf.objects.items(), key=lambda item: item[0])
            if not namespace or key[0] == namespace
        ]

    def everything(self) -> Iterable[tuple[Collection, Key, Object]]:
        """Yield all objects of all collections."""
        for collection, shelf in list(self._shelves.items()):
            for key, obj in list(shelf.objects.items()):
                yield collection, key, obj

    def put(self, collection: Collection, key: Key, obj: Mapping[str, Any]) -> Object:
        """Store an object under a new version and return it with that version."""
        shelf = self._shelf(collection)
        previous = shelf.objects.get(key)
        stored = self._stamped(obj)
        shelf.objects[key] = stored
        kind: EventType = "MODIFIED" if previous else "ADDED"
        self._publish(collection, shelf, Event(type=kind, rv=self.rv, key=key, obj=stored, previous=previous))
        return stored

    def remove(self, collection: Collection, key: Key) -> Object:
        """Drop an object; the last state is returned with the version of the deletion."""
        shelf = self._shelf(collection)
        previous = shelf.objects.pop(key)
        last = self._stamped(previous)
        self._publish(collection, shelf, Event(type="DELETED", rv=self.rv, key=key, obj=last, previous=previous))
        return last

    def items_at(self, collection: Collection, rv: int) -> list[Object]:
        """Return the objects of a collection as they were at `rv`, ordered by namespace and name.

        Raises:
            HistoryGone: Changes after `rv` are not kept any more.
        """
        shelf = self._shelf(collection)
        if rv < shelf.gone_before:
            raise HistoryGone(shelf.gone_before)
        objects = dict(shelf.objects)
        for event in reversed(shelf.history):
            if event.rv <= rv:
                break
            if event.previous is None:
                objects.pop(event.key, None)
            else:
                objects[event.key] = event.previous
        return [obj for _, obj in sorted(objects.items(), key=lambda item: item[0])]

    def subscribe(self, collection: Collection, since: int, wake: Callable[[], None]) -> Subscription:
        """Return the changes after version `since`; a version of the future starts there, silently.

        Raises:
            HistoryGone: Changes after `since` are not kept any more.
        """
        shelf = self._shelf(collection)
        if since < shelf.gone_before:
            raise HistoryGone(shelf.gone_before)
        subscription = Subscription(since, wake)
        for event in shelf.history:
            subscription.push(event)
        shelf.subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, collection: Collection, subscription: Subscription) -> None:
        shelf = self._shelf(collection)
        if subscription in shelf.subscriptions:
            shelf.subscriptions.remove(subscription)

    def close_streams(self, collection: Collection) -> None:
        """End every watch of a collection, as a change of its schema does."""
        for subscription in self._shelf(collection).subscriptions:
            subscription.close()

    def compact(self) -> None:
        """Forget all history: watches resumed from before now, and later pages of lists, are 410."""
        self._floor = self.rv
        for shelf in self._shelves.values():
            shelf.history.clear()
            shelf.gone_before = self.rv

    def backup(self) -> "Backup":
        """Return the present content for `restore`."""
        return Backup(rv=self.rv, objects={name: dict(shelf.objects) for name, shelf in self._shelves.items()})

    def restore(self, backup: "Backup") -> None:
        """Put a backup back without telling anyone: the counter goes back and later changes reuse its versions.

        Open watches stay open and skip every change until the counter passes what they have seen.
        """
        self.rv = backup.rv
        self.kinship = Kinship()
        for collection, shelf in self._shelves.items():
            for key, obj in backup.objects.get(collection, {}).items():
                self.kinship.note(collection, key, None, obj)
            shelf.objects = dict(backup.objects.get(collection, {}))
            shelf.history = deque(event for event in shelf.history if event.rv <= backup.rv)

    def _shelf(self, collection: Collection) -> _Shelf:
        shelf = self._shelves.get(collection)
        if shelf is None:
            shelf = self._shelves[collection] = _Shelf(history=deque(), gone_before=self._floor)
        return shelf

    def _stamped(self, obj: Mapping[str, Any]) -> Object:
        self.rv += 1
        return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.rv)}}

    def _publish(self, collection: Collection, shelf: _Shelf, event: Event) -> None:
        after = None if event.type == "DELETED" else event.obj
        self.kinship.note(collection, event.key, event.previous, after)
        shelf.history.append(event)
        if len(shelf.history) > self._window:
            shelf.gone_before = shelf.history.popleft().rv
        for subscription in shelf.subscriptions:
            subscription.push(event)
        for listener in self.listeners:
            listener(collection, event)
