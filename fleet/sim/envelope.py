"""What every written body must agree on with its path and with the object that is there: kind, name, version, uid."""

from typing import Any, Final

from fleet.sim import status
from fleet.sim.request import Request
from fleet.sim.resource import Resource
from fleet.sim.state import State
from fleet.sim.storage import Object

MANAGER_LIMIT_BYTES: Final = 128


def read_body(request: Request) -> Object:
    """Return the body as an object of the requested kind, with its name if the path names one.

    Raises:
        ApiError: 400, 422, the body is no such object.
    """
    body = request.decode()
    if not isinstance(body, dict):
        raise status.bad_request(f"the object provided is unrecognized (must be of type {request.resource.kind})")
    _check_kind(request.resource, body)
    return name_body(request, body)


def read_applied(request: Request) -> Object:
    """Return the body of an apply.

    Raises:
        ApiError: 400.
    """
    body, resource = request.decode(), request.resource
    version, kind = (body.get("apiVersion", ""), body.get("kind", "")) if isinstance(body, dict) else ("", "")
    asked = (resource.api_version, resource.kind)
    if request.target.subresource == "scale":
        asked = ("autoscaling/v1", "Scale")
    if (version, kind) != asked:
        shown = version if "/" in version else f"/{version}"
        raise status.bad_request(f"invalid object type: {shown}, Kind={kind}")
    applied = name_body(request, body)
    if applied["metadata"].get("managedFields"):
        raise status.bad_request("metadata.managedFields must be nil")
    return applied


def name_body(request: Request, body: Any) -> Object:
    """Return the body with kind and, where the path has one, name; what it says of itself must be the path's.

    Raises:
        ApiError: 400.
    """
    resource, target = request.resource, request.target
    metadata = body.get("metadata")
    metadata = dict(metadata) if isinstance(metadata, dict) else {}
    if target.name and metadata.setdefault("name", target.name) != target.name:
        raise status.bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({target.name})"
        )
    if metadata.get("namespace") and metadata["namespace"] != target.namespace:
        raise status.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    kind = {"kind": body.get("kind") or resource.kind, "apiVersion": body.get("apiVersion") or resource.api_version}
    head = {**kind, "metadata": metadata}
    return head | {name: value for name, value in body.items() if name not in head}


def place(request: Request, obj: Object) -> Object:
    """Return the object in the namespace of the path."""
    if not request.resource.namespaced:
        return obj
    return {**obj, "metadata": {**obj["metadata"], "namespace": request.target.namespace}}


def _check_kind(resource: Resource, body: Object) -> None:
    version, kind = body.get("apiVersion"), body.get("kind")
    if resource.custom and not kind:
        why = f"Object 'Kind' is missing in '{body}'"
        raise status.bad_request(f"the object provided is unrecognized (must be of type {resource.kind}): {why}")
    if version and version != resource.api_version:
        why = f'no kind "{kind}" is registered for version "{version}"'
        raise status.bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {why}'
        )
    if kind and kind != resource.kind:
        if resource.custom:
            message = f'Invalid value: "{kind}": must be {resource.kind}'
            cause = {"reason": "FieldValueInvalid", "message": message, "field": "kind"}
            name = (body.get("metadata") or {}).get("name", "")
            raise status.invalid(resource.group, kind, name, [cause])
        why = f"converting (v1.{kind}) to (core.{resource.kind}): unknown conversion"
        raise status.bad_request(
            f'{kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {why}'
        )


def name_new(state: State, resource: Resource, obj: Object) -> Object:
    """Return a new object with its name, generated if asked.

    Raises:
        ApiError: 422, there is none; 500, it carries a version.
    """
    metadata = obj["metadata"]
    if metadata.get("resourceVersion"):
        raise status.internal("resourceVersion should not be set on objects to be created")
    if metadata.get("name"):
        return obj
    if not metadata.get("generateName"):
        message = "Required value: name or generateName is required"
        cause = {"reason": "FieldValueRequired", "message": message, "field": "metadata.name"}
        raise status.invalid(resource.group, resource.kind, "", [cause])
    name = metadata["generateName"] + state.new_suffix()
    return {**obj, "metadata": {**metadata, "name": name}}


