"""The daily audit: what an apply would change, although our ownership is whole.

A changed value shows in our managedFields entry, except when admission changed it inside somebody else's request, or when a
schema change dropped it. So each object is read and applied as a dry run, and what we own is compared.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from fleet.errors import FleetError, Invalid
from fleet.kube.gate import Priority
from fleet.kube.ownership import FieldSet, Path, format_path, own_fields
from fleet.kube.wire import Observed
from fleet.metric import counter
from fleet.object import Manifest, ObjectKey
from fleet.reconcile.carry import Site, is_cluster_failure, leave_to_others, stamp, yielded_of
from fleet.reconcile.drift import Finding
from fleet.reconcile.plan import Change

OBJECTS = counter(
    "fleet_audit_objects_total", "Objects audited; verdict is same, differs or unverified.", "cluster", "verdict"
)
REQUESTS = counter("fleet_audit_requests_total", "Requests made by the daily audit.", "cluster")

AUDITED: Final = frozenset({"InSync", "AuditDrift"})
"""Reasons of a plan whose objects are compared: as we left them, as far as their ownership tells."""
_ABSENT: Any = object()


def differing(fields: FieldSet, wanted: Any, found: Any) -> list[str]:
    """List the paths of a set at which two objects have different values, as people read them. Pure.

    >>> differing(FieldSet.of([("f:data", "f:a")]), {"data": {"a": "1", "b": "2"}}, {"data": {"a": "x"}})
    ['.data.a']
    """
    return sorted(format_path(path) for path in _walk(fields.tree, wanted, found, ()))


def _walk(node: Mapping[str, Any], wanted: Any, found: Any, at: Path) -> Iterator[Path]:
    children = [(segment, child) for segment, child in node.items() if segment != "."]
    if not children and at and wanted != found:
        yield at
    for segment, child in children:
        yield from _walk(child, _step(wanted, segment), _step(found, segment), (*at, segment))


def _step(value: Any, segment: str) -> Any:
    """Return what a segment of fieldsV1 names inside a value."""
    kind, name = segment[:2], segment[2:]
    if kind == "f:":
        return value.get(name, _ABSENT) if isinstance(value, dict) else _ABSENT
    if not isinstance(value, list):
        return _ABSENT
    if kind == "i:":
        return value[int(name)] if int(name) < len(value) else _ABSENT
    known = msgspec.json.decode(name)
    if kind == "v:":
        return known if known in value else _ABSENT
    return next((item for item in value if _has(item, known)), _ABSENT)


def _has(item: Any, keys: Mapping[str, Any]) -> bool:
    """Tell whether a list item is the one that these keys name; what it leaves out is the key's default."""
    return isinstance(item, dict) and all(item.get(name, value) == value for name, value in keys.items())


async def audit_objects(site: Site, changes: Iterable[Change], findings: dict[ObjectKey, Finding]) -> None:
    """Audit the objects that a plan left in sync, one after the other; `findings` is kept up to date.

    Raises: KubeError when the cluster as a whole fails; what was audited before that stands.
    """
    for change in changes:
        if change.manifest is None or change.reason not in AUDITED or change.live is None:
            continue
        try:
            finding = await audit_once(site, change.manifest, change.live.uid)
        except FleetError as error:
            if is_cluster_failure(error):
                raise
            OBJECTS.labels(site.target.cluster, "unverified").inc()
            continue
        OBJECTS.labels(site.target.cluster, "differs" if finding is not None else "same").inc()
        if finding is not None:
            findings[change.key] = finding
        else:
            findings.pop(change.key, None)


async def audit_once(site: Site, manifest: Manifest, uid: str) -> Finding | None:
    """Compare one object with what an apply of its manifest would make of it; None when that is the same.

    Two requests, no write. Raises: FleetError when it cannot be told: the object is gone or changes meanwhile, a webhook
    refuses dry runs, a right is missing.
    """
    REQUESTS.labels(site.target.cluster).inc()
    live = await site.api.get(manifest.key, priority=Priority.AUDIT, version=manifest.version)
    if live is None or live.uid != uid or live.deleting:
        raise FleetError("it is not the object that was applied", reason="Unverified", subject=str(manifest.key))
    opened = await site.unsealer.open(manifest, site.target.cluster)
    sent = leave_to_others(site, stamp(site, opened), live)
    REQUESTS.labels(site.target.cluster).inc()
    try:
        applied = await site.api.apply(sent, priority=Priority.AUDIT, dry_run=True, force=True, whole=True)
    except Invalid as error:
        if error.reason != "SchemaMismatch":
            raise
        return Finding(digest=manifest.digest, refusal=error.message)
    if applied.observed.rv != live.rv:
        raise FleetError("it changed meanwhile", reason="Unverified", subject=str(manifest.key))
    paths = _compare(applied.observed, live, yielded_of(site, live))
    return Finding(digest=manifest.digest, paths=tuple(paths)) if paths else None


def _compare(wanted: Observed, found: Observed, yielded: Sequence[str]) -> list[str]:
    fields = own_fields(wanted.managed) or FieldSet({})
    bodies = (msgspec.json.decode(each.body or b"{}") for each in (wanted, found))
    return differing(fields.without(yielded), *bodies)
