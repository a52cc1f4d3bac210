"""An API server's refusal -> a typed error. Pure.

The server's own classification is not enough: a wrong manifest can come back as a 500 without a reason, an unknown kind
as plain text, and a 409 means three different things. Source: apimachinery's `StatusReason`, and replies seen on a real
kube-apiserver.
"""

from collections.abc import Mapping, Sequence

import msgspec

from fleet.errors import (
    After,
    Cause,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    NotFound,
    ServerFailure,
    Throttled,
    Unauthorized,
    Unreachable,
)

MOST_MESSAGE = 256
MOST_CAUSES = 20
FIELD_CONFLICT = "FieldManagerConflict"
DEFAULT_PAUSE_S = 1.0
MOST_PAUSE_S = 120.0

_SCHEMA_MARKS = (
    "failed to create typed patch object",
    "failed to create typed live object",
    "failed to create typed new object",
    "field not declared in schema",
)
_IMMUTABLE_MARKS = (
    "field is immutable",
    "is immutable",
    "Forbidden: updates to",
    "may not be changed",
    "may not change once set",
    "may not change fields other than",
    "cannot change ",
)
_TOO_LARGE = "request is too large"
_WEBHOOK = "failed calling webhook"
_POLICY = "ValidatingAdmissionPolicy '"
_PLAIN_TO_TLS = b"Client sent an HTTP request to an HTTPS server"
"""What a Go server's TLS port answers to plain HTTP. Source: net/http."""


class _Cause(msgspec.Struct):
    reason: str = ""
    field: str = ""
    message: str = ""


class _Details(msgspec.Struct):
    name: str = ""
    group: str = ""
    kind: str = ""
    causes: list[_Cause] | None = None
    retryAfterSeconds: int = 0  # noqa: N815 - the wire's name


class Status(msgspec.Struct):
    """A `v1 Status`, as far as it matters here."""

    kind: str = ""
    status: str = ""
    message: str = ""
    reason: str = ""
    details: _Details | None = None
    code: int = 0


_STATUS = msgspec.json.Decoder(Status)


def decode_status(body: bytes | msgspec.Raw) -> Status | None:
    """Decode a body if it is a Status; None for HTML, plain text and everything else."""
    try:
        status = _STATUS.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return status if status.kind == "Status" else None


def classify(
    code: int, body: bytes | msgspec.Raw, headers: Mapping[str, str], *, subject: str = "", plural: str = ""
) -> KubeError:
    """Return the error that a reply with HTTP status `code` means.

    `plural` is the resource that was asked for: a missing namespace is only then not the object itself.
    """
    if code == 400 and _PLAIN_TO_TLS in bytes(body):
        return Unreachable(
            "the server speaks TLS on this port; use https in its address", reason="ProtocolError", status=code
        )
    status = decode_status(body)
    details = (status.details if status else None) or _Details()
    causes = tuple(Cause(c.reason, c.field, _cut(c.message)) for c in (details.causes or ())[:MOST_CAUSES])
    message = _cut(
        status.message if status and status.message else f"the API server answered HTTP {code} without a reason"
    )
    if code == 404:
        return NotFound(_explain_404(status, message), what=_missing(status, plural), causes=causes, subject=subject)
    texts = [c.message for c in details.causes or ()] or [status.message if status else ""]
    kind, reason = _sort(code, status, message, causes, texts)
    retry = _pause(code, headers, details)
    return kind(message, status=code, causes=causes, reason=reason, subject=subject, retry=retry)


_SIMPLE: dict[int, tuple[type[KubeError], str]] = {
    401: (Unauthorized, ""),
    405: (Invalid, "MethodNotAllowed"),
    406: (Invalid, "NotAcceptable"),
    410: (Gone, ""),
    413: (Invalid, "TooLarge"),
    415: (Invalid, "UnsupportedMediaType"),
    429: (Throttled, ""),
}


