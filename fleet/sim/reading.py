"""GET and LIST: versions, selectors, and pages of one consistent list."""

import base64
import binascii
from typing import Any

import msgspec

from fleet.sim import status
from fleet.sim.representation import listed, shown, wants_metadata
from fleet.sim.request import Request
from fleet.sim.resource import Resource
from fleet.sim.state import State
from fleet.sim.storage import HistoryGone, Object


def read(state: State, request: Request) -> Object:
    """Return the object, or the Scale of it, that a GET names.

    Raises:
        ApiError: 404, 406.
    """
    obj = find(state, request)
    if request.target.subresource == "scale":
        return scale_of(obj, request.resource)
    return shown(obj, request.resource, metadata_only=wants_metadata(request.accept))


def find(state: State, request: Request) -> Object:
    """Return the stored object that a request names.

    Raises:
        ApiError: 404.
    """
    obj = state.storage.get(request.resource.collection, request.key)
    if obj is None:
        raise status.not_found(request.resource, request.target.name)
    return obj


def read_list(state: State, request: Request) -> Object:
    """Return a List, or one page of it.

    Raises:
        ApiError: 400, 406, 410 for a page of a list that is gone, 422, 504 for a version of the future.
    """
    metadata_only = wants_metadata(request.accept, a_list=True)
    selection = request.selection()
    start, rv = _position(state, request)
    try:
        whole = state.storage.items_at(request.resource.collection, rv)
    except HistoryGone as gone:
        raise _expired_list(start) from gone
    chosen = [obj for obj in whole if selection.matches(obj)]
    page, metadata = _page(state, request, chosen, start, rv, narrow=selection.narrow)
    return listed(page, request.resource, metadata, metadata_only=metadata_only)


def _position(state: State, request: Request) -> tuple[tuple[str, str] | None, int]:
    token = request.query.get("continue", "")
    asked = request.query.get("resourceVersion", "")
    if not token:
        return None, _checked_version(state, request, asked)
    if asked not in ("", "0"):
        raise status.bad_request("specifying resource version is not allowed when using continue")
    return _parse_continue(token, state.storage.rv)


def _checked_version(state: State, request: Request, asked: str) -> int:
    match = request.query.get("resourceVersionMatch", "")
    if match and not asked:
        message = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        cause = {"reason": "FieldValueForbidden", "message": message, "field": "resourceVersionMatch"}
        raise status.invalid("meta.k8s.io", "ListOptions", "", [cause])
    try:
        version = parse_version(asked)
    except ValueError as error:
        raise status.bad_request(f"invalid resource version: {error}") from error
    if version > state.storage.rv:
        raise status.future_version(version, state.storage.rv)
    return version if match == "Exact" else state.storage.rv


def parse_version(asked: str) -> int:
    """Parse a resourceVersion; empty is 0.

    Raises:
        ValueError: It is no number; the message is the API server's.
    """
    if asked and not asked.isdigit():
        message = f'Invalid value: "{asked}": strconv.ParseUint: parsing "{asked}": invalid syntax'
        raise ValueError(f"resourceVersion: {message}")
    return int(asked or 0)


def _page(
    state: State, request: Request, chosen: list[Object], start: tuple[str, str] | None, rv: int, *, narrow: bool
) -> tuple[list[Object], dict[str, Any]]:
    limit = _limit(request)
    metadata: dict[str, Any] = {"resourceVersion": str(rv)}
    rest = [obj for obj in chosen if start is None or key_of(obj) >= start]
    if not limit or len(rest) <= limit or request.query.get("resourceVersion") == "0":
        return rest, metadata
    metadata["continue"] = _continue_token(rv, key_of(rest[limit]))
    if not narrow:
        metadata["remainingItemCount"] = len(rest) - limit
    return rest[:limit], metadata


def _limit(request: Request) -> int:
    asked = request.query.get("limit") or "0"
    if not asked.isdigit():
        raise status.bad_request(f'strconv.ParseInt: parsing "{asked}": invalid syntax')
    return int(asked)


def key_of(obj: Object) -> tuple[str, str]:
    """Return (namespace, name)."""
    return (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def _continue_token(rv: int, start: tuple[str, str]) -> str:
    token = {"v": "meta.k8s.io/v1", "rv": rv, "start": "/".join(start)}
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def _parse_continue(token: str, newest: int) -> tuple[tuple[str, str], int]:
    try:
        parsed = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, _, name = parsed["start"].partition("/")
        rv = int(parsed["rv"])
    except (binascii.Error, msgspec.DecodeError, KeyError, ValueError, TypeError) as error:
        raise status.bad_request("invalid continue token: continue key is not valid: illegal base64 data") from error
    return (namespace, name), (newest if rv < 0 else rv)


def _expired_list(start: tuple[str, str] | None) -> status.ApiError:
    if start is None:
        return status.expired("The resourceVersion for the provided list is too old.")
    message = (
        "The provided continue parameter is too old to display a consistent list result. You can start a new list "
        "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
        "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
        "modified, or deleted between the time the first chunk was returned and now may show up in the list."
    )
    return status.expired(message, resume=_continue_token(-1, start))


def scale_of(obj: Object, resource: Resource) -> Object:
    """Return the autoscaling/v1 Scale that stands for a scalable object."""
    paths = resource.scale
    assert paths is not None
    metadata = {
        name: obj["metadata"][name]
        for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if name in obj["metadata"]
    }
    status_part: dict[str, Any] = {"replicas": lookup(obj, paths.status) or 0}
    selector = _selector_text(obj, paths.selector)
    if selector:
        status_part["selector"] = selector
    replicas = lookup(obj, paths.spec)
    spec = {"replicas": replicas} if replicas else {}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status_part}


def lookup(obj: Any, path: str) -> Any:
    """Return the value at a dotted path, or None."""
    for part in path.lstrip(".").split("."):
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def _selector_text(obj: Object, path: str) -> str:
    if path and isinstance(text := lookup(obj, path), str):
        return text
    labels = lookup(obj, "spec.selector.matchLabels") or {}
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
