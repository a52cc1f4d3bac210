"""Server-side apply and the tracking of every other write: who owns which field of an object.

All functions are pure: they take and return whole objects and never change what they are given. `Model` says how the
kind behaves, `Write` by whom, when and through which endpoint an object is written.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fleet.sim import typed, wire
from fleet.sim.conform import TypedError, validate
from fleet.sim.fields import FieldSet, Path, path_text
from fleet.sim.managed import Managed, Manager, Owned, decode, encode, entries_of, with_managed, without_managed
from fleet.sim.schema import Object, Schema

MAX_UPDATE_MANAGERS: Final = 10
ANCIENT: Final = "ancient-changes"
BEFORE_FIRST_APPLY: Final = "before-first-apply"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_KUBECTL: Final = "kubectl"

_UNTRACKED: Final = FieldSet.of(
    ("f:apiVersion",),
    ("f:kind",),
    ("f:metadata",),
    *(
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """How one version of a kind behaves.

    `versions`: the schema of each apiVersion of the kind that is served; entries of other versions are dropped.
    `reset`: fields that this endpoint never takes from a request and so never records.
    `settle`: turns a merged object into what would be stored (pruned, canonical, with defaults).
    """

    api_version: str
    versions: Mapping[str, Schema]
    reset: FieldSet = field(default_factory=FieldSet)
    settle: Callable[[Object], Object] = dict

    @property
    def schema(self) -> Schema:
        return self.versions[self.api_version]


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Who writes, when (RFC 3339, seconds, UTC), and through which subresource."""

    manager: str
    at: str
    subresource: str = ""


class ApplyConflict(Exception):
    """Other managers own fields with other values; `causes` are (message, path)."""

    def __init__(self, causes: Sequence[tuple[str, str]]) -> None:
        super().__init__(", ".join(f"{message}: {path}" for message, path in causes))
        self.causes = tuple(causes)


class BadApply(Exception):
    """What is applied does not fit the schema; the text is the server's."""


_CURRENT: Final = Manager(name="current-operation", operation="Update")


# POST, PUT and every patch but apply.


def update(model: Model, write: Write, live: Object | None, new: Object) -> Object:
    """Return the new object with the writer's changes against the live one recorded.

    A new object that carries managedFields replaces the recorded ones, as a patch of managedFields does; `[{}]` drops
    them all, after which nothing is tracked until someone applies.
    """
    managed = _claimed(live, new, subresource=write.subresource)
    bare = without_managed(new)
    if not managed and live is not None:
        return bare
    before = _blank(model, new) if live is None else without_managed(live)
    return with_managed(bare, _capped(_tracked(model, write, before, bare, managed)))


def _claimed(live: Object | None, new: Object, *, subresource: str) -> Managed:
    """Return the managers to start from: the request's if it brings any, else the live object's."""
    recorded = _decode_or_nothing(entries_of(live) if live is not None else None)
    if subresource:
        return recorded
    asked = entries_of(new)
    if asked == [{}]:
        return {}
    try:
        return decode(asked) or recorded
    except (ValueError, AttributeError, TypeError):
        return recorded


def _decode_or_nothing(entries: Any) -> Managed:
    try:
        return decode(entries)
    except (ValueError, AttributeError, TypeError):
        return {}


def _blank(model: Model, obj: Object) -> Object:
    """Return an object of the kind in which nothing is set, as the server writes it: some fields are never left out."""
    schema = model.versions[obj["apiVersion"]]
    return wire.read(schema, _head(obj)).obj if schema.name else _head(obj)


def _head(obj: Object) -> Object:
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"]}


def _tracked(model: Model, write: Write, before: Object, after: Object, managed: Managed) -> Managed:
    """Record the difference of two objects in the name of a writer."""
    managed = _reconciled(model, managed)
    managed, comparison = _transfer(model, before, after, managed, _CURRENT)
    changed = (comparison.modified | comparison.added).without(model.reset) - _UNTRACKED
    if not changed:
        return managed
    manager = Manager(
        name=write.manager or "unknown",
        operation="Update",
        api_version=model.api_version,
        subresource=write.subresource,
    )
    previous = managed.get(manager)
    fields = changed if previous is None else changed | previous.fields
    managed[manager] = Owned(fields=fields, api_version=model.api_version, at=write.at)
    return managed


def _capped(managed: Managed) -> Managed:
    """Fold the oldest Update managers into one per version while there are too many."""
    updaters = sorted(
        (manager for manager in managed if manager.operation == "Update"),
        key=lambda manager: (managed[manager].at or "", manager.identity),
    )
    surplus = len(updaters) - MAX_UPDATE_MANAGERS
    first_of: dict[str, Manager] = {}
    for manager in updaters:
        if surplus <= 0:
            break
        owned = managed[manager]
        first = first_of.setdefault(owned.api_version, manager)
        if first is manager:
            continue
        bucket = Manager(name=ANCIENT, operation="Update", api_version=owned.api_version)
        if bucket not in managed:
            managed[bucket] = managed.pop(first)
        merged = owned.fields | managed[bucket].fields
        del managed[manager]
        managed[bucket] = Owned(fields=merged, api_version=owned.api_version, at=owned.at)
        surplus -= 1
    return managed


