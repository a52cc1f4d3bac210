"""Targets on a fake cluster: what a session gives them, without a session."""

import asyncio
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any

from fleet.annotation import HUB
from fleet.errors import SealError
from fleet.kube.wire import Observed
from fleet.object import GroupKind, Manifest, ObjectKey, Origin, Revision, Seal, TargetId
from fleet.reconcile.health import has_status
from fleet.reconcile.live import Live
from fleet.reconcile.plan import Change
from fleet.reconcile.port import Policy
from fleet.reconcile.run import Desired, Order, Report, Surroundings
from fleet.reconcile.summary import Summary, summarise_report
from fleet.reconcile.target import Target
from fleet.render.normalize import make_manifest
from fleet.store.ledger import Entry, Lease
from tests.harness.cluster import CRD, FakeCluster

HUB_ID = "hub-1"
CLUSTER = "prod"
START = datetime(2026, 1, 1, tzinfo=UTC)
_NUMBERS = count(1)

Body = Mapping[str, Any]


class LoopClock:
    """Wall time that goes with the loop's, and a seeded generator."""

    def __init__(self) -> None:
        self.rng = Random(1)

    def now(self) -> datetime:
        return START + timedelta(seconds=asyncio.get_running_loop().time())


class NoUnsealer:
    """Has no keys: sealed manifests do not open, others are already what they should be."""

    def version(self, cluster: str) -> Hashable:
        """Return the same for ever."""
        return None

    async def weigh(self, m: Manifest, cluster: str) -> bytes:
        """Refuse."""
        raise SealError(f"{m.origin}: nothing is opened here", reason="UnknownKey")

    async def open(self, m: Manifest, cluster: str) -> Manifest:
        """Return the manifest as it is. Raises: SealError when it is sealed."""
        if m.seal is not Seal.NONE:
            await self.weigh(m, cluster)
        return m


@dataclass
class FakeLedger:
    """Ledger rows in memory; what survives a restart."""

    rows: dict[TargetId, dict[ObjectKey, Entry]] = field(default_factory=dict)
    writes: int = 0

    async def load_cluster(self, cluster: str) -> dict[TargetId, dict[ObjectKey, Entry]]:
        """Copy the rows."""
        return {target: dict(rows) for target, rows in self.rows.items()}

    async def intend(self, target: TargetId, keys: Sequence[ObjectKey], lease: Lease) -> None:
        """Add empty rows."""
        for key in keys:
            blank = Entry(key=key, version="", desired=b"", owned=b"", uid="", rv=0, applied_at=START)
            self.rows.setdefault(target, {}).setdefault(key, blank)

    async def record(self, target: TargetId, entries: Sequence[Entry], gone: Sequence[ObjectKey], lease: Lease) -> None:
        """Replace rows."""
        self.writes += 1
        rows = self.rows.setdefault(target, {})
        rows.update({entry.key: entry for entry in entries})
        for key in gone:
            rows.pop(key, None)

    async def rebuild(self, rows: Mapping[TargetId, Mapping[ObjectKey, Entry]], lease: Lease) -> None:
        """Take rows."""
        for target, entries in rows.items():
            self.rows.setdefault(target, {}).update(entries)

    async def hand_over(self, source: TargetId, to: TargetId, keys: Sequence[ObjectKey], lease: Lease) -> None:
        """Move rows."""
        for key in keys:
            if (row := self.rows.get(source, {}).pop(key, None)) is not None:
                self.rows.setdefault(to, {})[key] = row


def manifests(*bodies: Body, namespace: str = "shop") -> tuple[Manifest, ...]:
    """Make manifests as rendering does."""
    return tuple(
        make_manifest(
            body,
            namespace=namespace,
            scopes={},
            digest_key=b"key",
            origin=Origin(f"{body['metadata']['name']}.yaml", 1),
        )
        for body in bodies
    )


