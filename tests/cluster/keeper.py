"""One target on a real control plane, as a session runs it: watches feed the cache, the cache wakes the target."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from fleet.aio import Pulse, spawn
from fleet.hub.kinds import KindWatches
from fleet.hub.link import SCHEMA_SETTLE_S
from fleet.kube.discovery import run_discovery
from fleet.kube.gate import Priority
from fleet.object import GroupKind, Manifest, ObjectKey, Revision, TargetId
from fleet.reconcile.live import Live
from fleet.reconcile.port import Policy
from fleet.reconcile.run import Desired, Note, Order, Report, Surroundings
from fleet.reconcile.summary import Summary, summarise_report
from fleet.reconcile.target import Target
from fleet.sim.real import ControlPlane
from fleet.store.ledger import Lease
from tests.cluster.connection import Connection, config_map, connect, manifest
from tests.harness.reconcile import FakeLedger, NoUnsealer, manifests

Body = Mapping[str, Any]


class Keeper:
    """Keeps one app equal to what `want` was told last."""

    def __init__(self, connection: Connection, namespace: str, ledger: FakeLedger, hub_id: str) -> None:
        self.connection = connection
        self.namespace = namespace
        self.ledger = ledger
        self.hub_id = hub_id
        self.notes: list[Note] = []
        self.written = 0
        self.report: Report | None = None
        self.live = Live(self._on_change)
        self._pulse = Pulse()
        self._told = Pulse()
        self._releases = 0
        self._order = Order(policy=Policy(), desired=None)
        app = TargetId("one", f"app-{namespace}")
        self.target = Target(
            app,
            Surroundings(
                hub_id=hub_id,
                api=lambda _: connection.api,
                kinds=connection.discovery,
                live=self.live,
                ledger=ledger,
                lease=Lease(cluster="one", epoch=1),
                clock=connection.client.clock,
                unsealer=NoUnsealer(),
                owners=dict.fromkeys(ledger.rows.get(app, {}), app),
                wants=lambda _key, _target: False,
                ledgers={target: dict(rows) for target, rows in ledger.rows.items()},
                digest_key=b"key",
            ),
        )
        self.kinds = self._watch()

    def want(self, *bodies: Body, policy: Policy | None = None, removed: bool = False) -> None:
        """Desire these objects from now on."""
        self._releases += 1
        wanted: tuple[Manifest, ...] = manifests(*bodies, namespace=self.namespace)
        desired = Desired(
            release=self._releases, revision=Revision("0" * 40), digest=str(self._releases), manifests=wanted
        )
        self._order = Order(policy=policy or Policy(), desired=None if removed else desired, removed=removed)
        self._pulse.set()

    async def done(self, timeout_s: float = 150.0) -> Report:
        """Wait until everything desired is applied and nothing is left to do."""
        return await self.until(lambda report: report.complete, timeout_s)

    async def until(self, ready: Callable[[Report], object], timeout_s: float = 150.0) -> Report:
        """Wait until a report for the newest wish satisfies `ready`; looked at after each run and each event."""
        report = self.report
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    report = self.report
                    if report is not None and report.order is self._order and ready(report):
                        return report
                    await self._told.wait(0.2)
        except TimeoutError:
            raise AssertionError(f"not so after {timeout_s:g} s: {report}") from None

    async def noted(self, kind: str, count: int = 1) -> list[Note]:
        """Wait for notes of a kind."""
        await self.until(lambda _: len([n for n in self.notes if n.kind == kind]) >= count)
        return [note for note in self.notes if note.kind == kind]

    def summary(self, report: Report) -> Summary:
        """Summarise a report with what is live now."""
        return summarise_report(report, self.live.get)

    async def run(self) -> None:
        """Watch and reconcile until cancelled."""
        async with asyncio.TaskGroup() as group:
            spawn(group, "discovery", run_discovery(self.connection.discovery, self.connection.client))
            spawn(group, "kinds", self.kinds.run())
            self.connection.discovery.on_change = self._on_discovery
            wake_in_s: float | None = None
            while True:
                self.kinds.adjust()
                await self._pulse.wait(wake_in_s)
                order = self._order
                report = await self.target.run_once(order)
                await self.target.save_finished()
                self.notes += report.notes
                self.written += report.written
                self.report, wake_in_s = report, report.wake_in_s
                self._told.set()

    def _watch(self) -> KindWatches:
        """Make the hub's own watches, which wake this target as they wake the targets of a session."""
        return KindWatches(
            cluster="one",
            client=self.connection.client,
            discovery=self.connection.discovery,
            live=self.live,
            hub_id=self.hub_id,
            clock=self.connection.client.clock,
            wanted=self._wanted_kinds,
            awaited=lambda: self.report.waits_for if self.report is not None else (),
            on_synced=lambda _kind: self._pulse.set(),
            on_arrival=lambda _key: self._retry(),
            on_definition=self._on_definition,
            on_trouble=lambda _error: None,
            on_doubt=lambda: None,
        )

    def _wanted_kinds(self) -> set[GroupKind]:
        desired = self._order.desired.manifests if self._order.desired else ()
        return {m.key.group_kind for m in desired} | {key.group_kind for key in self.target.entries}

    def _on_change(self, _key: ObjectKey, _before: object, _after: object) -> None:
        self._pulse.set()
        self._told.set()

    def _retry(self) -> None:
        self.target.retry_now()
        self._pulse.set()

    def _on_discovery(self) -> None:
        self.kinds.adjust()
        if self.report is not None and self.report.waits_for:
            self._retry()

    def _on_definition(self, kind: GroupKind) -> None:
        loop = asyncio.get_running_loop()
        self.live.schema_changed_at = loop.time()
        if any(key.group_kind == kind for key in self.target.entries):
            self.target.schema_changed.add(kind)
            loop.call_later(SCHEMA_SETTLE_S, self._pulse.set)


