"""The watches of one cluster: one per kind that the ledger or the desired state holds, and what wakes who waits.

Watches select on our label, so that memory and traffic follow what we manage; kinds whose status matters are watched
whole, the others as metadata.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import structlog

from fleet.aio import Children, Pulse, supervise
from fleet.annotation import HUB
from fleet.clock import Clock
from fleet.errors import FleetError, NotFound, Unauthorized, Unreachable
from fleet.kube.client import Client
from fleet.kube.discovery import Discovery, Resource
from fleet.kube.watch import Left, Restarted, Resumed, Scope, Seen, Stalled, Synced, WatchEvent, run_watch
from fleet.metric import gauge
from fleet.object import GroupKind, ObjectKey
from fleet.reconcile.carry import CRD
from fleet.reconcile.health import has_status
from fleet.reconcile.live import SETTLE_S, Live

log = structlog.get_logger()

NAMESPACE = GroupKind("", "Namespace")
MOST_PAUSE_S = 30.0
ADJUST_EVERY_S = 0.05
"""One commit marks every target, and which kinds matter is asked of all of them: once for all marks of this time."""
WATCHES = gauge("fleet_watches", "Open watches by cluster.", "cluster")


class KindWatches:
    """Feeds a Live cache from one watch per wanted kind.

    `wanted` says which kinds matter now; `on_synced` is told when all objects of a kind have been shown, `on_trouble`
    about failures (None: the server answers again), `on_doubt` when it may be another cluster or hub that makes our
    objects vanish, `on_arrival` when a namespace that somebody waits for appears, `on_definition` when the definition of
    a kind that is served has changed.
    """

    def __init__(
        self,
        *,
        cluster: str,
        client: Client,
        discovery: Discovery,
        live: Live,
        hub_id: str,
        clock: Clock,
        wanted: Callable[[], Iterable[GroupKind]],
        awaited: Callable[[], Iterable[ObjectKey]],
        on_synced: Callable[[GroupKind], None],
        on_arrival: Callable[[ObjectKey], None],
        on_definition: Callable[[GroupKind], None],
        on_trouble: Callable[[FleetError | None], None],
        on_doubt: Callable[[], None],
    ) -> None:
        self._cluster = cluster
        self._client = client
        self._discovery = discovery
        self._live = live
        self._hub_id = hub_id
        self._clock = clock
        self._wanted = wanted
        self._awaited = awaited
        self._on_synced = on_synced
        self._on_arrival = on_arrival
        self._on_definition = on_definition
        self._on_trouble = on_trouble
        self._on_doubt = on_doubt
        discovery.is_missing = self._is_missing
        self._pulse = Pulse()
        self._running: set[GroupKind] = set()
        self._generations: dict[str, int] = {}
        self._lists: dict[GroupKind, int] = {}
        self._named: dict[str, GroupKind] = {}
        self._named_at = 0
        self.refused: dict[GroupKind, FleetError] = {}
        """Kinds that cannot be watched, and why."""

    def __len__(self) -> int:
        return len(self._running)

    def adjust(self) -> None:
        """Look again at which kinds matter."""
        self._pulse.set()

    async def run(self) -> None:
        """Keep the watches equal to what is wanted, until cancelled."""
        async with Children[GroupKind | ObjectKey | str]("watch") as children:
            while True:
                await children.adjust(self._plan())
                WATCHES.labels(self._cluster).set(len(self._running))
                await asyncio.sleep(ADJUST_EVERY_S)
                await self._pulse.wait()

    def _plan(self) -> dict[GroupKind | ObjectKey | str, tuple[object, Callable[[], Coroutine[Any, Any, None]]]]:
        kinds = {kind for kind in self._wanted() if self._watchable(kind) is not None}
        for kind in self._running - kinds:
            self._live.forget_kind(kind)
            self.refused.pop(kind, None)
        self._running = kinds
        plan: dict[GroupKind | ObjectKey | str, tuple[object, Callable[[], Coroutine[Any, Any, None]]]] = {}
        for kind in sorted(kinds):
            plan[kind] = ((self._watchable(kind), self._lists.get(kind, 0)), self._of_kind(kind))
        for key in sorted(self._awaited()):
            if key.group_kind == NAMESPACE:
                plan[key] = (key, self._of_arrival(key))
        if self._watchable(CRD) is not None:
            plan["definitions"] = (self._watchable(CRD), self._of_definitions())
        return plan

    def _list_again(self, kind: GroupKind) -> None:
        """Open the watch of a kind anew: its list could not tell whether what was just written is still there."""
        self._lists[kind] = self._lists.get(kind, 0) + 1
        self.adjust()

    def _is_missing(self) -> bool:
        return not self._generations.keys() <= self._defined().keys()

    def _defined(self) -> Mapping[str, GroupKind]:
        """Return what is served, by the name that its definition has or would have."""
        if self._named_at != self._discovery.generation:
            served = ((kind, self._discovery.resource(kind)) for kind in self._discovery.kinds())
            self._named = {f"{resource.plural}.{kind.group}": kind for kind, resource in served if resource is not None}
            self._named_at = self._discovery.generation
        return self._named

    def _watchable(self, kind: GroupKind) -> Resource | None:
        resource = self._discovery.resource(kind)
        return resource if resource is not None and resource.watchable else None

    def _of_kind(self, kind: GroupKind) -> Callable[[], Coroutine[Any, Any, None]]:
        def sink(event: WatchEvent) -> None:
            match event:
                case Seen(observed):
                    self._live.see(observed, self._hub_id, self._clock.now())
                case Left(observed):
                    if self._live.get(observed.key) is not None:
                        self._on_doubt()
                    self._live.drop(observed.key, observed.rv)
                case Restarted():
                    self._on_doubt()
                    self._live.restart(kind)
                case Synced():
                    self.refused.pop(kind, None)
                    if self._live.sync(kind):
                        asyncio.get_running_loop().call_later(SETTLE_S, self._list_again, kind)
                    self._on_trouble(None)
                    self._on_synced(kind)
                case Stalled(error):
                    self._on_doubt()
                    self._on_trouble(error)
                case Resumed():
                    self._on_trouble(None)

        scope = Scope(label_selector=f"{HUB}={self._hub_id}", whole=has_status(kind))
        return self._supervised(kind, kind, scope, sink)

    def _of_arrival(self, key: ObjectKey) -> Callable[[], Coroutine[Any, Any, None]]:
        def sink(event: WatchEvent) -> None:
            if isinstance(event, Seen) and not event.observed.deleting:
                self._on_arrival(key)

        return self._supervised(key, key.group_kind, Scope(field_selector=f"metadata.name={key.name}"), sink)

    def _of_definitions(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """Watch all definitions, whoever made them: what is served follows from them."""

        def sink(event: WatchEvent) -> None:
            match event:
                case Seen(observed):
                    before = self._generations.get(observed.key.name)
                    self._generations[observed.key.name] = observed.generation
                    # its status says when the server took it up, and that is no new generation
                    if before != observed.generation or observed.key.name not in self._defined():
                        self._discovery.invalidate()
                    kind = self._defined().get(observed.key.name)
                    if kind is not None and before is not None and before != observed.generation:
                        self._on_definition(kind)
                case Left(observed):
                    self._generations.pop(observed.key.name, None)
                    self._discovery.invalidate()
                case _:
                    pass

        return self._supervised("definitions", CRD, Scope(), sink)

    def _supervised(
        self, name: object, kind: GroupKind, scope: Scope, sink: Callable[[WatchEvent], None]
    ) -> Callable[[], Coroutine[Any, Any, None]]:
        async def attempt() -> None:
            resource = self._watchable(kind)
            if resource is None:
                raise NotFound(f"the API server does not serve {kind}", what="kind", subject=str(kind))
            await run_watch(self._client, resource, scope, sink, clock=self._clock)

        def on_failure(error: FleetError, retry_in_s: float) -> None:
            log.warning("watch refused", cluster=self._cluster, watch=str(name), error=str(error))
            self._discovery.invalidate()
            if name == kind:
                self.refused[kind] = error
                self._live.unsync(kind)
            if isinstance(error, Unauthorized | Unreachable):
                self._on_trouble(error)

        async def run() -> None:
            await supervise(
                f"{self._cluster}/watch/{name}",
                attempt,
                clock=self._clock,
                on_failure=on_failure,
                most_s=MOST_PAUSE_S,
            )

        return run