# Apply.


def apply(model: Model, write: Write, live: Object | None, applied: Object, *, force: bool = False) -> Object:
    """Return the live object (None: a new one) with the applied configuration merged into it.

    A field the manager applied before and does not apply now is removed unless somebody else owns it too.

    Raises:
        ApplyConflict: other managers own fields with other values and `force` is not set.
        BadApply: the configuration does not fit the schema.
    """
    managed = decode(entries_of(live)) if live is not None else {}
    before = _head(applied) if live is None else without_managed(live)
    if live is not None and not managed:
        first = replace(write, manager=BEFORE_FIRST_APPLY)
        managed = _tracked(model, first, _blank(model, live), before, {})
    merged, managed = _apply(model, write, before, applied, managed, force=force)
    new = before if merged is None else merged
    if write.manager == _KUBECTL and new["metadata"].get("annotations", {}).get(LAST_APPLIED):
        new = _with_last_applied(new, applied)
    return with_managed(new, managed)


def _apply(
    model: Model, write: Write, live: Object, applied: Object, managed: Managed, *, force: bool
) -> tuple[Object | None, Managed]:
    """Apply as asked; kubectl may take over what its own client-side apply wrote."""
    try:
        return _apply_as(model, write, live, applied, managed, force=force)
    except _Conflicts as found:
        conflicts = found.by_manager
        if write.manager == _KUBECTL:
            allowed = _allowed_by_last_applied(model, live)
            conflicts = {manager: left for manager, paths in conflicts.items() if (left := paths - allowed)}
            if not conflicts:
                return _apply_as(model, write, live, applied, managed, force=True)
        raise ApplyConflict(_causes(conflicts)) from None


def _causes(conflicts: Mapping[Manager, FieldSet]) -> list[tuple[str, str]]:
    return [
        (f"conflict with {manager.shown}", path_text(path))
        for manager in sorted(conflicts, key=lambda manager: manager.identity)
        for path in conflicts[manager].paths()
    ]


class _Conflicts(Exception):
    def __init__(self, by_manager: Mapping[Manager, FieldSet]) -> None:
        super().__init__()
        self.by_manager = by_manager


def _apply_as(
    model: Model, write: Write, live: Object, applied: Object, managed: Managed, *, force: bool
) -> tuple[Object | None, Managed]:
    """Return the merged object, None if it is the live one unchanged, and the managers."""
    _check(model, applied)
    manager = Manager(name=write.manager or "unknown", operation="Apply", subresource=write.subresource)
    managed = _reconciled(model, managed)
    try:
        merged = typed.merge(model.schema, live, applied)
    except TypedError as error:
        raise BadApply(f"failed to merge config: {error}") from None
    last = managed.get(manager)
    fields = typed.field_set(model.schema, applied).without(model.reset)
    managed[manager] = Owned(fields=fields, api_version=model.api_version, at=last.at if last else None)
    merged = _pruned(model, merged, managed, last)
    managed, _ = _transfer(model, live, merged, managed, manager, force=force)
    owned = managed.get(manager)
    if owned is not None:
        left = owned.fields - _UNTRACKED
        if left:
            managed[manager] = replace(owned, fields=left)
        else:
            del managed[manager]
    if typed.equal(live, merged):
        return None, managed
    if manager in managed:
        managed[manager] = replace(managed[manager], at=write.at)
    return model.settle(merged), managed


def _check(model: Model, applied: Object) -> None:
    try:
        validate(model.schema, applied)
    except TypedError as error:
        metadata = applied["metadata"]
        where = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}; {_gvk(applied)}"
        raise BadApply(f"failed to create typed patch object ({where}): {error}") from None


def _gvk(obj: Object) -> str:
    return f"{obj['apiVersion']}, Kind={obj['kind']}" if "/" in obj["apiVersion"] else _core_gvk(obj)


def _core_gvk(obj: Object) -> str:
    return f"/{obj['apiVersion']}, Kind={obj['kind']}"


# What both share.


def _reconciled(model: Model, managed: Managed) -> Managed:
    """Read every entry by the schema of today; drop the versions that are gone."""
    return {
        manager: replace(owned, fields=typed.reconciled(model.versions[owned.api_version], owned.fields))
        for manager, owned in managed.items()
        if owned.api_version in model.versions
    }


def _transfer(
    model: Model, old: Object, new: Object, managed: Managed, writer: Manager, *, force: bool = True
) -> tuple[Managed, typed.Comparison]:
    """Take what a write changes or removes away from all other managers.

    Raises:
        _Conflicts: it changes fields of others and `force` is not set.
    """
    comparison = _compared(model, model.api_version, old, new)
    conflicts: dict[Manager, FieldSet] = {}
    removed: dict[Manager, FieldSet] = {}
    for manager, owned in managed.items():
        if manager == writer:
            continue
        seen = comparison
        if owned.api_version != model.api_version:
            seen = _compared(model, owned.api_version, old, new)
        clash = owned.fields & (seen.modified | seen.added)
        if clash:
            conflicts[manager] = clash
        removed[manager] = seen.removed
    if conflicts and not force:
        raise _Conflicts(conflicts)
    left = {}
    for manager, owned in managed.items():
        fields = owned.fields
        if manager in conflicts:
            fields = fields - conflicts[manager]
        if manager in removed:
            fields = fields - removed[manager]
        if fields:
            left[manager] = replace(owned, fields=fields)
    return left, comparison


