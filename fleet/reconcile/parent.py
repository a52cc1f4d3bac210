"""The upkeep of a target's ApplySet parent: it covers every kind and namespace before objects of it are written."""

from collections.abc import Iterable

from fleet.annotation import HUB
from fleet.object import ObjectKey, TargetId
from fleet.reconcile.applyset import Scope, parent_key, parent_manifest, scope_in, scope_of
from fleet.reconcile.carry import Site


class Parent:
    """What is known of a target's parent ConfigMap; None until it was read."""

    def __init__(self, target: TargetId) -> None:
        self._target = target
        self._scope: Scope | None = None
        self._foreign = False
        """It names another hub."""

    async def cover(self, site: Site, keys: Iterable[ObjectKey]) -> None:
        """Widen the parent to cover objects that are about to be written. Raises: KubeError."""
        wanted = scope_of(keys)
        scope = await self._read(site)
        if self._foreign or not scope.covers(wanted):
            await self._write(site, scope.union(wanted))

    async def shrink(self, site: Site, keys: Iterable[ObjectKey]) -> None:
        """Narrow the parent to what is left after a prune. Raises: KubeError."""
        wanted = scope_of(keys)
        if not wanted.covers(await self._read(site)):
            await self._write(site, wanted)

    async def remove(self, site: Site) -> None:
        """Delete the parent: nothing is left of the target. Raises: KubeError."""
        found = await site.system.get_metadata(parent_key(self._target), priority=site.priority)
        if found is not None:
            await site.system.delete(found.key, found.uid, priority=site.priority)
        self._scope = None

    async def _read(self, site: Site) -> Scope:
        if self._scope is None:
            found = await site.system.get_metadata(parent_key(self._target), priority=site.priority)
            self._scope = scope_in(found) if found is not None else Scope()
            self._foreign = found is not None and found.annotations.get(HUB) != site.hub_id
        return self._scope

    async def _write(self, site: Site, scope: Scope) -> None:
        await site.system.apply(parent_manifest(self._target, scope, site.hub_id), priority=site.priority)
        self._scope, self._foreign = scope, False
