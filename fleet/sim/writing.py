"""POST, PUT and PATCH: from the body that came to the object that is stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleet.sim import intake, ownership, status
from fleet.sim.allocation import allocate, count_template, keep_allocated
from fleet.sim.deletion import ended_by_update
from fleet.sim.envelope import (
    check_absent,
    check_identity,
    check_patch_options,
    check_room,
    check_version,
    name_body,
    name_new,
    place,
    read_applied,
    read_body,
)
from fleet.sim.reading import find, key_of, scale_of
from fleet.sim.representation import encode
from fleet.sim.request import Request
from fleet.sim.resource import Resource
from fleet.sim.state import State
from fleet.sim.storage import Object

OBJECT_LIMIT_BYTES: Final = 1_572_864
JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"

_SERVER_SET: Final = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "selfLink",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The outcome of a write: the object now (or the Scale of it), and what the client is warned of."""

    obj: Object
    created: bool = False
    warnings: Sequence[str] = ()


def create(state: State, request: Request) -> Written:
    """Create the object in the body.

    Raises:
        ApiError: 400, 403 in a terminating namespace, 404 without the namespace, 409, 422.
    """
    if request.target.subresource == "binding":
        return _bind(state, request)
    body, warnings = intake.read(state, request, read_body(request))
    named = place(request, name_new(state, request.resource, body))
    check_room(state, request.resource, named)
    new = ownership.updated(state, request, None, _fresh(state, request.resource, named))
    return _store_new(state, request, new, warnings)


def update(state: State, request: Request) -> Written:
    """Replace the object (or its status, or its scale) by the body.

    Raises:
        ApiError: 400, 404, 409 for an outdated version, 422.
    """
    if request.target.subresource == "scale":
        return _scale(state, request, find(state, request), name_body(request, request.decode()))
    body, warnings = intake.read(state, request, read_body(request))
    live = find(state, request)
    check_identity(request.resource, body, live)
    return _replace(state, request, live, place(request, body), warnings)


def patch(state: State, request: Request) -> Written:
    """Change the object by one of the four kinds of patch.

    Raises:
        ApiError: 400, 404, 409, 415, 422, 500 for what the schema does not know.
    """
    media = request.content_type.partition(";")[0].strip()
    known = (JSON_PATCH, MERGE_PATCH, APPLY_PATCH) + ((STRATEGIC_PATCH,) if not request.resource.custom else ())
    if media not in known:
        raise status.unsupported_patch()
    check_patch_options(request, applies=media == APPLY_PATCH)
    if media == APPLY_PATCH:
        return _apply(state, request)
    live, body = find(state, request), request.decode()
    if request.target.subresource == "scale":
        seen = ownership.seen_as_scale(state, request.resource, live)
        return _scale(state, request, live, intake.patched(state, request, seen, body))
    shown = {**live, "apiVersion": request.resource.api_version}
    changed = name_body(request, intake.patched(state, request, shown, body))
    new, warnings = intake.read(state, request, changed)
    return _replace(state, request, live, place(request, new), warnings)


def _apply(state: State, request: Request) -> Written:
    applied = read_applied(request)
    live = state.storage.get(request.resource.collection, request.key)
    if request.target.subresource and live is None:
        raise status.not_found(request.resource, request.target.name)
    if live is None:
        check_absent(request, applied)
        check_room(state, request.resource, place(request, applied))
        merged = place(request, ownership.applied(state, request, None, applied))
        return _store_new(state, request, _fresh(state, request.resource, merged))
    if request.target.subresource == "scale":
        return _scale(state, request, live, applied)
    bound = {**applied, "metadata": {"resourceVersion": live["metadata"]["resourceVersion"]} | applied["metadata"]}
    check_version(request.resource, bound, live)
    shown = {**live, "apiVersion": request.resource.api_version}
    merged = ownership.applied(state, request, shown, applied)
    return _settle(state, request, live, _carried(request, live, merged))


# From the body to a candidate.


def _fresh(state: State, resource: Resource, obj: Object) -> Object:
    """Return a new object with what the server gives it and without what only the server may set."""
    metadata = {name: value for name, value in obj["metadata"].items() if name not in _SERVER_SET}
    metadata |= {"uid": state.new_uid(), "creationTimestamp": state.timestamp()}
    if resource.counted:
        metadata["generation"] = 1
    fresh = {name: value for name, value in obj.items() if name != "status" or not resource.has_status}
    fresh |= {"metadata": metadata, "apiVersion": resource.stored_as}
    return intake.admit_new(state, resource, allocate(state, resource, intake.defaulted(state, resource, fresh)))