class Rig:
    """One cluster with targets. Watches show every change at once; `lag` holds their news back."""

    def __init__(self, cluster: FakeCluster | None = None, ledger: FakeLedger | None = None) -> None:
        self.cluster = cluster or FakeCluster()
        self.ledger = ledger or FakeLedger()
        self.clock = LoopClock()
        self.wishes: dict[TargetId, tuple[Manifest, ...]] = {}
        self.targets: dict[TargetId, Target] = {}
        self.lag = False
        self._late: list[tuple[ObjectKey, Observed | None, Observed | None]] = []
        self.woken: list[ObjectKey] = []
        self.live = Live(lambda key, _before, _after: self.woken.append(key))
        self.watched: set[GroupKind] = set()
        self.cluster.on_event = self._on_event
        self.around = Surroundings(
            hub_id=HUB_ID,
            api=lambda _: self.cluster,
            kinds=self.cluster,
            live=self.live,
            ledger=self.ledger,
            lease=Lease(cluster=CLUSTER, epoch=1),
            clock=self.clock,
            unsealer=NoUnsealer(),
            owners={key: target for target, rows in self.ledger.rows.items() for key in rows},
            wants=lambda key, target: key in {m.key for m in self.wishes.get(target, ())},
            ledgers={target: dict(rows) for target, rows in self.ledger.rows.items()},
            digest_key=b"key",
            wanted_by=self._wanted_by,
        )

    def _wanted_by(self, key: ObjectKey, target: TargetId) -> TargetId | None:
        others = (other for other, wanted in self.wishes.items() if other != target and key in {m.key for m in wanted})
        return next(others, None)

    def restarted(self) -> "Rig":
        """Return what a new hub process finds: the same cluster and database, nothing else."""
        return Rig(self.cluster, self.ledger)

    def target(self, app: str = "app") -> Target:
        """Return an app's target."""
        key = TargetId(CLUSTER, app)
        if key not in self.targets:
            self.targets[key] = Target(key, self.around)
        return self.targets[key]

    async def run(
        self, *bodies: Body, app: str = "app", policy: Policy | None = None, release: int = 1, **order: Any
    ) -> Report:
        """Run a target once, with watches open for every kind that matters."""
        wanted = manifests(*bodies)
        target = self.target(app)
        self.wishes[target.id] = wanted
        self.watch(m.key.group_kind for m in wanted)
        self.watch(key.group_kind for key in target.entries)
        digest = b"".join(m.digest for m in wanted).hex()
        desired = Desired(release=release, revision=Revision("0" * 40), digest=digest, manifests=wanted)
        report = await target.run_once(
            Order(policy=policy or Policy(), desired=None if order.get("removed") else desired, **order)
        )
        await target.save_finished()
        self.watch(m.key.group_kind for m in wanted)
        return report

    def wish(self, app: str, *bodies: Body) -> None:
        """Make an app desire objects before its target runs."""
        self.wishes[TargetId(CLUSTER, app)] = manifests(*bodies)

    async def settle(self, *bodies: Body, **order: Any) -> Report:
        """Run until nothing is left to do now."""
        for _ in range(6):
            report = await self.run(*bodies, **order)
            if report.complete and not report.written and not report.pruned:
                return report
        return report

    def watch(self, kinds: Iterable[GroupKind]) -> None:
        """Open watches; their first list is shown at once."""
        for kind in sorted(set(kinds) - self.watched):
            if self.cluster.resource(kind) is not None:
                self.watched.add(kind)
                self.relist(kind)

    def relist(self, kind: GroupKind) -> None:
        """Show a fresh list of a kind."""
        self.live.restart(kind)
        for key, stored in list(self.cluster.objects.items()):
            if key.group_kind == kind:
                self._show(stored.observed(whole=has_status(kind)))
        self.live.sync(kind)

    def deliver(self) -> None:
        """Show what was held back."""
        self.lag = False
        late, self._late = self._late, []
        for event in late:
            self._on_event(event)

    def _on_event(self, event: tuple[ObjectKey, Observed | None, Observed | None]) -> None:
        key, before, after = event
        if key.group_kind not in self.watched:
            return
        if self.lag:
            self._late.append(event)
        elif after is not None and after.labels.get(HUB) == HUB_ID:
            self._show(after)
        elif before is not None and before.labels.get(HUB) == HUB_ID:
            self.live.drop(key)

    def _show(self, observed: Observed) -> None:
        if observed.labels.get(HUB) == HUB_ID:
            whole = has_status(observed.key.group_kind)
            self.live.see(observed if whole else _reduced(observed), HUB_ID, self.clock.now())

    def summary(self, report: Report) -> Summary:
        """Summarise a report with what is live now."""
        return summarise_report(report, self.live.get)


def _reduced(observed: Observed) -> Observed:
    fields = {name: getattr(observed, name) for name in observed.__struct_fields__}
    return Observed(**{**fields, "body": None})


def change_of(report: Report, key: ObjectKey) -> Change:
    """Pick the change of one object."""
    return next(change for change in report.changes if change.key == key)


def says(report: Report) -> dict[str, str]:
    """Write a report as `kind/name: action reason`."""
    return {f"{c.key.kind}/{c.key.name}": f"{c.action.value} {c.reason}" for c in report.changes}


def key_of(body: Body, namespace: str = "shop") -> ObjectKey:
    """Name the object that a body describes."""
    return manifests(body, namespace=namespace)[0].key


def config(name: str = "a", **data: str) -> dict[str, Any]:
    """Write a ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop"}, "data": data}


def annotated(body: Body, **annotations: str) -> dict[str, Any]:
    """Add annotations."""
    return {**body, "metadata": {**body["metadata"], "annotations": annotations}}


def plain(api_version: str, kind: str, name: str, **more: Any) -> dict[str, Any]:
    """Write any object."""
    namespaced = kind not in {"Namespace", "PersistentVolume", "ClusterRole", "CustomResourceDefinition"}
    metadata = {"name": name, **({"namespace": "shop"} if namespaced else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}


def deployment(name: str = "web", image: str = "web:1", replicas: int | None = 2) -> dict[str, Any]:
    """Write a Deployment."""
    spec: dict[str, Any] = {"template": {"spec": {"containers": [{"name": "web", "image": image}]}}}
    return plain("apps/v1", "Deployment", name, spec=spec if replicas is None else {**spec, "replicas": replicas})


def job(name: str = "migrate", image: str = "m:1") -> dict[str, Any]:
    """Write a Job."""
    template = {"spec": {"containers": [{"name": "m", "image": image}]}}
    return plain("batch/v1", "Job", name, spec={"template": template})


def definition(kind: str = "Widget", group: str = "example.com") -> dict[str, Any]:
    """Write a CustomResourceDefinition."""
    spec = {
        "group": group,
        "scope": "Namespaced",
        "names": {"kind": kind, "plural": f"{kind.lower()}s"},
        "versions": [{"name": "v1", "served": True, "storage": True}],
    }
    assert CRD.kind == "CustomResourceDefinition"
    return plain("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"{kind.lower()}s.{group}", spec=spec)