def _compared(model: Model, api_version: str, old: Object, new: Object) -> typed.Comparison:
    schema = model.versions[api_version]
    return typed.compare(schema, old, new).without(model.reset)


def _pruned(model: Model, merged: Object, managed: Managed, last: Owned | None) -> Object:
    """Remove what the manager applied last time and nobody, not even it, owns now."""
    if last is None or not last.fields or last.api_version not in model.versions:
        return merged
    schema = model.versions[last.api_version]
    pruned = typed.remove(schema, merged, typed.with_named_fields(schema, last.fields))
    by_version: dict[str, FieldSet] = {}
    for owned in managed.values():
        by_version[owned.api_version] = by_version.get(owned.api_version, FieldSet()) | owned.fields
    for version in sorted(by_version, key=lambda version: version != last.api_version):
        if version in model.versions:
            pruned = _with_owned(model.versions[version], merged, pruned, by_version[version])
    return _with_dangling(schema, merged, pruned, last.fields)


def _with_owned(schema: Schema, merged: Object, pruned: Any, owned: FieldSet) -> Any:
    kept = typed.with_named_fields(schema, _fields_of(schema, pruned)) | typed.with_named_fields(schema, owned)
    gone = typed.with_named_fields(schema, _fields_of(schema, merged)) - kept
    return typed.remove(schema, merged, gone)


def _with_dangling(schema: Schema, merged: Object, pruned: Any, last: FieldSet) -> Object:
    kept = typed.with_named_fields(schema, _fields_of(schema, pruned))
    gone = typed.with_named_fields(schema, _fields_of(schema, merged)) - kept
    result: Object = typed.remove(schema, merged, gone & typed.with_named_fields(schema, last))
    return result


def _fields_of(schema: Schema, value: Any) -> FieldSet:
    return FieldSet() if value is None else typed.field_set(schema, value)


# kubectl's own client-side apply.


def _allowed_by_last_applied(model: Model, live: Object) -> FieldSet:
    """Return the fields that client-side apply wrote and that still hold what it wrote."""
    try:
        last = json.loads(live["metadata"]["annotations"][LAST_APPLIED])
        if last["apiVersion"] != model.api_version:
            return FieldSet()
        validate(model.schema, last)
    except (KeyError, TypeError, ValueError, TypedError):
        return FieldSet()
    change = typed.compare(model.schema, last, live)
    return typed.field_set(model.schema, last) - change.modified - change.added - change.removed


def _with_last_applied(obj: Object, applied: Object) -> Object:
    metadata = dict(applied["metadata"])
    if "annotations" in metadata:
        metadata["annotations"] = {n: v for n, v in metadata["annotations"].items() if n != LAST_APPLIED}
    said = json.dumps({**applied, "metadata": metadata}, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    annotations = {**obj["metadata"]["annotations"], LAST_APPLIED: f"{said}\n"}
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}


# The scale subresource.

_REPLICAS_OF_SCALE: Final[Path] = ("f:spec", "f:replicas")
SCALE_VERSION: Final = "autoscaling/v1"


def to_scale(entries: Any, paths: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return managedFields of a Scale: who owns the replicas of its parent. `paths`: where, by apiVersion."""
    return encode(
        {
            manager: Owned(fields=FieldSet.of(_REPLICAS_OF_SCALE), api_version=SCALE_VERSION, at=owned.at)
            for manager, owned in decode(entries).items()
            if owned.api_version in paths and paths[owned.api_version] in owned.fields
        }
    )


def from_scale(entries: Any, scale_entries: Any, api_version: str, paths: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return the parent's managedFields after a write of its Scale: who gave the replicas up, who has them now.

    Update managers never match their own entry, because a Scale is of another apiVersion: as on the real server theirs
    is replaced by one without a time.
    """
    parents, scales = decode(entries), decode(scale_entries)
    result: Managed = {}
    for manager, owned in parents.items():
        if owned.api_version not in paths:
            continue
        path = paths[owned.api_version]
        if path not in owned.fields or manager in scales:
            scales.pop(manager, None)
            result[manager] = owned
            continue
        left = owned.fields - FieldSet.of(path)
        if left:
            result[manager] = replace(owned, fields=left)
    for manager, owned in scales.items():
        if _REPLICAS_OF_SCALE in owned.fields:
            known = parents.get(manager)
            fields = FieldSet.of(paths[api_version])
            result[manager] = Owned(fields=fields, api_version=api_version, at=known.at if known else None)
    return encode(result)