def _carried(request: Request, live: Object, new: Object) -> Object:
    """Return the candidate with what this endpoint may not change taken from the live object."""
    if request.target.subresource == "status":
        metadata = {name: value for name, value in live["metadata"].items() if name != "managedFields"}
        metadata |= {name: new["metadata"][name] for name in ("managedFields",) if name in new["metadata"]}
        candidate = {**live, "metadata": metadata}
        candidate.pop("status", None)
        return candidate | ({"status": new["status"]} if "status" in new else {})
    kept = {name: live["metadata"][name] for name in _SERVER_SET if name in live["metadata"]}
    metadata = {name: value for name, value in new["metadata"].items() if name not in _SERVER_SET} | kept
    candidate = {**new, "metadata": metadata, "apiVersion": live["apiVersion"]}
    if request.resource.has_status:
        candidate.pop("status", None)
        candidate |= {"status": live["status"]} if "status" in live else {}
    return candidate


# From the candidate to the store.


def _store_new(state: State, request: Request, obj: Object, warnings: Sequence[str] = ()) -> Written:
    resource = request.resource
    if state.storage.get(resource.collection, key_of(obj)) is not None:
        raise status.already_exists(resource, obj["metadata"]["name"])
    _check_size(obj)
    if not request.dry_run:
        obj = state.storage.put(resource.collection, key_of(obj), obj)
    return Written(obj=obj, created=True, warnings=warnings)


def _replace(state: State, request: Request, live: Object, new: Object, warnings: Sequence[str]) -> Written:
    check_version(request.resource, new, live)
    candidate = keep_allocated(request.resource, live, _carried(request, live, new))
    candidate = intake.defaulted(state, request.resource, candidate)
    return _settle(state, request, live, ownership.updated(state, request, live, candidate), warnings)


def _settle(state: State, request: Request, live: Object, candidate: Object, warnings: Sequence[str] = ()) -> Written:
    """Admit a candidate and store it if it differs from the live object."""
    resource = request.resource
    candidate = count_template(resource, live, candidate)
    if resource.counted and _spec_of(candidate) != _spec_of(live):
        generation = live["metadata"].get("generation", 0) + 1
        candidate = {**candidate, "metadata": {**candidate["metadata"], "generation": generation}}
    candidate = ownership.unchanged(live, intake.admit_update(state, request, live, candidate))
    if candidate is live:
        return Written(obj=live, warnings=warnings)
    _check_size(candidate)
    if request.dry_run:
        return Written(obj=candidate, warnings=warnings)
    if ended_by_update(resource, candidate):
        state.storage.remove(resource.collection, key_of(live))
        return Written(obj=candidate, warnings=warnings)
    return Written(obj=state.storage.put(resource.collection, key_of(live), candidate), warnings=warnings)


def _spec_of(obj: Object) -> Mapping[str, Any]:
    return {name: value for name, value in obj.items() if name not in ("metadata", "status", "apiVersion", "kind")}


def _check_size(obj: Object) -> None:
    """Raises ApiError: 500 in etcd's words."""
    if len(encode(obj)) > OBJECT_LIMIT_BYTES:
        raise status.internal("etcdserver: request is too large")


# Subresources that are no part of the object.


def _scale(state: State, request: Request, live: Object, scale: Object) -> Written:
    """Set the replicas a Scale asks for, in the name of the scale subresource."""
    paths = request.resource.scale
    assert paths is not None
    asked = scale["metadata"].get("resourceVersion")
    if asked and asked != live["metadata"]["resourceVersion"]:
        raise status.conflict(request.resource, request.target.name, status.MODIFIED)
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    entries = ownership.scaled(state, request, live, scale)
    candidate = with_value(live, paths.spec, replicas)
    candidate = {**candidate, "metadata": {**candidate["metadata"], "managedFields": entries}}
    written = _settle(state, request, live, candidate)
    return Written(obj=scale_of(written.obj, request.resource))


def with_value(obj: Object, path: str, value: Any) -> Object:
    """Return the object with one dotted path set."""
    head, _, rest = path.partition(".")
    return {**obj, head: with_value(obj.get(head) or {}, rest, value) if rest else value}


def _bind(state: State, request: Request) -> Written:
    pod = find(state, request)
    bound = with_value(pod, "spec.nodeName", request.decode()["target"]["name"])
    state.storage.put(request.resource.collection, key_of(pod), bound)
    done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
    return Written(obj=done, created=True)
