"""From requests to field ownership: which schema counts, who writes through what, and how refusals are worded."""

from collections.abc import Sequence
from typing import Any, Final

from fleet.sim import intake, managed, patch, schema, status, typed
from fleet.sim.fields import FieldSet, Path
from fleet.sim.patch import SCALE_VERSION, Model, Write
from fleet.sim.reading import scale_of
from fleet.sim.request import Request
from fleet.sim.resource import Resource
from fleet.sim.state import State
from fleet.sim.storage import Object

_STATUS: Final = FieldSet.of(("f:status",))


def applied(state: State, request: Request, live: Object | None, body: Object) -> Object:
    """Return the live object (None: a new one) with an applied configuration merged in.

    Raises:
        ApiError: 409 with causes, 500 for what the schema does not know.
    """
    model = _model(state, request.resource, request.target.subresource)
    try:
        return patch.apply(model, _write(state, request), live, body, force=request.flag("force"))
    except patch.ApplyConflict as conflict:
        raise status.field_conflict(conflict.causes) from conflict
    except patch.BadApply as error:
        raise status.internal(str(error)) from error


def updated(state: State, request: Request, live: Object | None, new: Object) -> Object:
    """Return the new object with its changes recorded in the name of the request's manager."""
    model = _model(state, request.resource, request.target.subresource)
    return patch.update(model, _write(state, request), live, new)


def tracked(
    state: State, resource: Resource, live: Object | None, new: Object, *, manager: str, subresource: str = ""
) -> Object:
    """Return the new object with its changes recorded in the name of a controller."""
    write = Write(manager=manager, at=state.timestamp(), subresource=subresource)
    return patch.update(_model(state, resource, subresource), write, live, new)


def scaled(state: State, request: Request, live: Object, scale: Object) -> list[dict[str, Any]]:
    """Return the managedFields of an object after a write of its Scale.

    Raises:
        ApiError: 409 with causes, when the Scale is applied.
    """
    paths = _replica_paths(state, request.resource)
    before = seen_as_scale(state, request.resource, live)
    model = Model(api_version=SCALE_VERSION, versions={SCALE_VERSION: schema.builtin("autoscaling", "v1", "Scale")})
    applies = request.content_type.startswith("application/apply-patch")
    try:
        if applies:
            after = patch.apply(model, _write(state, request), before, scale, force=request.flag("force"))
        else:
            after = patch.update(model, _write(state, request), before, scale)
    except patch.ApplyConflict as conflict:
        raise status.field_conflict(conflict.causes) from conflict
    entries = after["metadata"].get("managedFields")
    return patch.from_scale(live["metadata"].get("managedFields"), entries, request.resource.api_version, paths)


def seen_as_scale(state: State, resource: Resource, live: Object) -> Object:
    """Return the Scale of an object with the owners of its replicas."""
    scale = scale_of(live, resource)
    entries = patch.to_scale(live["metadata"].get("managedFields"), _replica_paths(state, resource))
    return {**scale, "metadata": {**scale["metadata"], **({"managedFields": entries} if entries else {})}}


def unchanged(live: Object, new: Object) -> Object:
    """Return the live object itself if the new one says the same, else the new one; times of ownership do not count."""
    candidate = managed.unstamped(live, new)
    return live if typed.equal(live, candidate) else candidate


def _write(state: State, request: Request) -> Write:
    return Write(manager=request.manager, at=state.timestamp(), subresource=request.target.subresource)


def _model(state: State, resource: Resource, subresource: str) -> Model:
    return Model(
        api_version=resource.api_version,
        versions={version.api_version: state.schema(version) for version in _versions(state, resource)},
        reset=_reset(state, resource, subresource),
        settle=lambda obj: intake.defaulted(state, resource, obj),
    )


def _versions(state: State, resource: Resource) -> Sequence[Resource]:
    return state.registry.versions(resource.group, resource.plural)


def _reset(state: State, resource: Resource, subresource: str) -> FieldSet:
    """Return what an endpoint never takes from a request."""
    if subresource == "status":
        shape = state.schema(resource).map
        others = [name for name in (shape.fields if shape else ()) if name not in ("apiVersion", "kind", "status")]
        kept = () if resource.custom else ("metadata",)
        return FieldSet.of(*((f"f:{name}",) for name in others if name not in kept))
    return _STATUS if resource.has_status and not subresource else FieldSet()


def _replica_paths(state: State, resource: Resource) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for version in _versions(state, resource):
        if version.scale is not None:
            found[version.api_version] = tuple(f"f:{part}" for part in version.scale.spec.split("."))
    return found
