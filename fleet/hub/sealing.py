"""The hub's part in delivering sealed values: who looks again when a key changes, and which file needs which key."""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass

from fleet.clock import Clock
from fleet.errors import FetchFailed, FleetError, RevisionMissing
from fleet.hub.queue import Runner
from fleet.hub.supervisor import Supervisor
from fleet.hub.supply import Supply
from fleet.object import Manifest, Seal, TargetId
from fleet.render.renderer import CachingRenderer
from fleet.secrets.key import Keyring
from fleet.secrets.unseal import KeyringUnsealer
from fleet.secrets.usage import WHOLE_FILE, list_age_kids, list_uses
from fleet.store.usage import Usage, UsageStore

SETTLE_S = 1.0
"""What is desired of many clusters at once, and what is opened meanwhile, is written down once."""


class Sealing:
    """Follows what targets should be, and the keyring."""

    def __init__(
        self,
        *,
        supervisor: Supervisor,
        keyring: Keyring,
        unsealer: KeyringUnsealer,
        renderer: CachingRenderer,
        usage: UsageStore,
        clock: Clock,
    ) -> None:
        self._supervisor = supervisor
        self._keyring = keyring
        self._unsealer = unsealer
        self._renderer = renderer
        self._usage = usage
        self._clock = clock
        self.on_scanned: Callable[[], None] = lambda: None
        """Told when the usage index was written."""
        self._versions: dict[str, Hashable] = {}
        self._runner: Runner[str] | None = None
        self._written: dict[str, dict[str, tuple[str, list[Usage]]]] = {}
        """App -> cluster -> revision and rows."""
        supervisor.feed.on_supply = self._take_supply
        keyring.on_change(self.review)
        unsealer.on_kids = self._note_opened

    async def run(self) -> None:
        """Keep the usage index, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._runner = Runner("usage", group, self._clock, self._record)
            for target in self._supervisor.feed.supplies:
                self._runner.mark_later(target.app, SETTLE_S)
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._runner.close()
                self._runner = None

    def is_scanned(self, cluster: str) -> bool:
        """Tell whether the usage index knows what Git holds for a cluster.

        An app that cannot be rendered says nothing and keeps nobody waiting: it may need the very key that is yet to be
        made. One whose repository has not answered may say something yet.
        """
        inventory = self._supervisor.inventory
        if inventory is None or cluster not in inventory.clusters:
            return False
        return all(self._is_scanned(target) for target in inventory.targets if target.cluster == cluster)

    def _is_scanned(self, target: TargetId) -> bool:
        supply = self._supervisor.feed.supplies.get(target)
        if supply is None:
            return False
        needs = self._needs(target, supply)
        if needs is None:
            return supply.failure is not None and not isinstance(supply.failure, FetchFailed | RevisionMissing)
        written = self._written.get(target.app, {}).get(target.cluster)
        return written is not None and written[0] == needs.revision

    def review(self) -> None:
        """Look again at what a changed key may open or close, on the clusters whose keys changed."""
        changed = {t: s for t, s in self._supplies() if self._versions.get(t.cluster) != self._version(t.cluster)}
        self._versions |= {target.cluster: self._version(target.cluster) for target in changed}
        for app in sorted({t.app for t, s in changed.items() if s.target.app.spec.decryption is not None}):
            self._supervisor.feed.review(app)
        for target in changed:
            self._supervisor.take_supply(target)
            self._mark(target.app)

    def _version(self, cluster: str) -> Hashable:
        return self._unsealer.version(cluster)

    def _take_supply(self, target: TargetId) -> None:
        self._supervisor.take_supply(target)
        self._mark(target.app)

    def _note_opened(self, cluster: str) -> None:
        for target in self._supervisor.feed.supplies:
            if target.cluster == cluster:
                self._mark(target.app)

    def _mark(self, app: str) -> None:
        if self._runner is not None:
            self._runner.mark_later(app, SETTLE_S)

    def _needs(self, target: TargetId, supply: Supply) -> "_Needs | None":
        """Return what a target must be able to open: what it has, and what a rollout will bring it."""
        newest, desired = self._supervisor.feed.newest_of(target), supply.desired
        if newest is None and desired is None:
            return None
        had = desired.manifests if desired is not None else ()
        coming = newest.rendered.manifests if newest is not None else ()
        sealed = {(m.key, m.digest): m for m in (*had, *coming) if m.seal is not Seal.NONE}
        revision = newest.head if newest is not None else desired.revision if desired is not None else ""
        return _Needs(revision=revision, manifests=tuple(sealed.values()))

    async def _record(self, app: str) -> None:
        """Write down what an app's clusters need; a cluster held at an earlier release needs what that one has, too."""
        written = dict(self._written.get(app, {}))
        changed: dict[str, dict[str, list[Usage]]] = {}
        supplies = {t: s for t, s in self._supervisor.feed.supplies.items() if t.app == app}
        for target, supply in supplies.items():
            needs = self._needs(target, supply)
            if needs is None:
                continue
            rows = [*self._uses(target, supply, needs), *await self._source_uses(target, supply, needs)]
            if written.get(target.cluster) != (needs.revision, rows):
                changed.setdefault(needs.revision, {})[target.cluster] = rows
                written[target.cluster] = (needs.revision, rows)
        for revision, by_cluster in changed.items():
            repository = next(iter(supplies.values())).target.app.spec.repository
            found = [row for rows in by_cluster.values() for row in rows]
            await self._usage.replace(repository, app, revision, found, clusters=by_cluster.keys())
        await self._forget_left(app, written)
        self._written[app] = written
        self.on_scanned()

    async def _forget_left(self, app: str, written: dict[str, tuple[str, list[Usage]]]) -> None:
        """Forget apps that left the inventory, and clusters that an app does not go to any more.

        What cannot be read just now is not gone: the inventory decides, and not what could be rendered.
        """
        inventory = self._supervisor.inventory
        if inventory is None or not inventory.authoritative:
            return
        targets = [target for target in inventory.targets.values() if target.id.app == app]
        known = set(written)
        if app not in self._written:
            known |= {row.cluster for row in await self._usage.load() if row.app == app}
        gone = known - {target.id.cluster for target in targets}
        for cluster in gone:
            written.pop(cluster, None)
        if gone and targets:
            await self._usage.replace(targets[0].app.spec.repository, app, "", [], clusters=gone)
        await self._usage.keep({(t.app.spec.repository, t.id.app) for t in inventory.targets.values()})

    def _supplies(self) -> Iterable[tuple[TargetId, Supply]]:
        return self._supervisor.feed.supplies.items()

    def _uses(self, target: TargetId, supply: Supply, needs: "_Needs") -> Iterator[Usage]:
        for m in needs.manifests:
            opened_with = self._unsealer.kids.get((target.cluster, m.digest), {})
            for item, kid in list_uses(m, target.cluster, self._keyring, opened_with):
                place = (m.origin.file, m.key.namespace, m.key.name)
                yield _usage(target, supply, needs.revision, kid=kid, item=item, place=place)

    async def _source_uses(self, target: TargetId, supply: Supply, needs: "_Needs") -> list[Usage]:
        """List the sources of a build that had to be opened; what cannot be read any more needs no key."""
        snapshot = self._supervisor.mirrors.snapshot(supply.target.app.spec.repository)
        if supply.target.app.spec.decryption is None or snapshot is None:
            return []
        given = self._supervisor.feed.render_input(supply.target, snapshot.store, needs.revision)
        try:
            sources = await self._renderer.find_sealed(given)
        except FleetError:
            return []
        return [
            _usage(target, supply, needs.revision, kid=kid, item=WHOLE_FILE, place=(path, "", ""))
            for path, data in sorted(sources.items())
            for kid in list_age_kids(data, target.cluster, self._keyring)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Needs:
    revision: str
    """The newest that was rendered."""
    manifests: tuple[Manifest, ...]
    """Those that are sealed."""


def _usage(
    target: TargetId, supply: Supply, revision: str, *, kid: str, item: str, place: tuple[str, str, str]
) -> Usage:
    path, namespace, name = place
    return Usage(
        repository=supply.target.app.spec.repository,
        app=target.app,
        revision=revision,
        cluster=target.cluster,
        kid=kid,
        path=path,
        namespace=namespace,
        name=name,
        item=item,
    )
