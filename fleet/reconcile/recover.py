"""A ledger that was lost, rebuilt from the marks that objects carry: ApplySet parents say where to look (design §8, §11).

Nothing is written meanwhile. What is desired is recognised by a dry-run: an apply that would change nothing has been done.
What is not desired is kept, and shown, until a person confirms that it may be pruned.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

import msgspec

from fleet.aio import spawn
from fleet.annotation import APPLYSET_ID, HUB, PART_OF
from fleet.errors import FleetError
from fleet.kube.gate import Priority
from fleet.kube.ownership import own_entry, owned_digest
from fleet.kube.wire import Observed
from fleet.object import GroupKind, ObjectKey, TargetId
from fleet.reconcile.applyset import PARENT_PREFIX, SYSTEM_NAMESPACE, scope_in, set_id
from fleet.reconcile.carry import Site, entry_of, is_cluster_failure, leave_to_others, stamp
from fleet.reconcile.plan import FOUND, Change
from fleet.reconcile.port import Kinds
from fleet.store.ledger import Entry

VOLATILE = frozenset({"managedFields", "resourceVersion", "generation"})


class Lister(Protocol):
    """What finding marked objects needs of an API server."""

    async def list_metadata(
        self, kind: GroupKind, namespace: str, *, label_selector: str = "", priority: Priority
    ) -> list[Observed]:
        """List metadata of one kind in a namespace (empty: everywhere)."""
        ...


async def find_marked(
    api: Lister, kinds: Kinds, *, cluster: str, hub_id: str, now: datetime
) -> dict[TargetId, dict[ObjectKey, Entry]]:
    """Find every object that this hub applied to a cluster, by target, as rows in state `FOUND`. Raises: KubeError."""
    listed = await api.list_metadata(
        GroupKind("", "ConfigMap"), SYSTEM_NAMESPACE, label_selector=APPLYSET_ID, priority=Priority.APPLY
    )
    parents = {parent.labels.get(APPLYSET_ID, ""): parent for parent in listed if parent.annotations.get(HUB) == hub_id}
    targets = {
        part_of: TargetId(cluster, parent.key.name.removeprefix(PARENT_PREFIX)) for part_of, parent in parents.items()
    }
    targets = {part_of: target for part_of, target in targets.items() if part_of == set_id(target)}
    found: dict[TargetId, dict[ObjectKey, Entry]] = {}
    for name in sorted({name for part_of in targets for name in scope_in(parents[part_of]).kinds}):
        kind = parse_kind(name)
        resource = kinds.resource(kind)
        if resource is None:
            continue  # it went with its definition
        for observed in await api.list_metadata(kind, "", label_selector=f"{HUB}={hub_id}", priority=Priority.APPLY):
            target = targets.get(observed.labels.get(PART_OF, ""))
            if target is not None and own_entry(observed.managed) is not None and not observed.controller:
                found.setdefault(target, {})[observed.key] = _row(observed, resource.gvk.version, now)
    return found


def parse_kind(text: str) -> GroupKind:
    """Read a kind as ApplySet parents write it.

    >>> parse_kind("Deployment.apps"), parse_kind("ConfigMap")
    (GroupKind(group='apps', kind='Deployment'), GroupKind(group='', kind='ConfigMap'))
    """
    kind, _, group = text.partition(".")
    return GroupKind(group, kind)


def _row(observed: Observed, version: str, now: datetime) -> Entry:
    return Entry(
        key=observed.key,
        version=version,
        desired=b"",
        owned=owned_digest(observed.managed),
        uid=observed.uid,
        rv=observed.rv,
        applied_at=now,
        state=FOUND,
    )


async def recognise(site: Site, changes: Sequence[Change]) -> list[Entry]:
    """Return the rows of found objects that are desired: as applied where that would change nothing, else to be applied.

    Raises: KubeError when the cluster as a whole fails.
    """
    rows: list[Entry] = []
    failures: list[FleetError] = []

    async def one(change: Change) -> None:
        assert change.entry is not None
        try:
            known = await _recognise_one(site, change)
        except FleetError as error:
            if is_cluster_failure(error):
                failures.append(error)
            known = None
        rows.append(known or replace(change.entry, state=""))

    async with asyncio.TaskGroup() as group:
        for change in changes:
            spawn(group, f"recognise/{change.key}", one(change))
    if failures:
        raise failures[0]
    return rows


async def _recognise_one(site: Site, change: Change) -> Entry | None:
    """Return the row of an object that an apply would leave as it is; None when it would not."""
    assert change.manifest is not None
    manifest = await site.unsealer.open(change.manifest, site.target.cluster)
    live = await site.api.get(change.key, priority=Priority.APPLY, version=manifest.version)
    if live is None:
        return None
    sent = leave_to_others(site, stamp(site, manifest), live)
    answer = await site.api.apply(sent, priority=Priority.APPLY, dry_run=True, force=True, whole=True)
    applied = answer.observed
    same = owned_digest(applied.managed) == owned_digest(live.managed) and _essence(applied) == _essence(live)
    return entry_of(site, change.manifest, live, site.clock.now()) if same else None


def _essence(observed: Observed) -> Mapping[str, Any]:
    """Decode an object without its status and what every write changes."""
    body: dict[str, Any] = msgspec.json.decode(observed.body or b"{}")
    body.pop("status", None)
    body["metadata"] = {name: value for name, value in (body.get("metadata") or {}).items() if name not in VOLATILE}
    return body