def _sort(
    code: int, status: Status | None, message: str, causes: tuple[Cause, ...], texts: Sequence[str]
) -> tuple[type[KubeError], str]:
    if code in _SIMPLE:
        return _SIMPLE[code]
    if code == 403:
        return Forbidden, _forbidden_reason(message, causes)
    if code == 409:
        return Conflict, "AlreadyExists" if status and status.reason == "AlreadyExists" else ""
    if code == 422:
        return Invalid, _invalid_reason(message, texts)
    if code >= 500:
        return _sort_failure(code, message)
    return (Invalid, "BadRequest") if code >= 400 else (ServerFailure, "Redirected")


def _sort_failure(code: int, message: str) -> tuple[type[KubeError], str]:
    if code == 500 and any(mark in message for mark in _SCHEMA_MARKS):
        return Invalid, "SchemaMismatch"
    if code == 500 and _TOO_LARGE in message:
        return Invalid, "TooLarge"
    if _WEBHOOK in message:
        return ServerFailure, "WebhookFailed"
    return ServerFailure, "Timeout" if code == 504 else ""


def _forbidden_reason(message: str, causes: tuple[Cause, ...]) -> str:
    if any(cause.reason == "NamespaceTerminating" for cause in causes):
        return "NamespaceTerminating"
    if "exceeded quota" in message:
        return "QuotaExceeded"
    return "AdmissionDenied" if "admission webhook" in message or "ValidatingAdmissionPolicy" in message else ""


def _invalid_reason(message: str, texts: Sequence[str]) -> str:
    """A policy's refusal is a 422 unless the policy says otherwise; its words may sound like the server's own."""
    if _POLICY in message:
        return "AdmissionDenied"
    return "ImmutableField" if _is_immutable(texts) else ""


def _is_immutable(texts: Sequence[str]) -> bool:
    """Look through whole messages: they quote the old value, which may be long, before they say what is wrong with it."""
    return any(mark in text for text in texts for mark in _IMMUTABLE_MARKS)


def _missing(status: Status | None, plural: str) -> str:
    """Tell what is missing: a kind that is not served is answered in plain text, or by a Status without details."""
    if status is None:
        return "kind"
    details = status.details or _Details()
    if not details.kind and not details.name:
        return "kind"
    return "namespace" if details.kind == "namespaces" and plural != "namespaces" else "object"


def _explain_404(status: Status | None, message: str) -> str:
    return message if status else "the API server does not serve this kind"


def _pause(code: int, headers: Mapping[str, str], details: _Details) -> After | None:
    """Read how long the server asks us to wait; a 429 always asks for a moment."""
    text = headers.get("Retry-After", "")
    seconds = float(text) if text.isascii() and text.isdigit() else float(details.retryAfterSeconds)
    seconds = max(0.0, min(seconds, MOST_PAUSE_S))
    if code == 429:
        return After(seconds or DEFAULT_PAUSE_S)
    return After(seconds) if code == 503 and seconds else None


def _cut(text: str) -> str:
    """Shorten a message in its middle: it begins with the field and ends with what is wrong."""
    if len(text) <= MOST_MESSAGE:
        return text
    half = MOST_MESSAGE // 2
    return f"{text[: half - 1]}…{text[-half:]}"


def is_field_conflict(error: KubeError) -> bool:
    """Tell a conflict between field managers from a failed precondition: both are 409."""
    return isinstance(error, Conflict) and any(cause.reason == FIELD_CONFLICT for cause in error.causes)


def conceal(error: KubeError) -> KubeError:
    """Return the error without the server's words, which quote values of the object that was refused."""
    causes = tuple(Cause(cause.reason, cause.field, "") for cause in error.causes)
    fields = ", ".join(cause.field for cause in causes if cause.field)
    where = f" at {fields}" if fields else ""
    error.message = f"refused{where}; the server's message is withheld because the object holds secret values"
    error.args = (error.message,)
    error.causes = causes
    return error
