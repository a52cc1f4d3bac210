"""Wanted against running: the inventory says which repositories and clusters there are, and that many tasks run."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

import structlog

from fleet.aio import Children, Pulse, spawn
from fleet.clock import Clock
from fleet.errors import InventoryError, Problem
from fleet.git.repository import Snapshot
from fleet.hub.event import EventLog
from fleet.hub.feed import Feed
from fleet.hub.order import Commons
from fleet.hub.session import Outside, Session
from fleet.hub.source import Mirrors
from fleet.inventory.schema import Cluster
from fleet.inventory.value import Inventory
from fleet.object import TargetId
from fleet.store.event import Event

log = structlog.get_logger()


class Supervisor:
    """Keeps sessions and mirrors equal to the inventory, and tells sessions what concerns them."""

    def __init__(self, *, feed: Feed, mirrors: Mirrors, events: EventLog, clock: Clock) -> None:
        self.inventory: Inventory | None = None
        self.inventory_error: InventoryError | None = None
        self.sessions: dict[str, Session] = {}
        self.feed = feed
        self.mirrors = mirrors
        feed.on_supply = self.take_supply
        mirrors.on_change = self.take_snapshot
        self._events = events
        self._clock = clock
        self._pulse = Pulse()
        self._problems: tuple[Problem, ...] = ()
        self._restarts: dict[str, int] = {}

    async def run(self, commons: Commons, outside: Outside) -> None:
        """Follow the inventory until cancelled; a cluster's or repository's failure is its own."""
        async with (
            Children[Hashable]("repository") as repositories,
            Children[str]("cluster") as clusters,
            asyncio.TaskGroup() as group,
        ):
            spawn(group, "feed", self.feed.run())
            while True:
                await self._pulse.wait()
                if self.inventory is None:
                    continue
                inventory = self.inventory
                await self.mirrors.adjust(inventory, repositories)
                self.feed.take_inventory(inventory)
                await clusters.adjust(
                    {name: self._plan(cluster, commons, outside) for name, cluster in inventory.clusters.items()}
                )
                for name in self.sessions.keys() - inventory.clusters.keys():
                    del self.sessions[name]
                for session in self.sessions.values():
                    session.mark_all()

    def _plan(
        self, cluster: Cluster, commons: Commons, outside: Outside
    ) -> tuple[object, Callable[[], Coroutine[Any, Any, None]]]:
        """Return what makes a session start anew when it changes, and how it starts."""
        spec = cluster.spec
        fingerprint = (
            spec.connection.model_dump_json(),
            _secret(cluster),
            spec.uid,
            spec.limits.model_dump_json(),
            self._restarts.get(cluster.name, 0),
        )

        def start() -> Coroutine[Any, Any, None]:
            session = Session(cluster, commons, outside)
            before = self.sessions.get(cluster.name)
            if before is not None:
                session.progress.update(before.progress)
            self.sessions[cluster.name] = session
            return session.run()

        return fingerprint, start

    def reconnect(self, cluster: str) -> None:
        """Let a cluster's session start anew at once: what stood in its way is out of it."""
        self._restarts[cluster] = self._restarts.get(cluster, 0) + 1
        self._pulse.set()

    def take_inventory(self, inventory: Inventory) -> None:
        """Take a new inventory."""
        if inventory.problems != self._problems:
            self._problems = inventory.problems
            for problem in inventory.problems:
                self._note("InventoryInvalid", str(problem))
        before, self.inventory = self.inventory, inventory
        if before is None:
            counts = f"{len(inventory.clusters)} clusters, {len(inventory.apps)} apps"
            self._note("InventoryLoaded", f"{inventory.directory}: {counts}")
        elif change := _describe_change(before, inventory):
            self._note("InventoryChanged", change)
        self._pulse.set()

    def report_inventory(self, error: InventoryError | None) -> None:
        """Take news of whether the inventory directory can be read; the last inventory stays in force."""
        self.inventory_error = error
        if error is not None:
            rest = "the last one stays in force" if self.inventory else "nothing is done until then; check --inventory"
            self._note(error.reason, f"{error}; {rest}")

    def take_snapshot(self, snapshot: Snapshot) -> None:
        """Take news of a repository."""
        if snapshot.error is not None:
            self._note(snapshot.error.reason, f"repository {snapshot.name}: {snapshot.error.message}", kind="git")
        self.feed.take_snapshot(snapshot)

    def take_supply(self, target: TargetId) -> None:
        """Tell the target's session that what it should be has changed."""
        session = self.sessions.get(target.cluster)
        if session is not None:
            session.mark(target)

    def is_known(self, cluster: str) -> bool:
        """Tell whether a cluster is in the inventory."""
        return self.inventory is not None and cluster in self.inventory.clusters

    def environment_of(self, cluster: str) -> str:
        """Name the environment of a cluster; empty when it is not in the inventory."""
        known = self.inventory.clusters.get(cluster) if self.inventory is not None else None
        return known.spec.environment if known is not None else ""

    def _note(self, reason: str, message: str, *, kind: str = "inventory") -> None:
        self._events.append(Event(at=self._clock.now(), kind=kind, reason=reason, message=message))


def _describe_change(before: Inventory, after: Inventory) -> str:
    """Say which documents came, changed and went; empty when none did."""
    common = before.entries.keys() & after.entries.keys()
    groups = {
        "added": after.entries.keys() - before.entries.keys(),
        "changed": {key for key in common if before.entries[key] != after.entries[key]},
        "removed": before.entries.keys() - after.entries.keys(),
    }
    parts = [
        f"{word} {', '.join(f'{kind.lower()} {name}' for kind, name in sorted(keys))}"
        for word, keys in groups.items()
        if keys
    ]
    return "; ".join(parts)


def _secret(cluster: Cluster) -> int:
    """Return what changes with an inline kubeconfig, which prints as asterisks."""
    kubeconfig = cluster.spec.connection.kubeconfig
    inline = kubeconfig.inline if kubeconfig is not None else None
    return hash(inline.get_secret_value()) if inline is not None else 0