# Against the object that is there.


def check_identity(resource: Resource, new: Object, live: Object) -> None:
    """Raises ApiError: 409, a PUT speaks of another incarnation of the object."""
    metadata, asked = live["metadata"], new["metadata"].get("uid")
    if asked and asked != metadata["uid"]:
        parts = ("/registry", resource.plural, metadata.get("namespace"), metadata["name"])
        why = (
            f"StorageError: invalid object, Code: 4, Key: {'/'.join(part for part in parts if part)}, "
            "ResourceVersion: 0, AdditionalErrorMsg: "
            f"Precondition failed: UID in precondition: {asked}, UID in object meta: {metadata['uid']}"
        )
        raise status.conflict(resource, metadata["name"], why)


def check_version(resource: Resource, new: Object, live: Object) -> None:
    """Raises ApiError: 409, the body speaks of another version; 422, it would change the uid."""
    metadata, asked = live["metadata"], new["metadata"]
    if asked.get("resourceVersion") and asked["resourceVersion"] != metadata["resourceVersion"]:
        raise status.conflict(resource, metadata["name"], status.MODIFIED)
    if asked.get("uid") and asked["uid"] != metadata["uid"]:
        message = f'Invalid value: "{asked["uid"]}": field is immutable'
        cause = {"reason": "FieldValueInvalid", "message": message, "field": "metadata.uid"}
        raise status.invalid(resource.group, resource.kind, metadata["name"], [cause])
    if resource.custom and not asked.get("resourceVersion"):
        message = "Invalid value: 0x0: must be specified for an update"
        cause = {"reason": "FieldValueInvalid", "message": message, "field": "metadata.resourceVersion"}
        raise status.invalid(resource.group, resource.kind, metadata["name"], [cause])


def check_absent(request: Request, applied: Object) -> None:
    """Raises ApiError: 409, an apply that would create names an incarnation of its own."""
    uid = applied["metadata"].get("uid")
    if uid:
        why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        raise status.conflict(request.resource, request.target.name, why)


def check_patch_options(request: Request, *, applies: bool) -> None:
    """Raises ApiError: 422."""
    manager = request.query.get("fieldManager", "")
    cause: dict[str, str] = {}
    if applies and not manager:
        message = "Required value: is required for apply patch"
        cause = {"reason": "FieldValueRequired", "message": message, "field": "fieldManager"}
    elif len(manager) > MANAGER_LIMIT_BYTES:
        message = "Too long: may not be more than 128 bytes"
        cause = {"reason": "FieldValueTooLong", "message": message, "field": "fieldManager"}
    elif not applies and "force" in request.query:
        message = "Forbidden: may not be specified for non-apply patch"
        cause = {"reason": "FieldValueForbidden", "message": message, "field": "force"}
    if cause:
        raise status.invalid("meta.k8s.io", "PatchOptions", "", [cause])


def check_room(state: State, resource: Resource, obj: Object) -> None:
    """Raises ApiError: 404 or 403, the namespace is not there, or it or the definition is going."""
    name = obj["metadata"]["name"]
    definition = state.storage.get(("apiextensions.k8s.io", "customresourcedefinitions"), ("", resource.qualified))
    if resource.custom and definition is not None and "deletionTimestamp" in definition["metadata"]:
        why = "create not allowed while custom resource definition is terminating"
        raise status.forbidden(resource, name, why)
    if not resource.namespaced:
        return
    namespace = obj["metadata"]["namespace"]
    found = state.storage.get(("", "namespaces"), ("", namespace))
    if found is None:
        kind = state.registry.find("", "v1", "namespaces")
        assert kind is not None
        raise status.not_found(kind, namespace)
    if "deletionTimestamp" in found["metadata"]:
        raise status.namespace_terminating(resource, name, namespace)
