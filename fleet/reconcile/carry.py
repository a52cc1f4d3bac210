"""Carrying a plan out: the requests, rank by rank, in parallel inside a rank.

One object's failure is a value in its `Result`; only a lost lease, a broken database or cancellation ends a run.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any

import msgspec
import structlog

from fleet.aio import spawn
from fleet.annotation import HUB, PART_OF
from fleet.clock import Clock
from fleet.errors import (
    Cause,
    FleetError,
    Forbidden,
    Invalid,
    KubeError,
    NotFound,
    ServerFailure,
    Unauthorized,
    Unreachable,
)
from fleet.kube.api import Applied
from fleet.kube.gate import Priority
from fleet.kube.ownership import foreign_additions, owned_digest, plan_fold, plan_preexisting, plan_served
from fleet.kube.wire import Observed
from fleet.object import Adopt, GroupKind, Gvk, Manifest, ObjectKey, TargetId, encode_canonical, parse_gvk
from fleet.reconcile.ignore import ignored_pointers, yield_fields
from fleet.reconcile.live import Live, scaler, summarise
from fleet.reconcile.order import prune_rank, rank
from fleet.reconcile.plan import DELIVERY_MANAGERS, Action, Change, additions
from fleet.reconcile.port import ClusterApi, Kinds, Policy, Unsealer
from fleet.store.ledger import Entry

log = structlog.get_logger()

CRD = GroupKind("apiextensions.k8s.io", "CustomResourceDefinition")
RECREATED = frozenset({GroupKind("batch", "Job"), GroupKind("", "Pod")})
"""Kinds whose changed template cannot be applied: they are deleted and created, once per digest."""
VERSION_GONE = "request to convert CR to an invalid group/version"
"""What a server says of a custom resource whose field entries name a version that its definition no longer has."""
SCHEMA_WAIT_S = 10.0
SCHEMA_RETRY_S = 60.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one change."""

    change: Change
    error: FleetError | None = None
    waits_for: ObjectKey | None = None
    """The namespace or definition whose arrival wakes this object."""
    entry: Entry | None = None
    gone: bool = False
    makes_room: bool = False
    """The object had to be deleted first and is not gone yet: it is created in a later run."""
    created: bool = False
    overridden: tuple[Cause, ...] = ()
    unrepaired: tuple[str, ...] = ()
    """Paths that drift managers added and that are still there after a repair."""
    redefines: bool = False
    """A definition whose schema this write changed."""

    @property
    def key(self) -> ObjectKey:
        """The object."""
        return self.change.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The cluster a target's changes are carried to, and the target's part in it."""

    target: TargetId
    part_of: str
    hub_id: str
    api: ClusterApi
    system: ClusterApi
    """The hub's own identity."""
    kinds: Kinds
    live: Live
    clock: Clock
    unsealer: Unsealer
    policy: Policy
    priority: Priority = Priority.APPLY


async def carry_writes(site: Site, changes: Sequence[Change], done: Callable[[Result], None]) -> None:
    """Create and configure, by rank; a definition's kind is waited for before its objects' rank.

    Calls `done` once per change, rank by rank. Raises: Unreachable, Unauthorized when all of a rank failed so: then it is
    the cluster that fails, and later ranks are not tried.
    Cancelled: requests in flight are abandoned; their effect is unknown.
    """
    ordered = sorted(changes, key=_write_rank)
    for _, members in groupby(ordered, key=_write_rank):
        batch = list(members)
        hashes = await _schema_hashes(site, batch)
        results = await _carry_rank(site, "apply", batch, _write_one, done)
        redefined = {result.key for result in results if result.redefines}
        await _await_schemas(site, {gvk: before for (key, gvk), before in hashes.items() if key in redefined})


async def carry_prunes(site: Site, changes: Sequence[Change], done: Callable[[Result], None]) -> None:
    """Delete or let go, in reverse order of ranks. Raises: as `carry_writes`."""
    ordered = sorted(changes, key=_prune_rank)
    for _, members in groupby(ordered, key=_prune_rank):
        await _carry_rank(site, "prune", list(members), _prune_one, done)


