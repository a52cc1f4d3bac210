"""The hub's part in delivering sealed values: who looks again when a key changes, and which file needs which key."""

import asyncio
from collections.abc import Callable, Iterator

from fleet.clock import Clock
from fleet.errors import FleetError, SealError
from fleet.hub.feed import Supply
from fleet.hub.queue import Runner
from fleet.hub.supervisor import Supervisor
from fleet.object import Seal, TargetId
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
        self._runner: Runner[str] | None = None
        self._written: dict[str, dict[str, dict[str, list[Usage]]]] = {}
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

        A build whose sources do not open is known enough: it may be waiting for a key that is yet to be made.
        """
        inventory = self._supervisor.inventory
        if inventory is None or cluster not in inventory.clusters:
            return False
        return all(self._is_scanned(target) for target in inventory.targets if target.cluster == cluster)

    def _is_scanned(self, target: TargetId) -> bool:
        supply = self._supervisor.feed.supplies.get(target)
        if supply is None or supply.desired is None:
            return supply is not None and isinstance(supply.failure, SealError)
        return target.cluster in self._written.get(target.app, {}).get(supply.desired.revision, {})

    def review(self) -> None:
        """Look again at what a changed key may open or close: every target, and builds with sealed sources first."""
        feed = self._supervisor.feed
        for app in sorted({t.app for t, s in feed.supplies.items() if s.target.app.spec.decryption is not None}):
            feed.review(app)
        for target in feed.supplies:
            self._supervisor.take_supply(target)
            self._mark(target.app)

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

    async def _record(self, app: str) -> None:
        """Write down what an app's clusters need; a cluster held at an earlier release needs what that one has."""
        supplies = {t: s for t, s in self._supervisor.feed.supplies.items() if t.app == app and s.desired is not None}
        found: dict[str, dict[str, list[Usage]]] = {}
        for target, supply in supplies.items():
            assert supply.desired is not None
            rows = [*self._uses(target, supply), *await self._source_uses(target, supply)]
            found.setdefault(supply.desired.revision, {})[target.cluster] = rows
        if found == self._written.get(app):
            return
        for revision, by_cluster in found.items():
            repository = next(iter(supplies.values())).target.app.spec.repository
            rows = [row for cluster in by_cluster.values() for row in cluster]
            await self._usage.replace(repository, app, revision, rows, clusters=by_cluster.keys())
        self._written[app] = found
        known = {(s.target.app.spec.repository, t.app) for t, s in self._supervisor.feed.supplies.items()}
        await self._usage.keep(known)
        self.on_scanned()

    def _uses(self, target: TargetId, supply: Supply) -> Iterator[Usage]:
        for m in supply.desired.manifests if supply.desired is not None else ():
            if m.seal is not Seal.NONE:
                opened_with = self._unsealer.kids.get((target.cluster, m.digest), {})
                for item, kid in list_uses(m, target.cluster, self._keyring, opened_with):
                    yield _usage(target, supply, kid, item, place=(m.origin.file, m.key.namespace, m.key.name))

    async def _source_uses(self, target: TargetId, supply: Supply) -> list[Usage]:
        """List the sources of a build that had to be opened; what cannot be read any more needs no key."""
        desired = supply.desired
        snapshot = self._supervisor.mirrors.snapshot(supply.target.app.spec.repository)
        if supply.target.app.spec.decryption is None or desired is None or snapshot is None:
            return []
        given = self._supervisor.feed.render_input(supply.target, snapshot.store, desired.revision)
        try:
            sources = await self._renderer.find_sealed(given)
        except FleetError:
            return []
        return [
            _usage(target, supply, kid, WHOLE_FILE, place=(path, "", ""))
            for path, data in sorted(sources.items())
            for kid in list_age_kids(data, target.cluster, self._keyring)
        ]


def _usage(target: TargetId, supply: Supply, kid: str, item: str, *, place: tuple[str, str, str]) -> Usage:
    path, namespace, name = place
    return Usage(
        repository=supply.target.app.spec.repository,
        app=target.app,
        revision=supply.desired.revision if supply.desired is not None else "",
        cluster=target.cluster,
        kid=kid,
        path=path,
        namespace=namespace,
        name=name,
        item=item,
    )
