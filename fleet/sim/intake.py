"""From what came in to what may be stored: read by the schema, patched, given defaults, checked; errors as replies."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from fleet.sim import admission, patching, status
from fleet.sim.representation import encode
from fleet.sim.request import Request
from fleet.sim.resource import Resource
from fleet.sim.state import State
from fleet.sim.storage import Object

JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"


def read(state: State, request: Request, body: Object) -> tuple[Object, Sequence[str]]:
    """Return a body without the fields nobody knows, and warnings about them.

    Raises:
        ApiError: 400 (422 for what a patch led to), a value is of a wrong type, or a field is unknown and validation
            is strict.
    """
    try:
        reading = admission.read(_subject(state, request.resource), body)
    except admission.Malformed as error:
        raise _unreadable(request, body, str(error)) from error
    said = tuple(f'unknown field "{path}"' for path in reading.unknown)
    wanted = request.query.get("fieldValidation") or "Warn"
    if said and wanted == "Strict":
        raise _unreadable(request, body, f"strict decoding error: {', '.join(said)}")
    return reading.obj, said if wanted == "Warn" else ()


def _unreadable(request: Request, body: Object, why: str) -> status.ApiError:
    if request.verb == "patch":
        shown = encode(body).decode()
        message = f'Invalid value: "{shown}": {why}'
        return status.invalid("", "", "", [{"reason": "FieldValueInvalid", "message": message, "field": "patch"}])
    kind = request.resource.kind
    return status.bad_request(f'{kind} in version "{request.resource.version}" cannot be handled as a {kind}: {why}')


def _subject(state: State, resource: Resource) -> admission.Subject:
    path = (resource.group, resource.version, resource.kind)
    document = state.documents.get(path) if resource.custom else None
    return admission.Subject(group=resource.group, kind=resource.kind, schema=state.schema(resource), document=document)


def defaulted(state: State, resource: Resource, obj: Object) -> Object:
    """Return an object as it is stored: known fields in canonical form, with defaults.

    Raises:
        ApiError: 400, a value is of a wrong type.
    """
    try:
        return _in_order(admission.defaulted(_subject(state, resource), obj))
    except admission.Malformed as error:
        raise status.bad_request(f'{resource.kind} in version "{resource.version}": {error}') from error


def _in_order(obj: Object) -> Object:
    """Return the object with its kind and metadata first, as the server writes it."""
    head = {name: obj[name] for name in ("kind", "apiVersion", "metadata")}
    return head | {name: value for name, value in obj.items() if name not in head}


def admit_new(state: State, resource: Resource, obj: Object) -> Object:
    """Return a new object that passed its checks.

    Raises:
        ApiError: 422.
    """
    with _refusing(resource, obj):
        admission.check_new(_subject(state, resource), obj)
    return obj


def admit_update(state: State, request: Request, live: Object, new: Object) -> Object:
    """Return a changed object that passed its checks. The status of a built-in kind is taken as it is.

    Raises:
        ApiError: 422.
    """
    if request.target.subresource == "status" and not request.resource.custom:
        return new
    with _refusing(request.resource, new):
        admission.check_update(_subject(state, request.resource), live, new)
    return new


@contextmanager
def _refusing(resource: Resource, obj: Object) -> Iterator[None]:
    try:
        yield
    except admission.Invalid as error:
        raise status.invalid(resource.group, resource.kind, obj["metadata"]["name"], error.causes) from error


def patched(state: State, request: Request, obj: Object, body: Any) -> Object:
    """Return an object changed by a patch of the request's kind.

    Raises:
        ApiError: 400, the patch is none; 422, it cannot be applied.
    """
    media = request.content_type.partition(";")[0].strip()
    try:
        if media == JSON_PATCH:
            return _object(patching.json_patch(obj, body))
        if not isinstance(body, dict):
            raise status.bad_request("error decoding patch: json: cannot unmarshal the body into a map")
        if media == MERGE_PATCH:
            return _object(patching.merge_patch(obj, body))
        return _object(patching.strategic_merge(state.schema(request.resource), obj, body))
    except patching.BadPatch as error:
        raise status.bad_request(str(error)) from error
    except patching.PatchFailed as error:
        raise status.rejected() from error


def _object(document: Any) -> Object:
    if not isinstance(document, dict):
        raise status.rejected()
    return document
