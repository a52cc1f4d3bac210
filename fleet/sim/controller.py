"""The engine under the controllers: changes become keys in a queue, keys are worked off between requests.

A controller is a plain function of (engine, object key) that reads the store and writes to it; it may ask to be called
again later. All of them run in one loop turn after a change, so effects are prompt and their order is fixed.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from fleet.sim import intake, ownership
from fleet.sim.reading import key_of
from fleet.sim.resource import Resource
from fleet.sim.state import State
from fleet.sim.storage import Collection, Event, Key, Object

Work = Callable[["Engine", Key], None]
Trigger = Callable[[Collection, Event], list[tuple[Work, Key]]]

MANAGER = "kube-controller-manager"


class Engine:
    """The queue, and what controllers may do.

    Args:
        pace_s: Time between two steps of a pod's life.
    """

    def __init__(self, state: State, triggers: list[Trigger], *, pace_s: float) -> None:
        self.state = state
        self.pace_s = pace_s
        self._triggers = triggers
        self._queue: dict[tuple[Work, Key], None] = {}
        self._wakeup: asyncio.Handle | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._stopped = False
        state.storage.listeners.append(self._on_event)

    def stop(self) -> None:
        """Do nothing more."""
        self._stopped = True
        self._queue.clear()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def settle(self) -> None:
        """Work off the queue now."""
        self._wakeup = None
        while self._queue:
            work, key = next(iter(self._queue))
            del self._queue[work, key]
            work(self, key)

    def again(self, work: Work, key: Key, *, after_s: float = 0.0) -> None:
        """Call `work` for `key` once more, now or later."""
        if self._stopped:
            return
        if after_s:
            self._later(work, key, after_s)
            return
        self._queue[work, key] = None
        if self._wakeup is None and (loop := _running_loop()) is not None:
            self._wakeup = loop.call_soon(self.settle)

    def _later(self, work: Work, key: Key, after_s: float) -> None:
        loop = _running_loop()
        if loop is None:
            self.again(work, key)
            return

        def fire() -> None:
            self._timers.discard(timer)
            self.again(work, key)

        timer = loop.call_later(after_s, fire)
        self._timers.add(timer)

    def _on_event(self, collection: Collection, event: Event) -> None:
        for trigger in self._triggers:
            for work, key in trigger(collection, event):
                self.again(work, key)

    # What controllers read and write.

    def resource(self, group: str, kind: str) -> Resource:
        found = self.state.registry.find_any(group, kind)
        assert found is not None, kind
        return found

    def get(self, group: str, kind: str, key: Key) -> Object | None:
        return self.state.storage.get(self.resource(group, kind).collection, key)

    def items(self, group: str, kind: str, namespace: str = "") -> list[Object]:
        return self.state.storage.items(self.resource(group, kind).collection, namespace)

    def dependents(self, group: str, kind: str, uid: str) -> list[Object]:
        """Return the objects of a kind that name a uid as an owner, oldest first."""
        storage, wanted = self.state.storage, self.resource(group, kind).collection
        found = (storage.get(*place) for place in storage.kinship.dependents(uid) if place[0] == wanted)
        return [obj for obj in found if obj is not None]

    def create(self, obj: Object) -> Object:
        """Store a new object as a controller would create it."""
        group, _, _ = obj["apiVersion"].rpartition("/")
        resource = self.resource(group, obj["kind"])
        metadata = dict(obj["metadata"])
        metadata |= {"uid": self.state.new_uid(), "creationTimestamp": self.state.timestamp()}
        if resource.counted:
            metadata["generation"] = 1
        whole = intake.defaulted(self.state, resource, {**obj, "metadata": metadata})
        new = ownership.tracked(self.state, resource, None, whole, manager=MANAGER)
        return self.state.storage.put(resource.collection, key_of(new), new)

    def write(self, live: Object, changed: Mapping[str, Any], *, subresource: str = "status") -> Object:
        """Store top-level fields of an object in a controller's name, unless nothing changes."""
        new = {**live, **changed}
        if new == live:
            return live
        group, _, _ = live["apiVersion"].rpartition("/")
        resource = self.resource(group, live["kind"])
        if subresource == "binding":  # neither counted nor owned
            return self.state.storage.put(resource.collection, key_of(live), new)
        if resource.counted and new.get("spec") != live.get("spec"):
            new["metadata"] = {**new["metadata"], "generation": live["metadata"].get("generation", 0) + 1}
        manager = "kube-apiserver" if resource.kind == "CustomResourceDefinition" else MANAGER
        tracked = ownership.tracked(self.state, resource, live, new, manager=manager, subresource=subresource)
        return self.state.storage.put(resource.collection, key_of(live), tracked)

    def remove(self, obj: Object) -> None:
        """Drop an object at once."""
        group, _, _ = obj["apiVersion"].rpartition("/")
        collection = self.resource(group, obj["kind"]).collection
        if self.state.storage.get(collection, key_of(obj)) is not None:
            self.state.storage.remove(collection, key_of(obj))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