@asynccontextmanager
async def keeping(
    plane: ControlPlane, namespace: str, ledger: FakeLedger | None = None, hub_id: str = ""
) -> AsyncIterator[Keeper]:
    """Run a target for the length of the block; the same ledger and hub id again are a restart."""
    async with connect(plane) as connection:
        system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fleet-system"}}
        await connection.api.apply(manifest(system), priority=Priority.USER)
        keeper = Keeper(connection, namespace, ledger or FakeLedger(), hub_id or uuid.uuid4().hex)
        async with asyncio.TaskGroup() as group:
            task = spawn(group, "keeper", keeper.run())
            yield keeper
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def key(kind: str, namespace: str, name: str, group: str = "") -> ObjectKey:
    """Name an object."""
    return ObjectKey(group, kind, namespace, name)


def deployment(namespace: str, image: str = "web:1", replicas: int = 1) -> dict[str, Any]:
    """Write a Deployment whose pods become ready."""
    labels = {"app": "web"}
    container = {"name": "web", "image": image, "env": [{"name": "MODE", "value": "a"}]}
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
    }
    metadata = {"name": "web", "namespace": namespace, "labels": labels}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def settings(namespace: str, **data: str) -> dict[str, Any]:
    """Write the ConfigMap `settings`."""
    return config_map(namespace, "settings", data)


def job(namespace: str, image: str = "m:1", **spec: Any) -> dict[str, Any]:
    """Write a Job."""
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "m", "image": image}]}}
    metadata = {"name": "migrate", "namespace": namespace}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template, **spec}}


def definition(group: str, *, versions: Sequence[str] = ("v1",)) -> dict[str, Any]:
    """Write a definition of Widgets with a strict schema."""
    spec = {"type": "object", "properties": {"size": {"type": "integer"}}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    served = [{"name": v, "served": True, "storage": v == versions[0], "schema": schema} for v in versions]
    names = {"kind": "Widget", "listKind": "WidgetList", "plural": "widgets", "singular": "widget"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": served},
    }
