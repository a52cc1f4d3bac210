"""DELETE: preconditions, finalizers, grace, and what becomes of dependents."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleet.sim import status
from fleet.sim.reading import find, key_of
from fleet.sim.representation import listed, shown, wants_metadata
from fleet.sim.request import Request
from fleet.sim.resource import Resource
from fleet.sim.state import State
from fleet.sim.storage import Object

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"
_CONTENT_FINALIZER: Final = {
    ("apiextensions.k8s.io", "customresourcedefinitions"): "customresourcecleanup.apiextensions.k8s.io"
}
"""Kinds that get a finalizer with their deletion, because something else must go before them."""

PROTECTED: Final = ("default", "kube-system", "kube-public")
"""Namespaces that may not be deleted."""

_FINALIZER_OF: Final = {"Foreground": FOREGROUND, "Orphan": ORPHAN}

ANSWERED_WITH_OBJECT: Final = frozenset(
    {
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Pod",
        "PodTemplate",
        "ResourceQuota",
        "Service",
        "ServiceAccount",
    }
)
"""Kinds whose DELETE answers with the object that went; others answer with a Status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    """What a DELETE asks for, from its body or its query."""

    uid: str = ""
    rv: str = ""
    policy: str = ""
    grace_s: int | None = None
    dry_run: bool = False


def delete(state: State, request: Request) -> Object:
    """Delete the object a request names, or mark it where something must happen first.

    Raises:
        ApiError: 404, 409 for a failed precondition.
    """
    obj = find(state, request)
    if request.resource.collection == ("", "namespaces") and request.target.name in PROTECTED:
        raise status.forbidden(request.resource, request.target.name, "this namespace may not be deleted")
    options = _options(request)
    _check_preconditions(request.resource, obj, options)
    left = begin(state, request.resource, obj, options)
    if left is not None:
        return shown(left, request.resource, metadata_only=wants_metadata(request.accept))
    if request.resource.kind in ANSWERED_WITH_OBJECT:
        return shown(obj, request.resource, metadata_only=wants_metadata(request.accept))
    return status.success(request.resource, obj["metadata"]["name"], obj["metadata"]["uid"])


def delete_collection(state: State, request: Request) -> Object:
    """Delete every object the selectors pick, each as a single DELETE would; return them as a List."""
    metadata_only = wants_metadata(request.accept, a_list=True)
    options = _options(request)
    selection = request.selection()
    rv = state.storage.rv
    chosen = [obj for obj in state.storage.items(request.resource.collection) if selection.matches(obj)]
    for obj in chosen:
        begin(state, request.resource, obj, options)
    return listed(chosen, request.resource, {"resourceVersion": str(rv)}, metadata_only=metadata_only)


def begin(state: State, resource: Resource, obj: Object, options: DeleteOptions) -> Object | None:
    """Start a deletion; return the object if it stays for now, None if it went at once."""
    metadata = obj["metadata"]
    finalizers = _finalizers(resource, metadata, options)
    grace_s = _grace_s(resource, obj, options)
    if not finalizers and not grace_s and not _holds_content(resource, obj):
        if not options.dry_run:
            state.storage.remove(resource.collection, key_of(obj))
        return None
    marked = _mark(state, resource, obj, finalizers, grace_s)
    if options.dry_run or marked == obj:
        return marked
    return state.storage.put(resource.collection, key_of(obj), marked)


def ended_by_update(resource: Resource, candidate: Object) -> bool:
    """Tell whether an update released an object that is going: it took the last finalizer away."""
    metadata = candidate["metadata"]
    if "deletionTimestamp" not in metadata or metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds"):
        return False
    return not _holds_content(resource, candidate)


def _mark(state: State, resource: Resource, obj: Object, finalizers: list[str], grace_s: int) -> Object:
    metadata = dict(obj["metadata"])
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    if "deletionTimestamp" not in metadata:
        metadata["deletionTimestamp"] = state.timestamp_in(grace_s)
        if resource.collection not in _CONTENT_FINALIZER and resource.kind != "Namespace":
            metadata["deletionGracePeriodSeconds"] = grace_s
            metadata |= {"generation": metadata["generation"] + 1} if "generation" in metadata else {}
    elif grace_s < metadata.get("deletionGracePeriodSeconds", 0):
        metadata["deletionGracePeriodSeconds"] = grace_s
    marked = {**obj, "metadata": metadata}
    if resource.kind == "Namespace":
        marked["status"] = {**obj.get("status", {}), "phase": "Terminating"}
    return marked


def _finalizers(resource: Resource, metadata: Mapping[str, Any], options: DeleteOptions) -> list[str]:
    wanted = _FINALIZER_OF.get(options.policy)
    held = _CONTENT_FINALIZER.get(resource.collection)
    kept = [f for f in metadata.get("finalizers") or () if f not in (FOREGROUND, ORPHAN) or not options.policy]
    return [*kept, *(f for f in (wanted, held) if f and f not in kept)]


def _grace_s(resource: Resource, obj: Object, options: DeleteOptions) -> int:
    """Only pods on a node die slowly."""
    if resource.kind != "Pod" or resource.group or not obj["spec"].get("nodeName"):
        return 0
    if obj.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    asked = obj["spec"].get("terminationGracePeriodSeconds", 30) if options.grace_s is None else options.grace_s
    return int(asked)


def _holds_content(resource: Resource, obj: Object) -> bool:
    return resource.kind == "Namespace" and bool(obj.get("spec", {}).get("finalizers"))


def _options(request: Request) -> DeleteOptions:
    body: Any = request.decode() if request.body else {}
    if not isinstance(body, dict):
        raise status.bad_request("DeleteOptions must be an object")
    preconditions = body.get("preconditions") or {}
    grace = body.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
    policy = body.get("propagationPolicy") or request.query.get("propagationPolicy", "")
    orphan = body.get("orphanDependents")
    if policy not in ("", "Background", *_FINALIZER_OF):
        message = f'Unsupported value: "{policy}": supported values: "Foreground", "Background", "Orphan", "nil"'
        cause = {"reason": "FieldValueNotSupported", "message": message, "field": "propagationPolicy"}
        raise status.invalid("meta.k8s.io", "DeleteOptions", "", [cause])
    return DeleteOptions(
        uid=preconditions.get("uid") or "",
        rv=preconditions.get("resourceVersion") or "",
        policy=policy or ("" if orphan is None else "Orphan" if orphan else "Background"),
        grace_s=None if grace is None else int(grace),
        dry_run=request.dry_run or "All" in (body.get("dryRun") or ()),
    )


def _check_preconditions(resource: Resource, obj: Object, options: DeleteOptions) -> None:
    metadata = obj["metadata"]
    if options.uid and options.uid != metadata["uid"]:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({metadata['uid']}). "
            "The object might have been deleted and then recreated"
        )
        raise status.conflict_of_kind(resource, metadata["name"], why)
    if options.rv and options.rv != metadata["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({options.rv}) does not match the ResourceVersion in record "
            f"({metadata['resourceVersion']}). The object might have been modified"
        )
        raise status.conflict_of_kind(resource, metadata["name"], why)
