"""Bytes out: JSON and problem+json, redacted, encoded off the loop when there is much of it."""

import asyncio
import http
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from fleet.aio import as_fleet_error
from fleet.errors import (
    ChildError,
    ChildTimeout,
    DocumentError,
    FetchFailed,
    FleetError,
    KubeError,
    NotFound,
    PathMissing,
    RenderError,
    RequestError,
    SealError,
    SettingsError,
    SourceError,
    StoreError,
    TargetError,
    Throttled,
    TreeRefused,
    Unreachable,
)
from fleet.log import redact

MANY_ROWS = 300
"""From here on encoding takes longer than a hop to a thread, and other requests would notice."""
COMPRESS_FROM_BYTES = 2048

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="fleet"'}
"""Goes with every 401."""

_ESCAPE = re.compile(r"(\\\\)|\\(?:[nrtbf]|u[0-9a-fA-F]{4})")
"""An escape of JSON; a backslash itself is a group, to tell its second half from the first of another."""

T = TypeVar("T")

_STATUS: tuple[tuple[type[FleetError], int], ...] = (
    (NotFound, 404),
    (Unreachable, 504),
    (Throttled, 503),
    (KubeError, 502),
    (PathMissing, 422),
    (TreeRefused, 422),
    (FetchFailed, 502),
    (SourceError, 409),
    (RenderError, 422),
    (DocumentError, 422),
    (ChildTimeout, 504),
    (ChildError, 502),
    (StoreError, 503),
    (SettingsError, 400),
    (SealError, 409),
)
_STATUS_BY_REASON = {
    "NotFound": 404,
    "RevisionMissing": 404,
    "TokenExists": 409,
    "InternalError": 500,
    "UnknownKey": 404,
}


class Exit:
    """The one way out: everything is redacted here. `executor` takes what would hold the loop for long."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """Run something pure and slow off the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *args)

    async def json(self, value: Any, *, status: int = 200, secret: bool = False) -> web.Response:
        """Answer a value as JSON. `secret` leaves it as it is: a new token must be seen once."""
        encode = msgspec.json.encode if secret else encode_redacted
        body = await self.run(encode, value) if _is_long(value) else encode(value)
        response = web.Response(body=body, status=status, content_type="application/json", charset="utf-8")
        if len(body) >= COMPRESS_FROM_BYTES:
            response.enable_compression()
        return response


def _is_long(value: Any) -> bool:
    parts = msgspec.structs.astuple(value) if isinstance(value, msgspec.Struct) else ()
    return any(isinstance(part, tuple) and len(part) > MANY_ROWS for part in parts)


def encode_redacted(value: Any) -> bytes:
    """Encode as JSON with every credential masked.

    Most answers hold none, so the whole text is searched first; only one in which something is found is walked.
    """
    body = msgspec.json.encode(value)
    text = body.decode()
    if "\\" in text:
        # the letter of an escape would hide where a word begins: "\nBearer"
        text = _ESCAPE.sub(lambda escape: escape[1] or " ", text)
    if redact(text) == text:
        return body
    return msgspec.json.encode(_redact_strings(msgspec.to_builtins(value)))


def _redact_strings(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(key): _redact_strings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_strings(item) for item in value]
    return value


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True):
    """An error. Source: RFC 9457."""

    type: str = "about:blank"
    title: str
    """The HTTP status in words."""
    status: int
    detail: str
    """What is wrong and what to do."""
    reason: str
    """CamelCase; stable, for machines."""
    problems: tuple[str, ...] = ()
    """Every fault found, where there can be several."""


def status_of(error: FleetError) -> int:
    """Return the HTTP status that tells an error best."""
    if isinstance(error, RequestError):
        return error.status
    if error.reason in _STATUS_BY_REASON:
        return _STATUS_BY_REASON[error.reason]
    if isinstance(error, TargetError):
        return 409
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem(error: FleetError, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer an error as problem+json."""
    status = status_of(error)
    problems = error.problems if isinstance(error, RenderError | DocumentError) else ()
    document = ProblemDocument(
        title=http.HTTPStatus(status).phrase,
        status=status,
        detail=str(error),
        reason=error.reason,
        problems=tuple(map(str, problems)),
    )
    challenge = CHALLENGE if status == 401 else {}
    return web.Response(
        body=encode_redacted(document),
        status=status,
        content_type="application/problem+json",
        headers={**challenge, **(headers or {})},
    )


def error_of(error: Exception, where: str) -> FleetError:
    """Return what to tell about any exception of a handler; a bug is logged and named InternalError."""
    if isinstance(error, web.HTTPException):
        return _error_of_http(error)
    if isinstance(error, TimeoutError):
        return RequestError(f"{where} took too long; try again, or look at the hub's log", status=504, reason="Timeout")
    return as_fleet_error(error, where)


def _error_of_http(error: web.HTTPException) -> RequestError:
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return RequestError("the body is too large; 64 KiB is the most", status=413, reason="BodyTooLarge")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return RequestError(f"{error.method} is not allowed here; use {allowed}", status=405, reason="MethodNotAllowed")
    return RequestError(error.text or error.reason, status=error.status, reason=error.reason.replace(" ", ""))