async def _carry_rank(
    site: Site,
    name: str,
    changes: Sequence[Change],
    act: Callable[[Site, Change], Coroutine[Any, Any, Result]],
    done: Callable[[Result], None],
) -> list[Result]:
    results: list[Result] = []
    cut_off: list[FleetError] = []
    try:
        async with asyncio.TaskGroup() as group:
            for change in changes:
                spawn(group, f"{name}/{change.key}", _carry_one(site, change, act, results.append))
        cut_off = [r.error for r in results if r.error is not None and is_cluster_failure(r.error)]
        if cut_off and len(cut_off) == len(results):
            raise cut_off[0]
    finally:
        for result in results:
            if len(cut_off) < len(results):
                done(result)
    return results


def is_cluster_failure(error: FleetError) -> bool:
    """Tell a failure that no object is to blame for; a single request may time out by a slow webhook of its own."""
    return isinstance(error, Unauthorized) or (isinstance(error, Unreachable) and error.reason != "Timeout")


def _write_rank(change: Change) -> Any:
    assert change.manifest is not None
    return rank(change.key, change.manifest.flags)


def _prune_rank(change: Change) -> Any:
    return prune_rank(change.key)


async def _carry_one(
    site: Site,
    change: Change,
    act: Callable[[Site, Change], Coroutine[Any, Any, Result]],
    done: Callable[[Result], None],
) -> None:
    try:
        result = await act(site, change)
    except FleetError as error:
        result = Result(change=change, error=error, waits_for=_arrival(site, change, error))
    except Exception as error:
        log.exception("internal error", target=str(site.target), object=str(change.key))
        bug = FleetError(f"{type(error).__name__} while writing; the log has the traceback", reason="InternalError")
        result = Result(change=change, error=bug)
    done(result)


def _arrival(site: Site, change: Change, error: FleetError) -> ObjectKey | None:
    """Name the object whose arrival would end this failure by itself."""
    if isinstance(error, NotFound) and error.what == "namespace":
        return ObjectKey("", "Namespace", "", change.key.namespace)
    if isinstance(error, NotFound) and error.what == "kind":
        return definition_of(change.key.group_kind)
    if isinstance(error, Forbidden) and error.reason == "NamespaceTerminating":
        return ObjectKey("", "Namespace", "", change.key.namespace)
    return None


def definition_of(kind: GroupKind) -> ObjectKey:
    """Stand for the CRD of a kind; its plural is not known, so the name is the kind's."""
    return ObjectKey(CRD.group, CRD.kind, "", str(kind))


async def _write_one(site: Site, change: Change) -> Result:
    assert change.manifest is not None
    manifest = await site.unsealer.open(change.manifest, site.target.cluster)
    priority = Priority.DRIFT if change.is_drift else site.priority
    sent = await as_sent(site, change, manifest, priority)
    try:
        applied = await _apply(site, sent, priority)
    except Invalid as error:
        if error.reason != "ImmutableField" or not may_recreate(change, manifest):
            raise
        if not await _make_room(site, change, priority):
            return Result(change=change, makes_room=True)
        applied = await site.api.apply(stamp(site, manifest), priority=priority)
    observed = applied.observed
    if not applied.created:
        observed = await _mark_preexisting(site, change, sent, observed, priority)
        observed = await _undo_additions(site, change, sent, observed, priority)
    now = site.clock.now()
    site.live.put(change.key, summarise(observed, site.hub_id, now), written=True)
    return Result(
        change=change,
        entry=entry_of(site, change.manifest, observed, now),
        created=applied.created,
        overridden=applied.overridden,
        unrepaired=_left_over(site, change, observed),
        redefines=change.key.group_kind == CRD
        and (change.live is None or change.live.generation != observed.generation),
    )


def entry_of(site: Site, manifest: Manifest, observed: Observed, now: datetime) -> Entry:
    """Make the ledger row of an object that is as applied."""
    yielded = _yielded(site, manifest.key, scaler(observed.managed))
    return Entry(
        key=manifest.key,
        version=manifest.version,
        desired=manifest.digest,
        owned=owned_digest(observed.managed, yielded),
        uid=observed.uid,
        rv=observed.rv,
        applied_at=now,
    )


def _yielded(site: Site, key: ObjectKey, scaled_by: str) -> tuple[str, ...]:
    return ignored_pointers(site.policy.ignore, key, scaled_by, site.policy.drift_managers)


