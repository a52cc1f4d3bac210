"""Errors as the API server words them: HTTP code, reason, message, details and causes."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleet.sim.resource import Resource

Cause = Mapping[str, str]
"""One entry of details.causes: `reason`, `message`, `field`."""


class ApiError(Exception):
    """A request that ends in a Status object (or, with `text`, in plain text as for unknown paths)."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        text: str = "",
        resume: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = dict(headers or {})
        self.text = text
        self.resume = resume
        self.after_s = 0.0
        """How long the server tries before it gives this answer."""

    def body(self) -> dict[str, Any]:
        """Return the Status object."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.resume} if self.resume else {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = dict(self.details)
        status["code"] = self.code
        return status


def success(resource: Resource, name: str, uid: str) -> dict[str, Any]:
    """Return the Status that answers a DELETE which removed the object at once."""
    details = {
        "name": name,
        **({"group": resource.group} if resource.group else {}),
        "kind": resource.plural,
        "uid": uid,
    }
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _details(resource: Resource, name: str = "", causes: Sequence[Cause] = (), **more: Any) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if resource.group:
        details["group"] = resource.group
    details["kind"] = resource.plural
    if causes:
        details["causes"] = [dict(cause) for cause in causes]
    return details | more


def not_found(resource: Resource, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{resource.qualified} "{name}" not found', details=_details(resource, name))


def page_not_found() -> ApiError:
    """Unknown paths are answered in plain text, not with a Status."""
    return ApiError(404, "NotFound", "404 page not found", text="404 page not found\n")


def resource_not_found() -> ApiError:
    """A known group version without such a resource answers with a nameless Status."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", details={})


def already_exists(resource: Resource, name: str) -> ApiError:
    message = f'{resource.qualified} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=_details(resource, name))


def conflict(resource: Resource, name: str, why: str) -> ApiError:
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, details=_details(resource, name))


MODIFIED: Final = "the object has been modified; please apply your changes to the latest version and try again"


def field_conflict(causes: Sequence[tuple[str, str]]) -> ApiError:
    """Server-side apply met fields of other managers; `causes` are (message, field)."""
    listed = [{"reason": "FieldManagerConflict", "message": message, "field": path} for message, path in causes]
    return ApiError(409, "Conflict", _conflict_message(causes), details={"causes": listed})


def _conflict_message(causes: Sequence[tuple[str, str]]) -> str:
    if len(causes) == 1:
        return f"Apply failed with 1 conflict: {causes[0][0]}: {causes[0][1]}"
    groups: dict[str, list[str]] = {}
    for message, path in causes:
        groups.setdefault(message.removeprefix("conflict with "), []).append(path)
    lines = []
    for manager, paths in sorted(groups.items()):
        lines += [f"conflicts with {manager}:", *(f"- {path}" for path in paths)]
    return f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)


def invalid(group: str, kind: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """Validation failed; each cause carries `field`, `reason`, `message` (without the field)."""
    lines = [f"{cause['field']}: {cause['message']}" for cause in causes]
    joined = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    qualified = f"{kind}.{group}" if group else kind
    details: dict[str, Any] = {"name": name} if name else {}
    if group:
        details["group"] = group
    details |= {"kind": kind, "causes": [dict(cause) for cause in causes]}
    return ApiError(422, "Invalid", f'{qualified} "{name}" is invalid: {joined}', details=details)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def forbidden(resource: Resource, name: str, why: str, causes: Sequence[Cause] = ()) -> ApiError:
    shown = f'{resource.qualified} "{name}"' if name else resource.qualified
    return ApiError(403, "Forbidden", f"{shown} is forbidden: {why}", details=_details(resource, name, causes))


def namespace_terminating(resource: Resource, name: str, namespace: str) -> ApiError:
    why = f"unable to create new content in namespace {namespace} because it is being terminated"
    message = f"namespace {namespace} is being terminated"
    cause = {"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}
    return forbidden(resource, name, why, [cause])


def rejected() -> ApiError:
    """A patch that cannot be applied."""
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", details={})


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def conflict_of_kind(resource: Resource, name: str, why: str) -> ApiError:
    """Return the conflict of a failed precondition of a DELETE, which names the kind instead of the resource."""
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    details = _details(resource, name) | {"kind": resource.kind}
    return ApiError(409, "Conflict", f'Operation cannot be fulfilled on {kind} "{name}": {why}', details=details)


def method_not_allowed() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, details={})


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return ApiError(415, "UnsupportedMediaType", message)


def unsupported_patch() -> ApiError:
    return ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", details={})


def not_acceptable(accepted: Sequence[str]) -> ApiError:
    message = f"406: Not Acceptable\n\nAvailable representations: {', '.join(accepted)}"
    return ApiError(406, "NotAcceptable", message, details={})


def wrong_form(asked: str, *, a_list: bool) -> ApiError:
    """A single object was asked for where there is a list, or the other way round."""
    what = "a list" if a_list else "not a list"
    return ApiError(406, "NotAcceptable", f"you requested {asked}, but the requested object is {what}")


def too_large() -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728")


def internal(message: str) -> ApiError:
    """A 500 without a reason, as the API server answers for errors it does not know."""
    return ApiError(500, "", message)


def expired(message: str, *, resume: str = "") -> ApiError:
    """A resourceVersion or continue token whose history is gone; `resume` continues without consistency."""
    return ApiError(410, "Expired", message, resume=resume)


def future_version(asked: int, current: int) -> ApiError:
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    error = ApiError(504, "Timeout", message, details={"causes": [cause], "retryAfterSeconds": 1})
    error.after_s = 3.0
    return error


def too_many_requests(retry_after_s: int) -> ApiError:
    return ApiError(
        429,
        "TooManyRequests",
        "Too many requests, please try again later.",
        details={"retryAfterSeconds": retry_after_s},
        headers={"Retry-After": str(retry_after_s)},
    )