async def _apply(site: Site, sent: Manifest, priority: Priority) -> Applied:
    """Apply; after a definition changed, "field not declared in schema" is the old schema speaking: ask again."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SCHEMA_RETRY_S
    moved = False
    while True:
        try:
            return await site.api.apply(sent, priority=priority)
        except ServerFailure as error:
            if moved or VERSION_GONE not in error.message:
                raise
            moved = True
            await _leave_old_versions(site, sent, priority)
        except Invalid as error:
            recent = loop.time() - site.live.schema_changed_at < SCHEMA_RETRY_S
            if error.reason != "SchemaMismatch" or not recent or loop.time() > deadline:
                raise
            await asyncio.sleep(POLL_S)


async def _leave_old_versions(site: Site, sent: Manifest, priority: Priority) -> None:
    """Move field entries of versions that a definition gave up to the one that is applied now."""
    group, kind = sent.key.group_kind

    def is_served(api_version: str) -> bool:
        gvk = parse_gvk(api_version, kind)
        return gvk.group != group or site.kinds.resource_for(gvk) is not None

    await site.api.patch_planned(
        sent.key,
        lambda seen: plan_served(seen.managed, is_served, sent.gvk.api_version, seen.rv),
        priority=priority,
    )


def stamp(site: Site, manifest: Manifest) -> Manifest:
    """Put our labels on a manifest."""
    body = msgspec.json.decode(manifest.body)
    labels = body["metadata"].setdefault("labels", {})
    labels[PART_OF], labels[HUB] = site.part_of, site.hub_id
    return replace(manifest, body=encode_canonical(body))


async def as_sent(site: Site, change: Change, manifest: Manifest, priority: Priority) -> Manifest:
    """Stamp a manifest and leave to others what is theirs, if the object exists.

    One that is new to the cache may exist, too: adopted, or "deleted" by losing our label. What it may be scaled by is
    only known from itself.
    """
    stamped = stamp(site, manifest)
    if change.action is Action.CREATE and change.reason != "Deleted":
        return stamped
    desired = msgspec.json.decode(stamped.body)
    known = change.live
    may_scale = known is None and "replicas" in (desired.get("spec") or {})
    if not may_scale and not _yielded(site, change.key, known.scaled_by if known else ""):
        return stamped
    live = await site.api.get(change.key, priority=priority)
    if live is None or live.body is None:
        return stamped
    return leave_to_others(site, stamped, live)


def leave_to_others(site: Site, stamped: Manifest, live: Observed) -> Manifest:
    """Leave out of a manifest what others hold of an object (`body` set) and we yield."""
    pointers = yielded_of(site, live)
    if not pointers:
        return stamped
    found = msgspec.json.decode(live.body or b"{}")
    sent = yield_fields(msgspec.json.decode(stamped.body), found, live.managed, pointers)
    return replace(stamped, body=encode_canonical(sent))


def yielded_of(site: Site, live: Observed) -> tuple[str, ...]:
    """List the JSON pointers that are not ours to set on an object as it is."""
    return _yielded(site, live.key, scaler(live.managed))


async def _undo_additions(
    site: Site, change: Change, sent: Manifest, observed: Observed, priority: Priority
) -> Observed:
    """Fold into our entry what drift managers added, and apply again, which removes it.

    After the first apply, not before it: that takes back what was taken, and most drift is no more than that.
    """
    if _is_first(change) or not site.policy.repair:
        return observed
    live = summarise(observed, site.hub_id, site.clock.now())
    if not additions(site.policy, sent, live, _yielded(site, change.key, live.scaled_by)):
        return observed
    managers = site.policy.drift_managers

    def plan(seen: Observed) -> Sequence[Mapping[str, object]] | None:
        return plan_fold(seen.managed, managers, seen.rv, _yielded(site, change.key, scaler(seen.managed)))

    await site.api.patch_planned(change.key, plan, priority=priority, observed=observed)
    return (await _apply(site, sent, priority)).observed


def _is_first(change: Change) -> bool:
    return change.action is Action.ADOPT or change.entry is None


async def _mark_preexisting(
    site: Site, change: Change, sent: Manifest, observed: Observed, priority: Priority
) -> Observed:
    """At our first apply, what people and other tools had set before becomes `fleet-preexisting`: never removed.

    Less what we apply: if another tool stayed a second owner of those fields, leaving one out of Git would not remove it.
    """
    first = _is_first(change)
    reset = any(entry.manager == "before-first-apply" for entry in observed.managed)
    if not first and not reset:
        return observed
    managers = (*site.policy.drift_managers, *(DELIVERY_MANAGERS if first else ()))
    exact = (sent.flags.adopt or site.policy.adopt) is Adopt.EXACT
    if first and exact:
        await site.api.patch_planned(
            change.key, lambda seen: plan_fold(seen.managed, ("*",), seen.rv), priority=priority, observed=observed
        )
        return (await site.api.apply(sent, priority=priority)).observed
    return await site.api.patch_planned(
        change.key, lambda seen: plan_preexisting(seen.managed, managers, seen.rv), priority=priority, observed=observed
    )


def _left_over(site: Site, change: Change, observed: Observed) -> tuple[str, ...]:
    if change.reason != "Added":
        return ()
    yielded = _yielded(site, change.key, scaler(observed.managed))
    return tuple(foreign_additions(observed.managed, site.policy.drift_managers, yielded).paths())


def may_recreate(change: Change, manifest: Manifest) -> bool:
    """Allow deleting an object to make room for its new form: by force, or a Job or Pod of our own."""
    return manifest.flags.force or (change.entry is not None and change.key.group_kind in RECREATED)


async def _make_room(site: Site, change: Change, priority: Priority) -> bool:
    """Delete an object that cannot be changed; return whether it is gone already.

    Until its finalizers and dependents are gone it is Terminating; the event of its end brings the next run.
    """
    found = await site.api.get_metadata(change.key, priority=priority)
    if found is None:
        return True
    deleted = await site.api.delete(change.key, found.uid, priority=priority, propagation="Foreground")
    return deleted.gone


async def _prune_one(site: Site, change: Change) -> Result:
    live = change.live
    if live is None or change.reason in ("NotOurs", "Gone"):
        return Result(change=change, gone=True)
    if change.orphan:
        await _let_go(site, change.key)
        gone = True
    else:
        gone = (await site.api.delete(change.key, live.uid, priority=site.priority)).gone
    if gone:
        site.live.forget(change.key, live.uid)
    return Result(change=change, gone=gone)


async def _let_go(site: Site, key: ObjectKey) -> None:
    """Take our labels off an object that stays."""

    def plan(seen: Observed) -> list[dict[str, object]] | None:
        labels = [name for name in (PART_OF, HUB) if name in seen.labels]
        if not labels:
            return None
        escaped = [name.replace("~", "~0").replace("/", "~1") for name in labels]
        patch: list[dict[str, object]] = [{"op": "replace", "path": "/metadata/resourceVersion", "value": str(seen.rv)}]
        patch += [{"op": "remove", "path": f"/metadata/labels/{name}"} for name in escaped]
        return patch

    try:
        await site.api.patch_planned(key, plan, priority=site.priority)
    except NotFound as error:
        if error.what == "kind":
            raise


def _defined_versions(change: Change) -> Iterator[Gvk]:
    """List what a definition serves, as group-versions."""
    if change.key.group_kind == CRD and change.manifest is not None:
        spec = msgspec.json.decode(change.manifest.body).get("spec", {})
        for version in spec.get("versions", []):
            yield Gvk(spec.get("group", ""), version.get("name", ""), "")


async def _schema_hashes(site: Site, changes: Sequence[Change]) -> Mapping[tuple[ObjectKey, Gvk], str]:
    hashes = {}
    for change in changes:
        for gvk in _defined_versions(change):
            hashes[change.key, gvk] = await _schema_hash(site, gvk.group, gvk.version)
    return hashes


async def _schema_hash(site: Site, group: str, version: str) -> str:
    try:
        return await site.kinds.schema_hash(group, version)
    except KubeError:
        return ""


async def _await_schemas(site: Site, hashes: Mapping[Gvk, str]) -> None:
    """Wait, at most 10 s, until the server publishes what the definitions just written say."""
    if not hashes:
        return
    loop = asyncio.get_running_loop()
    site.live.schema_changed_at = loop.time()
    deadline = loop.time() + SCHEMA_WAIT_S
    for gvk, before in hashes.items():
        while True:
            if await _schema_hash(site, gvk.group, gvk.version) != before or loop.time() > deadline:
                break
            await asyncio.sleep(POLL_S)
    await site.kinds.refresh()
